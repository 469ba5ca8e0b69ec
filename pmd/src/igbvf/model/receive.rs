//! How the model receives.

use super::vf::Vf;
use crate::igbvf::desc::{DESCRIPTOR, rx as desc};
use crate::igbvf::regs::{self, BAH, BAL, HEAD, LEN, SRRCTL, SRRCTL_BSIZEPKT, TAIL};
use crate::offload::{Sum, Transport, parse};

/// IP checksum looked at: what the driver does not ask about.
const IPCS: u64 = 1 << 6;
/// RSS hash and packet type: nobody should look at them.
const GARBAGE: u64 = 0xdead_beef_0bad_f00d;
const FCS: usize = 4;

impl Vf {
    /// A frame arrives; whether it was written to memory.
    pub(super) fn receive(&mut self, frame: &[u8]) -> bool {
        let queue = usize::from(self.spreads && frame.iter().fold(0u8, |a, b| a ^ b) & 1 != 0);
        let at = regs::rx(queue);
        let is_long = frame.len() + FCS > self.pf.vf_longest as usize;
        if !self.has_link() || !self.is_on(at) || !self.masters_bus() || is_long {
            return false;
        }
        let (frame, status) = self.with_status(frame);
        if !self.write_frame(at, &frame, status) {
            self.missed += 1;
            return false;
        }
        self.add_to(regs::VFGPRC, 1);
        self.add_to(regs::VFGORC, frame.len() + FCS);
        let entry = *self.register(regs::VTIVAR) >> (16 * queue);
        self.raise_entry(entry);
        true
    }

    /// The frame as it is written, its tag taken out if that is asked for, and what is said of it.
    fn with_status(&self, frame: &[u8]) -> (Vec<u8>, u64) {
        let mut status = checksum_status(frame);
        let mut frame = frame.to_vec();
        if self.strips_vlans && frame.len() > 16 && frame[12..14] == [0x81, 0] {
            let tag = u16::from_be_bytes([frame[14], frame[15]]);
            frame.drain(12..16);
            status |= desc::VP | u64::from(tag) << desc::TAG_SHIFT;
        }
        (frame, status)
    }

    fn write_frame(&mut self, at: usize, frame: &[u8], status: u64) -> bool {
        let buffer = ((*self.register(at + SRRCTL) & SRRCTL_BSIZEPKT) as usize) << 10;
        let n = *self.register(at + LEN) / DESCRIPTOR as u32;
        let (head, tail) = (*self.register(at + HEAD), *self.register(at + TAIL));
        let free = (tail + n - head) % n.max(1);
        if buffer == 0 || n == 0 || frame.len().div_ceil(buffer) + self.rx_skips > free as usize {
            return false;
        }
        let base = u64::from(*self.register(at + BAH)) << 32 | u64::from(*self.register(at + BAL));
        let mut head = (head + core::mem::take(&mut self.rx_skips) as u32) % n;
        let mut lie = self.rx_lie.take();
        let last = frame.len().div_ceil(buffer) - 1;
        for (i, piece) in frame.chunks(buffer).enumerate() {
            let eop = if i == last { desc::EOP | status } else { 0 };
            let word = desc::DD | eop | (piece.len() as u64) << desc::LENGTH_SHIFT;
            let word = lie.as_mut().map_or(word, |lie| lie(i, word));
            self.write_piece(base + u64::from(head) * DESCRIPTOR as u64, piece, word);
            head = (head + 1) % n;
        }
        self.rx_lie = lie;
        *self.register(at + HEAD) = head;
        true
    }

    fn write_piece(&mut self, descriptor: u64, piece: &[u8], word: u64) {
        let Some(to) = self.memory.load(descriptor) else { return };
        if self.memory.write(to, piece) {
            self.memory.store(descriptor, GARBAGE);
            self.memory.store(descriptor + 8, word);
        }
    }

    /// Writes any word back to any descriptor of receive queue 0.
    pub fn scribble(&mut self, index: usize, word: u64) {
        let base =
            u64::from(*self.register(regs::rx(0) + BAH)) << 32 | u64::from(*self.register(regs::rx(0) + BAL));
        self.memory.store(base + (index * DESCRIPTOR) as u64 + 8, word);
    }
}

/// What the card says of the transport checksum.
fn checksum_status(frame: &[u8]) -> u64 {
    let h = parse(frame, frame.len());
    if h.transport == Transport::Unknown {
        return 0;
    }
    let ip = &frame[h.l3..];
    let (addresses, l4) = if h.l4 - h.l3 >= 40 { (&ip[8..40], h.l4) } else { (&ip[12..20], h.l4) };
    let mut sum = Sum::new();
    sum.add(addresses);
    sum.add_word(if h.transport == Transport::Tcp { 6 } else { 17 });
    sum.add_word((h.l3_end - l4) as u16);
    sum.add(&frame[l4..h.l3_end]);
    let udp = if h.transport == Transport::Udp { desc::UDPCS } else { 0 };
    let wrong = if sum.finish() == 0 { 0 } else { desc::L4E };
    desc::L4CS | IPCS | udp | wrong
}
