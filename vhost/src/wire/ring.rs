//! The split virtqueue's layout (virtio 1.3 §2.7). All numbers little-endian.

/// A descriptor's size in bytes (§2.7.5): addr u64, len u32, flags u16, next u16.
pub const DESC_SIZE: usize = 16;
/// The buffer continues in the descriptor that `next` names.
pub const DESC_F_NEXT: u16 = 1;
/// The device writes the buffer; without it, it reads.
pub const DESC_F_WRITE: u16 = 2;
/// The buffer holds a table of descriptors (§2.7.5.3).
pub const DESC_F_INDIRECT: u16 = 4;

/// Where `idx` stands in the available ring (§2.7.6), after `flags`.
pub const AVAIL_IDX_OFFSET: usize = 2;
/// Where the entries start in the available ring: u16 each; behind the last one stands `used_event`.
pub const AVAIL_RING_OFFSET: usize = 4;
/// The driver wants no used-buffer notifications (§2.7.7); without EVENT_IDX.
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Where `idx` stands in the used ring (§2.7.8), after `flags`.
pub const USED_IDX_OFFSET: usize = 2;
/// Where the entries start in the used ring: id u32, len u32 each; behind the last one stands `avail_event`.
pub const USED_RING_OFFSET: usize = 4;
/// A used entry's size in bytes.
pub const USED_ELEM_SIZE: usize = 8;
/// The device wants no available-buffer notifications (§2.7.10); without EVENT_IDX.
pub const USED_F_NO_NOTIFY: u16 = 1;

/// Largest ring (§2.7): 32,768 descriptors.
pub const MAX_SIZE: u16 = 32_768;

/// Bytes of the descriptor table of a ring of `size`.
#[must_use]
pub const fn desc_bytes(size: u16) -> usize {
    DESC_SIZE * size as usize
}

/// Bytes of the available ring, `used_event` included.
#[must_use]
pub const fn avail_bytes(size: u16) -> usize {
    AVAIL_RING_OFFSET + 2 * size as usize + 2
}

/// Bytes of the used ring, `avail_event` included.
#[must_use]
pub const fn used_bytes(size: u16) -> usize {
    USED_RING_OFFSET + USED_ELEM_SIZE * size as usize + 2
}

/// One descriptor, as a private copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Guest-physical address of the buffer.
    pub addr: u64,
    /// Its bytes.
    pub len: u32,
    /// `DESC_F_*`.
    pub flags: u16,
    /// The next descriptor of the chain, if flagged.
    pub next: u16,
}

impl Desc {
    /// From the descriptor's two little-endian words.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(addr: u64, rest: u64) -> Self {
        Self { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }

    /// Its second word.
    #[inline(always)]
    #[must_use]
    pub const fn rest_word(self) -> u64 {
        self.len as u64 | (self.flags as u64) << 32 | (self.next as u64) << 48
    }
}

/// Whether the other side is to be notified after moving an index from `old` to `new` (§2.7.7.2, §2.7.10.1).
#[inline(always)]
#[must_use]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_survives_its_words() {
        let d = Desc {
            addr: 0x1234_5678_9abc,
            len: 0xfedc_ba98,
            flags: DESC_F_NEXT | DESC_F_WRITE,
            next: 0xbeef,
        };
        assert_eq!(Desc::from_words(d.addr, d.rest_word()), d);
    }

    #[test]
    fn events_at_the_wrap() {
        assert!(need_event(0xffff, 0, 0xffff), "passed the event");
        assert!(!need_event(0, 0, 0xffff), "not there yet");
        assert!(!need_event(5, 5, 5), "nothing moved");
        assert!(need_event(4, 5, 4));
    }
}
