//! The device side of a packed ring.

use vhost::driver::{GuestRam, PackedRing, Queue};
use vhost::wire::packed::{
    DESC_F_AVAIL, DESC_F_USED, EVENT_F_DESC, EVENT_F_DISABLE, PackedDesc, Position, need_event,
};
use vhost::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE};

use super::{Chain, Device, Piece};

/// One ring's device.
#[derive(Debug)]
pub(crate) struct PackedDevice {
    ring: PackedRing,
    ram: GuestRam,
    next_avail: Position,
    next_used: Position,
    /// Descriptors given since the driver was asked whether it wants a call.
    moved: u32,
}

impl PackedDevice {
    fn table(&self, desc: PackedDesc) -> Vec<PackedDesc> {
        assert!((desc.len as usize).is_multiple_of(DESC_SIZE) && desc.len > 0);
        let start = (desc.addr - self.ram.region().gpa) as usize;
        let table = self.ram.span(start, desc.len as usize);
        let entry = |at| PackedDesc::from_words(table.load_u64(at), table.load_u64(at + 8));
        let all: Vec<_> = (0..table.len()).step_by(DESC_SIZE).map(entry).collect();
        assert!(all.iter().all(|d| d.flags & !DESC_F_WRITE == 0), "§2.8.19: no other flag in a table");
        all
    }

    /// Gives back a buffer of `id`, whose chain had `descs` descriptors.
    pub(crate) fn give_desc(&mut self, id: u16, len: u32, descs: u16) {
        let at = self.next_used;
        let used = PackedDesc { addr: 0, len, id, flags: at.used_flags() };
        self.ring.set_desc_but_flags(at.at, used);
        self.ring.set_flags(at.at, used.flags);
        self.next_used = at.after(descs, self.ring.size());
        self.moved += u32::from(descs);
    }

    /// Says when kicks are wanted.
    pub(crate) fn set_event(&self, flags: u16, at: Position) {
        self.ring.device.store_u32(0, u32::from(at.to_bits()) | u32::from(flags) << 16);
    }
}

impl Device for PackedDevice {
    fn of(queue: &Queue, ram: &GuestRam) -> Self {
        let (ring, at) = (queue.packed_ring().expect("a packed ring"), Position::of_base(queue.base()));
        Self { ring: ring.clone(), ram: ram.clone(), next_avail: at, next_used: at, moved: 0 }
    }

    fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn take(&mut self) -> Option<Chain> {
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
        let piece = |desc: &PackedDesc| Piece { addr: desc.addr, len: desc.len, flags: desc.flags };
        Some(Chain { id: last.id, descs, pieces: pieces.iter().map(piece).collect(), indirect })
    }

    fn give(&mut self, chain: &Chain, len: usize) {
        self.give_desc(chain.id, len as u32, chain.descs);
    }

    fn give_batch(&mut self, chains: &[Chain]) {
        self.give_desc(chains[chains.len() - 1].id, 0, chains.iter().map(|chain| chain.descs).sum());
    }

    /// What was given is seen at once.
    fn publish(&mut self) -> bool {
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
}
