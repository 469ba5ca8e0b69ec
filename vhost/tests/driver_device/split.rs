//! The device side of a split ring.

use std::sync::atomic::{Ordering, fence};

use vhost::driver::{GuestRam, Queue, SplitRing};
use vhost::wire::net::F_EVENT_IDX;
use vhost::wire::ring::{
    AVAIL_F_NO_INTERRUPT, AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, DESC_F_INDIRECT, DESC_F_NEXT, DESC_SIZE, Desc,
    USED_ELEM_SIZE, USED_IDX_OFFSET, USED_RING_OFFSET, need_event,
};

use super::{Chain, Device, Piece};

/// One ring's device.
#[derive(Debug)]
pub(crate) struct SplitDevice {
    ring: SplitRing,
    ram: GuestRam,
    pub(crate) next_avail: u16,
    pub(crate) next_used: u16,
    published: u16,
    event_idx: bool,
}

impl SplitDevice {
    fn entry(&self, at: u16) -> usize {
        usize::from(at % self.ring.size())
    }

    /// The next chain's head, if there is one.
    pub(crate) fn take_head(&mut self) -> Option<u16> {
        if self.ring.avail.load_u16(AVAIL_IDX_OFFSET, Ordering::Acquire) == self.next_avail {
            return None;
        }
        let at = AVAIL_RING_OFFSET + 2 * self.entry(self.next_avail);
        let head = self.ring.avail.load_u16(at, Ordering::Relaxed);
        self.next_avail = self.next_avail.wrapping_add(1);
        Some(head)
    }

    fn chain(&self, head: u16) -> Chain {
        let first = self.ring.desc(head);
        let indirect = first.flags & DESC_F_INDIRECT != 0;
        let mut pieces = Vec::new();
        let table = |i: u16| {
            if !indirect {
                return self.ring.desc(i);
            }
            assert!(
                u32::from(i) < first.len / DESC_SIZE as u32 && (first.len as usize).is_multiple_of(DESC_SIZE)
            );
            let entry =
                self.ram.span((first.addr - self.ram.region().gpa) as usize + 16 * usize::from(i), DESC_SIZE);
            Desc::from_words(entry.load_u64(0), entry.load_u64(8))
        };
        let mut i = if indirect { 0 } else { head };
        loop {
            let Desc { addr, len, flags, next } = table(i);
            pieces.push(Piece { addr, len, flags });
            assert!(pieces.len() <= usize::from(u16::MAX), "a chain without end");
            if flags & DESC_F_NEXT == 0 {
                let descs = if indirect { 1 } else { pieces.len() as u16 };
                return Chain { id: head, descs, pieces, indirect };
            }
            i = next;
        }
    }

    /// Stages a used entry.
    pub(crate) fn give_entry(&mut self, id: u32, len: u32) {
        let at = USED_RING_OFFSET + USED_ELEM_SIZE * self.entry(self.next_used);
        self.ring.used.store_u32(at, id);
        self.ring.used.store_u32(at + 4, len);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Sets the used ring's flags (NO_NOTIFY).
    pub(crate) fn set_flags(&self, flags: u16) {
        self.ring.used.store_u16(0, flags, Ordering::Relaxed);
    }

    /// Sets avail_event.
    pub(crate) fn set_avail_event(&self, at: u16) {
        let offset = USED_RING_OFFSET + USED_ELEM_SIZE * usize::from(self.ring.size());
        self.ring.used.store_u16(offset, at, Ordering::Relaxed);
    }
}

impl Device for SplitDevice {
    fn of(queue: &Queue, ram: &GuestRam) -> Self {
        let ring = queue.split_ring().expect("a split ring").clone();
        let (base, event_idx) = (queue.config().base, queue.config().features & F_EVENT_IDX != 0);
        Self { ring, ram: ram.clone(), next_avail: base, next_used: base, published: base, event_idx }
    }

    fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn take(&mut self) -> Option<Chain> {
        self.take_head().map(|head| self.chain(head))
    }

    fn give(&mut self, chain: &Chain, len: usize) {
        self.give_entry(chain.id.into(), len as u32);
    }

    fn give_batch(&mut self, chains: &[Chain]) {
        let start = self.next_used;
        self.give(&chains[chains.len() - 1], 0);
        self.next_used = start.wrapping_add(chains.len() as u16);
    }

    fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        self.ring.used.store_u16(USED_IDX_OFFSET, new, Ordering::Release);
        self.published = new;
        fence(Ordering::SeqCst);
        if self.event_idx {
            let at = AVAIL_RING_OFFSET + 2 * usize::from(self.ring.size());
            need_event(self.ring.avail.load_u16(at, Ordering::Relaxed), new, old)
        } else {
            self.ring.avail.load_u16(0, Ordering::Relaxed) & AVAIL_F_NO_INTERRUPT == 0
        }
    }
}
