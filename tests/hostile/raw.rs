//! A ring that the attacker writes by hand, of either format.
//!
//! What both formats have goes by [`Raw::post`] and its kin. What only one of them can say goes by its words in memory,
//! [`Raw::ring`] or [`Raw::packed`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use vhost::driver::{GuestRam, PackedRing, Span, SplitRing};
use vhost::wire::message::VringAddr;
use vhost::wire::packed::{DESC_F_AVAIL, DESC_F_USED, PackedDesc, Position};
use vhost::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Desc};

use crate::attacker::Plan;
use crate::scene::eventually;

/// Which ring of the attacker's first pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The guest receives: vring 0.
    Rx,
    /// The guest sends: vring 1.
    Tx,
}

impl Side {
    /// As the port's details name it.
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Rx { "rx0" } else { "tx0" }
    }

    pub(crate) fn index(self) -> u32 {
        self as u32
    }

    /// The flag that its buffers need.
    pub(crate) fn flag(self) -> u16 {
        if self == Self::Rx { DESC_F_WRITE } else { 0 }
    }
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd")
}

/// A ring in memory and where its driver stands.
#[derive(Debug)]
pub(crate) struct Raw {
    memory: Memory,
    pub(crate) side: Side,
    base: u16,
    /// Split: the next position of the available ring.
    pub(crate) next: u16,
    /// Split: the next descriptor that [`Raw::post`] takes.
    free: u16,
    pub(crate) kick: OwnedFd,
    pub(crate) call: OwnedFd,
}

#[derive(Debug)]
enum Memory {
    Split(SplitRing),
    Packed(PackedRing, RefCell<Packed>),
}

/// Where the driver of a packed ring stands.
#[derive(Debug)]
struct Packed {
    /// Where the next descriptor is written.
    next: Position,
    /// Buffers staged so far.
    staged: u64,
    /// Position and flags of the first descriptor that was staged and is not shown.
    first: Option<(u16, u16)>,
    /// Where the next used descriptor is due.
    due: Position,
    /// Id and descriptors of each buffer that is with the device, in order.
    lent: VecDeque<(u16, u16)>,
    /// Id and length of each that came back.
    back: Vec<(u32, u32)>,
    /// Chains that were laid out.
    laid: Vec<Vec<Desc>>,
}

impl Packed {
    fn at(start: Position) -> Self {
        let (staged, first, lent, back, laid) = (0, None, VecDeque::new(), Vec::new(), Vec::new());
        Self { next: start, staged, first, due: start, lent, back, laid }
    }

    /// Writes a chain of these descriptors, flags and all; its first one waits if nothing else does. Returns its id.
    fn stage(&mut self, ring: &PackedRing, chain: &[Desc]) -> u16 {
        // What came back is written over now.
        self.look(ring);
        let lent: usize = self.lent.iter().map(|&(_, descs)| usize::from(descs)).sum();
        assert!(lent + chain.len() <= usize::from(ring.size()), "room for {} descriptors", chain.len());
        let id = (self.staged % u64::from(ring.size())) as u16;
        self.staged += 1;
        for desc in chain {
            let flags = desc.flags | self.next.available_flags();
            let desc = PackedDesc { addr: desc.addr, len: desc.len, id, flags };
            if self.first.is_none() {
                ring.set_desc_but_flags(self.next.at, desc);
                self.first = Some((self.next.at, flags));
            } else {
                ring.set_desc(self.next.at, desc);
            }
            self.next = self.next.after(1, ring.size());
        }
        self.lent.push_back((id, chain.len() as u16));
        id
    }

    fn publish(&mut self, ring: &PackedRing) {
        if let Some((at, flags)) = self.first.take() {
            ring.set_flags(at, flags);
        }
    }

    /// Takes in what came back: in order, and nothing that was not lent.
    fn look(&mut self, ring: &PackedRing) {
        while let Some(&(id, descs)) = self.lent.front() {
            let flags = ring.flags(self.due.at);
            if flags & (DESC_F_AVAIL | DESC_F_USED) != self.due.used_flags() {
                return;
            }
            let used = ring.desc(self.due.at);
            assert_eq!(used.id, id, "the buffer that is due at {:?}", self.due);
            assert_eq!(used.flags & DESC_F_WRITE != 0, used.len > 0, "{used:?}");
            self.back.push((id.into(), used.len));
            self.due = self.due.after(descs, ring.size());
            self.lent.pop_front();
        }
    }
}

impl Raw {
    pub(crate) fn new(ram: &GuestRam, side: Side, plan: &Plan) -> Self {
        let Plan { size, base, .. } = *plan;
        let memory = if plan.is_packed() {
            let ring = PackedRing::alloc(ram, size).expect("room for a ring");
            Memory::Packed(ring, RefCell::new(Packed::at(Position::START)))
        } else {
            Memory::Split(SplitRing::alloc(ram, size).expect("room for a ring"))
        };
        let mut raw = Self { memory, side, base, next: base, free: 0, kick: event(), call: event() };
        raw.rebase(base);
        raw
    }

    /// The split ring in memory.
    pub(crate) fn ring(&self) -> &SplitRing {
        let Memory::Split(ring) = &self.memory else { panic!("this case is about split rings") };
        ring
    }

    /// The packed ring in memory.
    pub(crate) fn packed(&self) -> &PackedRing {
        let Memory::Packed(ring, _) = &self.memory else { panic!("this case is about packed rings") };
        ring
    }

    /// Moves its three parts into a region each; returns where in these they lie.
    pub(crate) fn scatter(&mut self, regions: &[GuestRam]) -> [u64; 3] {
        match &mut self.memory {
            Memory::Split(ring) => {
                ring.desc = regions[0].span(0, ring.desc.len());
                ring.avail = regions[1].span(0, ring.avail.len());
                ring.used = regions[2].span(4096, ring.used.len());
                [0, 0, 4096]
            }
            Memory::Packed(ring, _) => {
                let last = regions[1].bytes() - 4;
                ring.desc = regions[0].span(0, ring.desc.len());
                (ring.driver, ring.device) = (regions[1].span(last, 4), regions[2].span(last, 4));
                [0, last as u64, last as u64]
            }
        }
    }

    pub(crate) fn size(&self) -> u16 {
        match &self.memory {
            Memory::Split(ring) => ring.size(),
            Memory::Packed(ring, _) => ring.size(),
        }
    }

    pub(crate) fn addr(&self, index: u32) -> VringAddr {
        match &self.memory {
            Memory::Split(ring) => ring.addr(index),
            Memory::Packed(ring, _) => ring.addr(index),
        }
    }

    /// What SET_VRING_BASE is to say.
    pub(crate) fn vring_base(&self) -> u32 {
        match &self.memory {
            Memory::Split(_) => self.next.into(),
            // Whoever starts a ring has staged nothing yet, or everything.
            Memory::Packed(_, state) => state.borrow().due.base(),
        }
    }

    /// The ring's areas: those that the driver writes, and those that the device may write.
    pub(crate) fn areas(&self) -> (Vec<Span>, Vec<Span>) {
        match &self.memory {
            Memory::Split(ring) => (vec![ring.avail.clone()], vec![ring.used.clone()]),
            Memory::Packed(ring, _) => {
                (vec![ring.driver.clone(), ring.desc.clone()], vec![ring.device.clone(), ring.desc.clone()])
            }
        }
    }

    /// Offers a chain without showing it.
    pub(crate) fn stage(&mut self, head: u16) {
        self.stage_numbered(head);
    }

    /// The same; returns the number by which the chain comes back.
    pub(crate) fn stage_numbered(&mut self, head: u16) -> u16 {
        match &self.memory {
            Memory::Split(ring) => {
                ring.set_avail_entry(self.next, head);
                self.next = self.next.wrapping_add(1);
                head
            }
            Memory::Packed(ring, state) => {
                let state = &mut *state.borrow_mut();
                let chain = state.laid[usize::from(head)].clone();
                state.stage(ring, &chain)
            }
        }
    }

    /// Shows what was staged.
    pub(crate) fn publish(&self) {
        match &self.memory {
            Memory::Split(ring) => ring.set_avail_idx(self.next),
            Memory::Packed(ring, state) => state.borrow_mut().publish(ring),
        }
    }

    pub(crate) fn offer(&mut self, head: u16) {
        self.stage(head);
        self.publish();
    }

    /// Lays out a chain of these buffers; the directions are as the ring has them unless given. Returns what to stage or
    /// offer. Split: written into the next descriptors, and this is its head.
    pub(crate) fn lay(&mut self, buffers: &[Desc]) -> u16 {
        let size = self.size();
        assert!(buffers.len() <= usize::from(size), "a chain longer than the ring");
        let last = buffers.len() - 1;
        let more = |i: usize| if i < last { DESC_F_NEXT } else { 0 };
        let linked = (0..).zip(buffers).map(|(i, desc)| Desc { flags: desc.flags | more(i), ..*desc });
        match &self.memory {
            Memory::Split(ring) => {
                if usize::from(self.free) + buffers.len() > usize::from(size) {
                    self.free = 0;
                }
                let head = self.free;
                for (i, desc) in (head..).zip(linked) {
                    let next = if desc.flags & DESC_F_NEXT != 0 { i + 1 } else { 0 };
                    ring.set_desc(i, Desc { next, ..desc });
                }
                self.free = head + buffers.len() as u16;
                head
            }
            Memory::Packed(_, state) => {
                let laid = &mut state.borrow_mut().laid;
                laid.push(linked.collect());
                (laid.len() - 1) as u16
            }
        }
    }

    /// Offers a chain of these buffers. Returns the number by which it comes back.
    pub(crate) fn post(&mut self, buffers: &[Desc]) -> u16 {
        let head = self.lay(buffers);
        let id = self.stage_numbered(head);
        self.publish();
        id
    }

    /// Lays out descriptors as they are, flags and all, for a chain that begins with the first of them. Returns what to offer.
    pub(crate) fn lay_raw(&mut self, descs: &[Desc]) -> u16 {
        match &self.memory {
            Memory::Split(ring) => {
                (0..).zip(descs).for_each(|(i, desc)| ring.set_desc(i, *desc));
                0
            }
            Memory::Packed(_, state) => {
                let laid = &mut state.borrow_mut().laid;
                laid.push(descs.to_vec());
                (laid.len() - 1) as u16
            }
        }
    }

    /// Writes an indirect table of these buffers into `table`, as the ring's format has it. Their own flags and links stay,
    /// where they say something.
    pub(crate) fn write_table(&self, table: &Span, buffers: &[Desc]) -> Desc {
        for (i, desc) in buffers.iter().enumerate() {
            match &self.memory {
                Memory::Split(_) => {
                    let more = if i + 1 < buffers.len() { DESC_F_NEXT } else { 0 };
                    let next = if more == 0 { desc.next } else { i as u16 + 1 };
                    set_entry(table, i, Desc { flags: desc.flags | more, next, ..*desc });
                }
                Memory::Packed(..) => {
                    let Desc { addr, len, flags, .. } = *desc;
                    let entry = PackedDesc { addr, len, id: i as u16, flags };
                    table.store_u64(i * 16, entry.addr);
                    table.store_u64(i * 16 + 8, entry.rest_word());
                }
            }
        }
        Desc { addr: table.gpa(), len: table.len() as u32, flags: DESC_F_INDIRECT, next: 0 }
    }

    /// Buffers that came back.
    pub(crate) fn used(&self) -> u16 {
        match &self.memory {
            Memory::Split(ring) => ring.used_idx().wrapping_sub(self.base),
            Memory::Packed(ring, state) => {
                let state = &mut *state.borrow_mut();
                state.look(ring);
                state.back.len() as u16
            }
        }
    }

    /// Waits until `n` buffers came back; there must not be more. Their ids and lengths.
    pub(crate) fn expect_used(&self, n: u16) -> Vec<(u32, u32)> {
        eventually(&format!("{n} used on {}, not {}", self.side.name(), self.used()), || self.used() >= n);
        assert_eq!(self.used(), n, "used on {}", self.side.name());
        match &self.memory {
            Memory::Split(ring) => (0..n)
                .map(|i| self.base.wrapping_add(i))
                .map(|at| (ring.used_id(at), ring.used_len(at)))
                .collect(),
            Memory::Packed(_, state) => state.borrow().back.clone(),
        }
    }

    /// Begins anew at position `base`; packed: so many descriptors behind the start.
    pub(crate) fn rebase(&mut self, base: u16) {
        (self.base, self.next) = (base, base);
        match &self.memory {
            Memory::Split(ring) => {
                ring.set_used_idx(base);
                ring.set_avail_idx(base);
            }
            Memory::Packed(ring, state) => {
                let (size, base) = (u32::from(ring.size()), u32::from(base) % (2 * u32::from(ring.size())));
                let start = Position { at: (base % size) as u16, wrap: base < size };
                ring.reset(start);
                let laid = std::mem::take(&mut state.borrow_mut().laid);
                *state.borrow_mut() = Packed { laid, ..Packed::at(start) };
            }
        }
    }
}

/// Writes entry `i` of a split ring's indirect table.
pub(crate) fn set_entry(table: &Span, i: usize, desc: Desc) {
    table.store_u64(i * 16, desc.addr);
    table.store_u64(i * 16 + 8, desc.rest_word());
}
