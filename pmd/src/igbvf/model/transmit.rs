//! How the model sends: checksums and segmentation by its own reading of the datasheet (chapter 7.2), so that they can be held
//! against those in software.

use super::vf::Vf;
use crate::igbvf::desc::{DESCRIPTOR, tx as desc};
use crate::igbvf::regs::{self, BAH, BAL, HEAD, LEN, TAIL};
use crate::offload::Sum;

/// Fewest bytes that a frame may have, most that it may, and most descriptors.
const LEAST: usize = 17;
const MOST: usize = 16_124;
const MOST_PIECES: usize = 64;
/// Longest headers of a packet that is to be segmented.
const MOST_HEADER: usize = 240;
const FCS: usize = 4;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// A transmit queue between two doorbells.
#[derive(Debug, Default)]
pub(super) struct Transmit {
    context: Option<[u64; 2]>,
    /// The first descriptor's word of the packet in hand, its bytes and pieces so far.
    first: Option<u64>,
    bytes: Vec<u8>,
    pieces: usize,
}

impl Vf {
    /// Takes what was written up to the tail; returns the frames.
    pub(super) fn transmit(&mut self, queue: usize) -> Vec<Vec<u8>> {
        let at = regs::tx(queue);
        let mut frames = Vec::new();
        if !self.is_on(at) || !self.masters_bus() || self.tx_stands || !self.has_link() {
            return frames;
        }
        let n = *self.register(at + LEN) / DESCRIPTOR as u32;
        let base = u64::from(*self.register(at + BAH)) << 32 | u64::from(*self.register(at + BAL));
        if *self.register(at + TAIL) >= n {
            self.offend("a tail beyond the ring");
            return frames;
        }
        while *self.register(at + HEAD) != *self.register(at + TAIL) {
            let head = *self.register(at + HEAD);
            let descriptor = base + u64::from(head) * DESCRIPTOR as u64;
            let Some(word) = self.take_descriptor(queue, descriptor, &mut frames) else { break };
            *self.register(at + HEAD) = (head + 1) % n;
            self.report(base, descriptor, word);
        }
        frames
    }

    fn report(&mut self, base: u64, descriptor: u64, word: u64) {
        if self.tx_reports_nothing {
            return;
        }
        if word & desc::RS != 0 || self.tx_reports_twice {
            self.memory.store(descriptor + 8, desc::DD);
        }
        if self.tx_reports_twice && descriptor > base {
            self.memory.store(descriptor - 8, desc::DD);
        }
    }

    /// Takes one descriptor. None: it could not be read, and the queue stands.
    fn take_descriptor(&mut self, queue: usize, at: u64, frames: &mut Vec<Vec<u8>>) -> Option<u64> {
        let (first, word) = (self.memory.load(at)?, self.memory.load(at + 8)?);
        match word & (desc::TYPE | desc::DEXT) {
            kind if kind == desc::CONTEXT & (desc::TYPE | desc::DEXT) => {
                self.transmit[queue].context = Some([first, word]);
            }
            kind if kind == desc::DATA & (desc::TYPE | desc::DEXT) => {
                let len = (word & 0xffff) as usize;
                let bytes = self.memory.read(first, len)?;
                if self.memory.crosses_pages(first, len.max(1)) {
                    // QEMU's card drops the packet.
                    self.offend("a piece of a packet lies across two pages");
                }
                self.take_piece(queue, word, &bytes, frames);
            }
            kind => self.offend(format!("a descriptor of type {kind:#x}")),
        }
        Some(word)
    }

    fn take_piece(&mut self, queue: usize, word: u64, bytes: &[u8], frames: &mut Vec<Vec<u8>>) {
        if bytes.is_empty() {
            self.offend("a piece without bytes");
        }
        let t = &mut self.transmit[queue];
        t.first.get_or_insert(word);
        t.bytes.extend_from_slice(bytes);
        t.pieces += 1;
        if word & desc::EOP == 0 {
            return;
        }
        let packet = core::mem::take(&mut t.bytes);
        let (first, pieces) = (t.first.take().unwrap_or(word), core::mem::take(&mut t.pieces));
        if pieces > MOST_PIECES {
            self.offend(format!("a packet of {pieces} pieces"));
        }
        let context = self.transmit[queue].context;
        match finish(packet, first, context) {
            Ok(done) => {
                for frame in &done {
                    self.count_frame(frame);
                }
                frames.extend(done);
            }
            Err(offence) => self.offend(offence),
        }
    }

    fn count_frame(&mut self, frame: &[u8]) {
        self.add_to(regs::VFGPTC, 1);
        self.add_to(regs::VFGOTC, frame.len() + FCS);
        if frame.len() < LEAST || frame.len() > MOST {
            self.offend(format!("a frame of {} bytes", frame.len()));
        }
    }
}

/// What a context says.
struct Headers {
    link: usize,
    transport: usize,
    l4_len: usize,
    mss: usize,
    is_v4: bool,
    is_tcp: bool,
}

impl Headers {
    fn of([lengths, kinds]: [u64; 2]) -> Self {
        let link = (lengths >> desc::MACLEN_SHIFT) as usize & desc::MACLEN_MAX;
        Self {
            link,
            transport: link + ((lengths >> desc::IPLEN_SHIFT) as usize & desc::IPLEN_MAX),
            l4_len: (kinds >> desc::L4LEN_SHIFT) as usize & 0xff,
            mss: (kinds >> desc::MSS_SHIFT) as usize,
            is_v4: kinds & desc::IPV4 != 0,
            is_tcp: kinds & desc::TCP != 0,
        }
    }

    fn end(&self) -> usize {
        self.transport + self.l4_len
    }
}

/// Makes the frames that go out of a packet.
fn finish(mut packet: Vec<u8>, word: u64, context: Option<[u64; 2]>) -> Result<Vec<Vec<u8>>, String> {
    let payload = (word >> desc::PAYLEN_SHIFT) as usize;
    let is_cut = word & desc::TSE != 0;
    if word & (desc::TXSM | desc::IXSM | desc::TSE) == 0 {
        let is_whole = payload == packet.len();
        return if is_whole {
            Ok(vec![packet])
        } else {
            Err(format!("PAYLEN {payload} of {}", packet.len()))
        };
    }
    let h = Headers::of(context.ok_or("an offload without a context")?);
    if is_cut {
        return segment(&packet, &h, payload);
    }
    if payload != packet.len() || h.link < 14 {
        return Err(format!("PAYLEN {payload} of {}, link header of {}", packet.len(), h.link));
    }
    insert(&mut packet, &h, 0)?;
    Ok(vec![packet])
}

/// Inserts the transport checksum: what stands there is part of the sum.
fn insert(frame: &mut [u8], h: &Headers, add: u16) -> Result<(), String> {
    let at = h.transport + if h.is_tcp { 16 } else { 6 };
    if at + 2 > frame.len() {
        return Err(format!("a checksum at {at} of {}", frame.len()));
    }
    let mut sum = Sum::new();
    sum.add(&frame[h.transport..]);
    sum.add_word(add);
    let checksum = if sum.finish() == 0 { 0xffff } else { sum.finish() };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

fn segment(packet: &[u8], h: &Headers, payload: usize) -> Result<Vec<Vec<u8>>, String> {
    let end = h.end();
    let is_sane = h.mss > 0 && end <= MOST_HEADER && h.link >= 14 && h.is_tcp && h.l4_len >= 20;
    if !is_sane || end + payload != packet.len() || payload == 0 {
        let (mss, all) = (h.mss, packet.len());
        return Err(format!("segmentation: MSS {mss}, headers {end}, PAYLEN {payload} of {all}"));
    }
    let pieces = packet[end..].chunks(h.mss);
    let last = pieces.len() - 1;
    pieces.enumerate().map(|(i, piece)| cut(&packet[..end], piece, h, i, i == last)).collect()
}

fn cut(headers: &[u8], piece: &[u8], h: &Headers, i: usize, is_last: bool) -> Result<Vec<u8>, String> {
    let mut frame = [headers, piece].concat();
    let tcp_len = (h.l4_len + piece.len()) as u16;
    let ip = &mut frame[h.link..h.transport];
    if h.is_v4 {
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(i as u16);
        let len = u16::from_be_bytes([ip[2], ip[3]]).wrapping_add(ip.len() as u16 + tcp_len);
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        let mut sum = Sum::new();
        sum.add(ip);
        ip[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    } else {
        let len = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add((ip.len() - 40) as u16 + tcp_len);
        ip[4..6].copy_from_slice(&len.to_be_bytes());
    }
    let tcp = &mut frame[h.transport..];
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add((i * h.mss) as u32);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[13] &= if is_last { 0xff } else { !FIN_PSH };
    tcp[13] &= if i == 0 { 0xff } else { !CWR };
    insert(&mut frame, h, tcp_len)?;
    Ok(frame)
}
