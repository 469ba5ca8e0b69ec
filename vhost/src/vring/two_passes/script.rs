//! What bytes say of a play: the ring, what stands in it, frames, and what is rewritten when.

use mbuf::{Checksum, GsoKind, Mbuf, Offload};

use crate::vring::two_passes::rig::{GPA, Rig, Shape, frame, plain_frame};
use crate::wire::net::{F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, F_RING_PACKED, F_VERSION_1};
use crate::wire::packed::{DESC_F_AVAIL, DESC_F_USED, Position};
use crate::wire::ring::{
    AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Desc,
};

/// What the first byte's bits stand for.
const CHOICES: [u64; 5] = [F_RING_PACKED, F_MRG_RXBUF, F_INDIRECT_DESC, F_VERSION_1, F_IN_ORDER];
const PACKED_SIZES: [u16; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 31, 32, 33, 40, 64];
const SPLIT_SIZES: [u16; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
const RAM: usize = 16 << 10;
/// Buffers and tables that the script makes lie here and behind.
const DATA: u64 = 4 << 10;
const LENGTHS: [u32; 16] =
    [0, 1, 11, 12, 16, 32, 48, 72, 100, 128, 312, 1024, 1526, 4096, 20_000, 0xffff_fff0];
const FRAMES: [usize; 8] = [14, 60, 60, 61, 300, 1514, 4000, 9000];
/// Rewrites of one moment, at most.
const REWRITES: u8 = 4;

/// Bytes that are read from the front; behind the last one all are 0.
pub(super) struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), at: 0 }
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or(0)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    fn once_in(&mut self, n: u8) -> bool {
        self.byte().is_multiple_of(n)
    }

    fn below(&mut self, n: u16) -> u16 {
        u16::from(self.byte()) % n
    }

    pub(super) fn shape(&mut self) -> Shape {
        let choice = self.byte();
        let chosen = (0..).zip(CHOICES).filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, feature)| feature);
        let features: u64 = chosen.sum();
        let packed = features & F_RING_PACKED != 0;
        let size = if packed { self.pick(&PACKED_SIZES) } else { self.pick(&SPLIT_SIZES) };
        Shape { features, size, ram: RAM }
    }

    /// A descriptor, more or less sound.
    fn desc(&mut self, shape: Shape, receives: bool) -> Desc {
        let right = if receives { DESC_F_WRITE } else { 0 };
        let half = GPA + RAM as u64 / 2;
        let near = u64::from(self.byte());
        let addr = match self.byte() % 16 {
            0..8 => GPA + DATA + 40 * near,
            8..11 => GPA + 16 * (near % u64::from(shape.size)),
            11 => GPA + 8 * near,
            12..14 => half - near,
            14 => GPA + RAM as u64 - near,
            _ => self.pick(&[0, GPA - 1, GPA + RAM as u64, u64::MAX - near]),
        };
        let flags = match self.byte() % 16 {
            0..8 => right,
            8..12 => right | DESC_F_NEXT,
            12..14 => DESC_F_INDIRECT,
            14 => right ^ DESC_F_WRITE,
            _ => self.byte().into(),
        };
        let next = if self.once_in(16) { self.byte().into() } else { self.below(shape.size) };
        Desc { addr, len: self.pick(&LENGTHS), flags: flags & 0xff, next }
    }

    /// Two words of a descriptor that stands in the ring, or in a table.
    fn words(&mut self, shape: Shape, desc: Desc) -> [u8; 16] {
        let round = self.pick(&[DESC_F_AVAIL, DESC_F_AVAIL, DESC_F_AVAIL, DESC_F_USED, 0]);
        let rest = if shape.is_packed() {
            u64::from(desc.len) | u64::from(desc.next) << 32 | u64::from(desc.flags | round) << 48
        } else {
            desc.rest_word()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&desc.addr.to_le_bytes());
        bytes[8..].copy_from_slice(&rest.to_le_bytes());
        bytes
    }

    /// Tables and headers where buffers lie.
    pub(super) fn set_the_ring(&mut self, rig: &mut Rig, receives: bool) {
        rig.ram.fill(0, RAM, 0);
        for at in 0..self.below(32) {
            let desc = self.desc(rig.shape, receives);
            let words = self.words(rig.shape, desc);
            rig.ram.write(DATA as usize + 16 * usize::from(at), &words);
        }
    }

    /// The guest makes a whole round available, most of it as it should be.
    pub(super) fn make_available(&mut self, rig: &mut Rig, receives: bool) {
        let Shape { size, .. } = rig.shape;
        let n = if self.once_in(4) { self.below(size) + 1 } else { size };
        let ids_in_order = !self.once_in(4);
        for i in 0..n {
            let sound = !self.once_in(4);
            let mut desc = self.desc(rig.shape, receives);
            if sound {
                let len = desc.len.clamp(12, 4000);
                let at = GPA + DATA + 128 * u64::from(i % 64);
                desc = Desc { addr: at, len, flags: desc.flags & DESC_F_WRITE, next: desc.next };
            }
            if ids_in_order {
                desc.next = i;
            }
            let words = rig.words(desc, Some(rig.next));
            let at = if rig.shape.is_packed() { rig.next.at } else { i };
            rig.ram.write(usize::from(at) * 16, &words);
            rig.next = rig.next.after(1, size);
            if !rig.shape.is_packed() {
                let entry = rig.shape.avail() + AVAIL_RING_OFFSET + 2 * usize::from(rig.avail_idx % size);
                rig.ram.write(entry, &i.to_le_bytes());
                rig.avail_idx = rig.avail_idx.wrapping_add(1);
            }
        }
        if !rig.shape.is_packed() {
            // No more than a round of them.
            rig.avail_idx = rig.avail_idx.min(rig.used() as u16 + size);
            rig.ram.write(rig.shape.avail() + AVAIL_IDX_OFFSET, &rig.avail_idx.to_le_bytes());
        } else if let Some(fault_free) = self.next_round(rig) {
            rig.next = fault_free;
        }
    }

    /// Where a packed ring's guest goes on: anywhere, now and then.
    fn next_round(&mut self, rig: &Rig) -> Option<Position> {
        self.once_in(4).then(|| Position { at: self.below(rig.shape.size), wrap: self.byte() & 1 == 0 })
    }

    /// Frames for the guest. What is in them may be descriptors: their buffers may be the ring.
    pub(super) fn frames(&mut self, rig: &Rig) -> Vec<Mbuf<'static>> {
        let n = if self.once_in(4) { 32 } else { 1 + self.below(8) };
        (0..n)
            .map(|_| match self.byte() % 16 {
                0 => plain_frame(60_000),
                1 | 2 => self.segments(),
                3..8 => {
                    let desc = self.desc(rig.shape, true);
                    let words = self.words(rig.shape, desc);
                    let skew = usize::from(self.below(16));
                    frame(self.pick(&FRAMES), |at| words[(at + skew) % 16])
                }
                _ => plain_frame(self.pick(&FRAMES)),
            })
            .collect()
    }

    /// A TCP frame that the guest takes only in pieces: it accepts no offload.
    fn segments(&mut self) -> Mbuf<'static> {
        let len = 54 + 100 * (1 + usize::from(self.below(30)));
        let mut bytes = vec![0x11; len];
        bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        bytes[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
        bytes[18..24].copy_from_slice(&[0, 0, 0, 0, 64, 6]);
        bytes[46] = 0x50;
        let mut mbuf = frame(len, |at| bytes[at]);
        let (mut offload, gso) = (Offload::NONE, self.once_in(2));
        (offload.checksum, offload.csum_start, offload.csum_offset) = (Checksum::Partial, 34, 16);
        if gso {
            (offload.gso, offload.gso_size, offload.hdr_len) = (GsoKind::TcpV4, 400, 54);
        }
        mbuf.set_offload(offload);
        mbuf
    }

    /// What is rewritten at one moment: where, and by which bytes.
    pub(super) fn rewrites(&mut self, shape: Shape, receives: bool) -> Vec<(usize, Vec<u8>)> {
        (0..self.byte() % REWRITES).map(|_| self.rewrite(shape, receives)).collect()
    }

    fn rewrite(&mut self, shape: Shape, receives: bool) -> (usize, Vec<u8>) {
        let slot = 16 * usize::from(self.below(shape.size));
        // Where a descriptor's flags stand.
        let flags = slot + if shape.is_packed() { 14 } else { 12 };
        let near = usize::from(self.byte());
        match self.byte() % 10 {
            0..3 => {
                let desc = self.desc(shape, receives);
                (slot, self.words(shape, desc).to_vec())
            }
            3 => {
                let round = if shape.is_packed() { DESC_F_AVAIL } else { 0 };
                (flags, (round | DESC_F_WRITE | DESC_F_NEXT).to_le_bytes().to_vec())
            }
            4 => (flags, vec![self.byte(), self.byte()]),
            5 => (slot + 8, self.pick(&LENGTHS).to_le_bytes().to_vec()),
            6 => (shape.avail() + AVAIL_IDX_OFFSET, vec![self.byte(), 0]),
            7 => {
                let entry = 2 * usize::from(self.below(shape.size));
                let at = if shape.is_packed() { slot } else { shape.avail() + AVAIL_RING_OFFSET + entry };
                (at, vec![self.byte(), self.byte() & 1])
            }
            8 => {
                let desc = self.desc(shape, receives);
                (DATA as usize + 16 * (near % 64), self.words(shape, desc).to_vec())
            }
            _ => (DATA as usize + 40 * near, vec![self.byte(); 12]),
        }
    }
}
