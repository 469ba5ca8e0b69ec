//! The device side of a split ring as the specification tells it, one descriptor at a time and with no thought of speed:
//! what the driver is tested against.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod packed;

use std::sync::atomic::{Ordering, fence};

use vhost::driver::{GuestRam, SplitRing};
use vhost::wire::ring::{
    AVAIL_F_NO_INTERRUPT, AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE,
    DESC_SIZE, Desc, USED_ELEM_SIZE, USED_IDX_OFFSET, USED_RING_OFFSET, need_event,
};

/// One ring's device.
#[derive(Debug)]
pub(crate) struct Device {
    ring: SplitRing,
    ram: GuestRam,
    pub(crate) next_avail: u16,
    pub(crate) next_used: u16,
    published: u16,
}

/// A chain as the device read it.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    pub(crate) pieces: Vec<Desc>,
    pub(crate) indirect: bool,
}

impl Device {
    pub(crate) fn new(ring: &SplitRing, ram: &GuestRam, base: u16) -> Self {
        Self { ring: ring.clone(), ram: ram.clone(), next_avail: base, next_used: base, published: base }
    }

    fn entry(&self, at: u16) -> usize {
        usize::from(at % self.ring.size())
    }

    /// The next chain, if there is one.
    pub(crate) fn take(&mut self) -> Option<Chain> {
        self.take_head().map(|head| self.chain(head))
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
            let desc = table(i);
            pieces.push(desc);
            assert!(pieces.len() <= usize::from(u16::MAX), "a chain without end");
            if desc.flags & DESC_F_NEXT == 0 {
                return Chain { head, pieces, indirect };
            }
            i = desc.next;
        }
    }

    /// All bytes of a chain that the device may read.
    pub(crate) fn read(&self, chain: &Chain) -> Vec<u8> {
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
    pub(crate) fn write(&self, chain: &Chain, bytes: &[u8]) -> usize {
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

    /// Stages a used entry.
    pub(crate) fn give(&mut self, id: u32, len: u32) {
        let at = USED_RING_OFFSET + USED_ELEM_SIZE * self.entry(self.next_used);
        self.ring.used.store_u32(at, id);
        self.ring.used.store_u32(at + 4, len);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Publishes what was staged; returns whether the driver wants a call.
    pub(crate) fn publish(&mut self, event_idx: bool) -> bool {
        let (old, new) = (self.published, self.next_used);
        self.ring.used.store_u16(USED_IDX_OFFSET, new, Ordering::Release);
        self.published = new;
        fence(Ordering::SeqCst);
        if event_idx {
            let at = AVAIL_RING_OFFSET + 2 * usize::from(self.ring.size());
            need_event(self.ring.avail.load_u16(at, Ordering::Relaxed), new, old)
        } else {
            self.ring.avail.load_u16(0, Ordering::Relaxed) & AVAIL_F_NO_INTERRUPT == 0
        }
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
