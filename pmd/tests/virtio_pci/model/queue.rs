//! The device's side of a virtqueue of either format (virtio 1.3 §2.7, §2.8).

use crate::device_memory::DeviceMemory;

/// What a device says of a buffer that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Another ID than the buffer's.
    Id(u32),
    /// The buffer comes back twice.
    Twice,
    /// Another length than what was written.
    Length(u32),
    /// used.idx jumps (split only).
    Index(u16),
    /// A packet of so many buffers.
    NumBuffers(u16),
}

/// A queue as the driver set it up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) size: u16,
    pub(crate) enabled: bool,
    pub(crate) vector: u16,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    pub(crate) packed: bool,
    pub(crate) event_idx: bool,
    /// Doorbells since the device last looked.
    pub(crate) kicked: bool,
    pub(crate) kicks: u64,
    /// Next to take, and next to return; of a packed ring slots, with their wrap counters.
    avail: u16,
    used: u16,
    avail_wrap: bool,
    used_wrap: bool,
    /// The next buffer's lie.
    pub(crate) lie: Option<Lie>,
    /// Buffers that were taken and are not returned: a device that does nothing.
    pub(crate) stuck: bool,
}

/// A buffer that the device took.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    id: u16,
    slots: u16,
    /// What it may read, and what it may write: addresses and lengths.
    pub(crate) read: Vec<(u64, u32)>,
    pub(crate) write: Vec<(u64, u32)>,
}

impl Chain {
    fn add(&mut self, addr: u64, len: u32, flags: u16) {
        if flags & 2 != 0 { &mut self.write } else { &mut self.read }.push((addr, len));
    }

    pub(crate) fn writable(&self) -> usize {
        self.write.iter().map(|(_, len)| *len as usize).sum()
    }
}

impl Queue {
    /// One as after a reset.
    pub(crate) fn fresh(size: u16) -> Self {
        Self { size, vector: 0xffff, ..Self::default() }
    }

    pub(crate) fn start(&mut self, packed: bool, event_idx: bool) {
        (self.packed, self.event_idx) = (packed, event_idx);
        (self.avail_wrap, self.used_wrap) = (true, true);
        self.enabled = true;
    }

    /// The next buffer.
    pub(crate) fn take(&mut self, memory: &DeviceMemory) -> Option<Chain> {
        if !self.enabled || self.stuck {
            return None;
        }
        if self.packed { self.take_packed(memory) } else { self.take_split(memory) }
    }

    /// Whether there is a next buffer.
    pub(crate) fn has_next(&self, memory: &DeviceMemory) -> bool {
        self.clone().take(memory).is_some()
    }

    fn take_split(&mut self, memory: &DeviceMemory) -> Option<Chain> {
        if memory.load16(self.driver + 2)? == self.avail {
            return None;
        }
        let head = memory.load16(self.driver + 4 + 2 * u64::from(self.avail % self.size))?;
        let mut chain = Chain { id: head, slots: 0, read: Vec::new(), write: Vec::new() };
        let mut at = head;
        loop {
            assert!(at < self.size && chain.slots < self.size, "a driver's chain of {} at {at}", chain.slots);
            let desc = self.desc + 16 * u64::from(at);
            let (addr, rest) = (memory.load64(desc)?, memory.load64(desc + 8)?);
            let flags = (rest >> 32) as u16;
            chain.add(addr, rest as u32, flags);
            chain.slots += 1;
            if flags & 1 == 0 {
                break;
            }
            at = (rest >> 48) as u16;
        }
        self.avail = self.avail.wrapping_add(1);
        Some(chain)
    }

    fn take_packed(&mut self, memory: &DeviceMemory) -> Option<Chain> {
        let mut chain = Chain { id: 0, slots: 0, read: Vec::new(), write: Vec::new() };
        let (mut slot, mut wrap) = (self.avail, self.avail_wrap);
        loop {
            assert!(chain.slots < self.size, "a driver's chain longer than the ring");
            let desc = self.desc + 16 * u64::from(slot);
            // The flags first: the driver writes them last, and an address read before them may be the last lap's.
            let rest = memory.load64(desc + 8)?;
            let addr = memory.load64(desc)?;
            let flags = (rest >> 48) as u16;
            let (avail, used) = (flags & 1 << 7 != 0, flags & 1 << 15 != 0);
            if avail != wrap || used == wrap {
                assert_eq!(chain.slots, 0, "the rest of a chain is there before its first descriptor");
                return None;
            }
            chain.add(addr, rest as u32, flags);
            chain.id = (rest >> 32) as u16;
            chain.slots += 1;
            slot += 1;
            if slot == self.size {
                (slot, wrap) = (0, !wrap);
            }
            if flags & 1 == 0 {
                break;
            }
        }
        (self.avail, self.avail_wrap) = (slot, wrap);
        Some(chain)
    }

    /// Gives a buffer back; `len` bytes were written.
    pub(crate) fn give(&mut self, memory: &DeviceMemory, chain: &Chain, len: u32) {
        let (mut id, mut said, mut times, mut index) = (u32::from(chain.id), len, 1, 0);
        match self.lie.take() {
            Some(Lie::Id(other)) => id = other,
            Some(Lie::Length(other)) => said = other,
            Some(Lie::Twice) => times = 2,
            Some(Lie::Index(jump)) => index = jump,
            Some(Lie::NumBuffers(_)) | None => {}
        }
        for _ in 0..times {
            if self.packed {
                self.give_packed(memory, id as u16, chain.slots, said);
            } else {
                self.give_split(memory, id, said, index);
            }
        }
    }

    fn give_split(&mut self, memory: &DeviceMemory, id: u32, len: u32, jump: u16) {
        let entry = self.device + 4 + 8 * u64::from(self.used % self.size);
        memory.store32(entry, id);
        memory.store32(entry + 4, len);
        self.used = self.used.wrapping_add(1).wrapping_add(jump);
        memory.store16(self.device + 2, self.used);
    }

    fn give_packed(&mut self, memory: &DeviceMemory, id: u16, slots: u16, len: u32) {
        let rest = self.desc + 16 * u64::from(self.used) + 8;
        memory.store32(rest, len);
        memory.store16(rest + 4, id);
        let flags = if self.used_wrap { 1 << 7 | 1 << 15 } else { 0 };
        memory.store16(rest + 6, flags);
        self.used += slots;
        if self.used >= self.size {
            (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
        }
    }

    /// With IN_ORDER: gives a batch back by its last buffer alone.
    pub(crate) fn give_batch(&mut self, memory: &DeviceMemory, batch: &[Chain], len: u32) {
        let Some((last, before)) = batch.split_last() else { return };
        if self.packed {
            self.give_packed(memory, last.id, batch.iter().map(|c| c.slots).sum(), len);
        } else {
            self.give_split(memory, last.id.into(), len, before.len() as u16);
        }
    }

    /// Whether the driver wants to hear that used.idx went on from `old` (split), or anything at all (packed).
    pub(crate) fn wants_interrupt(&self, memory: &DeviceMemory, old: u16) -> bool {
        if self.packed {
            return memory.load32(self.driver).is_some_and(|event| event >> 16 & 3 != 1);
        }
        if !self.event_idx {
            return memory.load16(self.driver).is_some_and(|flags| flags & 1 == 0);
        }
        let event = memory.load16(self.driver + 4 + 2 * u64::from(self.size));
        event.is_some_and(|e| self.used.wrapping_sub(e).wrapping_sub(1) < self.used.wrapping_sub(old))
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.used
    }

    /// Asks to be kicked at the next buffer, or never.
    pub(crate) fn ask_for_kicks(&self, memory: &DeviceMemory, wanted: bool) {
        match (self.packed, self.event_idx, wanted) {
            (true, true, true) => {
                let wrap = if self.avail_wrap { 1 << 15 } else { 0 };
                memory.store32(self.device, 2 << 16 | u32::from(self.avail | wrap));
            }
            (true, _, _) => memory.store32(self.device, u32::from(!wanted) << 16),
            (false, false, _) => memory.store16(self.device, u16::from(!wanted)),
            (false, true, _) => {
                let event = if wanted { self.avail } else { self.avail.wrapping_sub(1) };
                memory.store16(self.device + 4 + 8 * u64::from(self.size), event);
            }
        }
    }
}
