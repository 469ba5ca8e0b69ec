//! The device side of a packed ring, as the specification tells it.

use vhost::driver::{GuestRam, PackedRing};
use vhost::wire::packed::{
    DESC_F_AVAIL, DESC_F_USED, EVENT_F_DESC, EVENT_F_DISABLE, PackedDesc, Position, need_event,
};
use vhost::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE};

/// One ring's device.
#[derive(Debug)]
pub(crate) struct PackedDevice {
    ring: PackedRing,
    ram: GuestRam,
    pub(crate) next_avail: Position,
    pub(crate) next_used: Position,
    moved: u32,
}

/// A chain as the device read it.
#[derive(Clone, Debug)]
pub(crate) struct PackedChain {
    pub(crate) id: u16,
    /// Descriptors of the ring.
    pub(crate) descs: u16,
    pub(crate) pieces: Vec<PackedDesc>,
    pub(crate) indirect: bool,
}

impl PackedDevice {
    pub(crate) fn new(ring: &PackedRing, ram: &GuestRam, base: u32) -> Self {
        let at = Position::of_base(base);
        Self { ring: ring.clone(), ram: ram.clone(), next_avail: at, next_used: at, moved: 0 }
    }

    /// The next chain, if there is one.
    pub(crate) fn take(&mut self) -> Option<PackedChain> {
        let is_available = |desc: PackedDesc, at: Position| {
            desc.flags & (DESC_F_AVAIL | DESC_F_USED) == at.available_flags()
        };
        let (mut at, mut pieces) = (self.next_avail, Vec::new());
        if !is_available(self.ring.desc(at.at), at) {
            return None;
        }
        loop {
            let desc = self.ring.desc(at.at);
            assert!(is_available(desc, at), "a chain's first descriptor is shown last");
            pieces.push(desc);
            at = at.after(1, self.ring.size());
            if desc.flags & DESC_F_NEXT == 0 {
                break;
            }
        }
        self.next_avail = at;
        let (last, descs) = (pieces[pieces.len() - 1], pieces.len() as u16);
        let indirect = last.flags & DESC_F_INDIRECT != 0;
        if indirect {
            assert_eq!(descs, 1);
            pieces = self.table(last);
        }
        Some(PackedChain { id: last.id, descs, pieces, indirect })
    }

    fn table(&self, desc: PackedDesc) -> Vec<PackedDesc> {
        assert!((desc.len as usize).is_multiple_of(DESC_SIZE) && desc.len > 0);
        let start = (desc.addr - self.ram.region().gpa) as usize;
        let table = self.ram.span(start, desc.len as usize);
        let entry = |at| PackedDesc::from_words(table.load_u64(at), table.load_u64(at + 8));
        let all: Vec<_> = (0..table.len()).step_by(DESC_SIZE).map(entry).collect();
        assert!(all.iter().all(|d| d.flags & !DESC_F_WRITE == 0), "§2.8.19: no other flag in a table");
        all
    }

    /// All bytes of a chain that the device may read.
    pub(crate) fn read(&self, chain: &PackedChain) -> Vec<u8> {
        let mut all = Vec::new();
        for desc in &chain.pieces {
            assert_eq!(desc.flags & DESC_F_WRITE, 0, "a writable piece on a transmit ring");
            let mut bytes = vec![0; desc.len as usize];
            self.ram.span((desc.addr - self.ram.region().gpa) as usize, bytes.len()).read(0, &mut bytes);
            all.extend(bytes);
        }
        all
    }

    /// Writes as much of `bytes` into a chain as it holds; returns how much that was.
    pub(crate) fn write(&self, chain: &PackedChain, bytes: &[u8]) -> usize {
        let mut done = 0;
        for desc in &chain.pieces {
            assert_ne!(desc.flags & DESC_F_WRITE, 0, "a read-only piece on a receive ring");
            let now = (desc.len as usize).min(bytes.len() - done);
            let span = self.ram.span((desc.addr - self.ram.region().gpa) as usize, desc.len as usize);
            span.write(0, &bytes[done..done + now]);
            done += now;
        }
        done
    }

    /// Gives back a buffer of `id`, whose chain had `descs` descriptors.
    pub(crate) fn give(&mut self, id: u16, len: u32, descs: u16) {
        let at = self.next_used;
        let used = PackedDesc { addr: 0, len, id, flags: at.used_flags() };
        self.ring.set_desc_but_flags(at.at, used);
        self.ring.set_flags(at.at, used.flags);
        self.next_used = at.after(descs, self.ring.size());
        self.moved += u32::from(descs);
    }

    /// Whether the driver wants a call for what was given since the last question.
    pub(crate) fn is_call_wanted(&mut self) -> bool {
        let word = self.ring.driver.load_u32(0);
        let moved = core::mem::take(&mut self.moved);
        match (word >> 16) as u16 {
            EVENT_F_DISABLE => false,
            EVENT_F_DESC => {
                let event = Position::from_bits(word as u16);
                need_event(event, self.next_used, moved, self.ring.size())
            }
            _ => true,
        }
    }

    /// Says when kicks are wanted.
    pub(crate) fn set_event(&self, flags: u16, at: Position) {
        self.ring.device.store_u32(0, u32::from(at.to_bits()) | u32::from(flags) << 16);
    }
}
