//! The packed virtqueue's layout (virtio 1.3 §2.8). All numbers little-endian. Sizes and the flags `NEXT`, `WRITE` and
//! `INDIRECT` are as in a [split](super::ring) ring.

/// A descriptor's size in bytes (§2.8.13): addr u64, len u32, id u16, flags u16.
pub const DESC_SIZE: usize = 16;
/// Where `len` stands in a descriptor.
pub const DESC_LEN_OFFSET: usize = 8;
/// Where `id` stands in a descriptor.
pub const DESC_ID_OFFSET: usize = 12;
/// Where `flags` stand in a descriptor.
pub const DESC_FLAGS_OFFSET: usize = 14;
/// Of an available descriptor, the driver's wrap counter (§2.8.1).
pub const DESC_F_AVAIL: u16 = 1 << 7;
/// Of an available descriptor, the inverse of the driver's wrap counter; of a used one, both flags are the device's.
pub const DESC_F_USED: u16 = 1 << 15;

/// Size in bytes of an event suppression structure (§2.8.14): off_wrap u16, flags u16. Aligned to 4.
pub const EVENT_SIZE: usize = 4;
/// Where `flags` stand in it. Their other bits are reserved.
pub const EVENT_FLAGS_OFFSET: usize = 2;
/// Notifications are wanted.
pub const EVENT_F_ENABLE: u16 = 0;
/// No notifications are wanted.
pub const EVENT_F_DISABLE: u16 = 1;
/// One notification is wanted, for the descriptor that `off_wrap` names. With EVENT_IDX.
pub const EVENT_F_DESC: u16 = 2;
/// The bits of `flags` that say so; all of them set means nothing (§2.8.10).
pub const EVENT_F_MASK: u16 = 3;

/// Bytes of a descriptor ring of `size`.
#[must_use]
pub const fn desc_bytes(size: u16) -> usize {
    DESC_SIZE * size as usize
}

/// One descriptor, as a private copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedDesc {
    /// Guest-physical address of the buffer.
    pub addr: u64,
    /// Its bytes; of a used descriptor, the bytes written.
    pub len: u32,
    /// The buffer's id. Means something in a chain's last descriptor.
    pub id: u16,
    /// `DESC_F_*`.
    pub flags: u16,
}

impl PackedDesc {
    /// From the descriptor's two little-endian words.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(addr: u64, rest: u64) -> Self {
        Self { addr, len: rest as u32, id: (rest >> 32) as u16, flags: (rest >> 48) as u16 }
    }

    /// Its second word.
    #[inline(always)]
    #[must_use]
    pub const fn rest_word(self) -> u64 {
        self.len as u64 | (self.id as u64) << 32 | (self.flags as u64) << 48
    }
}

/// A descriptor's position in the ring, and the wrap counter that goes with it: 15 bits and one. So it stands in `off_wrap`,
/// and twice (available, used) in vhost-user's ring base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Less than the ring's size.
    pub at: u16,
    /// 1 in the first round.
    pub wrap: bool,
}

impl Position {
    /// Where every ring starts (§2.8.1).
    pub const START: Self = Self { at: 0, wrap: true };

    /// vhost-user's base of a ring that stands here, with nothing in flight.
    #[must_use]
    pub const fn base(self) -> u32 {
        let bits = self.to_bits() as u32;
        bits | bits << 16
    }

    /// Where a ring of this base is to go on. Bits 0 to 15 are the position of the next available descriptor, bits 16 to 31
    /// that of the next used one. What lies between is in flight; whoever would have ended it is gone, and its descriptors
    /// still say available, so it begins anew. But front ends leave the upper half 0 (DPDK's do), which then means nothing.
    #[must_use]
    pub const fn of_base(base: u32) -> Self {
        let (available, used) = (base as u16, (base >> 16) as u16);
        Self::from_bits(if used == 0 { available } else { used })
    }

    /// Whether a ring of `size` can have this base: both positions are in it.
    #[must_use]
    pub const fn is_base_within(base: u32, size: u16) -> bool {
        Self::from_bits(base as u16).at < size && Self::from_bits((base >> 16) as u16).at < size
    }

    /// From its 16 bits.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self { at: bits & 0x7fff, wrap: bits & 0x8000 != 0 }
    }

    /// As 16 bits.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u16 {
        self.at | (self.wrap as u16) << 15
    }

    /// The position `n` descriptors further, in a ring of `size`; `n` is at most that.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, n: u16, size: u16) -> Self {
        let at = self.at + n;
        if at >= size { Self { at: at - size, wrap: !self.wrap } } else { Self { at, wrap: self.wrap } }
    }

    /// The two flags of a descriptor that is available here.
    #[inline(always)]
    #[must_use]
    pub const fn available_flags(self) -> u16 {
        if self.wrap { DESC_F_AVAIL } else { DESC_F_USED }
    }

    /// The two flags of a descriptor that is used here.
    #[inline(always)]
    #[must_use]
    pub const fn used_flags(self) -> u16 {
        if self.wrap { DESC_F_AVAIL | DESC_F_USED } else { 0 }
    }
}

/// Whether a notification is due that was asked for at `event`, as the `moved` descriptors before `now` were made available
/// or used; at most `size` of them matter (§2.8.14). An event outside of the ring is due only after a whole round.
#[inline(always)]
#[must_use]
pub const fn need_event(event: Position, now: Position, moved: u32, size: u16) -> bool {
    // Counted from the start of the round in which `now` is, and so below zero in the one before.
    let event = if event.wrap == now.wrap { event.at } else { event.at.wrapping_sub(size) };
    moved >= size as u32 || (now.at.wrapping_sub(event).wrapping_sub(1) as u32) < moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_survives_its_words() {
        let d = PackedDesc { addr: 0x1234_5678_9abc, len: 0xfedc_ba98, id: 0xbeef, flags: DESC_F_USED | 3 };
        assert_eq!(PackedDesc::from_words(d.addr, d.rest_word()), d);
    }

    #[test]
    fn positions_wrap_in_rings_of_any_size() {
        for size in [1, 2, 3, 7, 256, 1000, 32_768u16] {
            let mut at = Position::START;
            for i in 0..3 * u32::from(size) {
                let want = (i % u32::from(size)) as u16;
                assert_eq!(
                    at,
                    Position { at: want, wrap: (i / u32::from(size)).is_multiple_of(2) },
                    "{size}"
                );
                assert_eq!(Position::from_bits(at.to_bits()), at);
                assert_eq!(at.after(size, size), Position { wrap: !at.wrap, ..at });
                at = at.after(1, size);
            }
        }
    }

    /// Against the definition: the event's descriptor is among those that were moved.
    #[test]
    fn events_at_every_position() {
        for size in 1..=9u16 {
            let places: Vec<_> = (0..4 * size)
                .scan(Position::START, |at, _| Some(core::mem::replace(at, at.after(1, size))))
                .collect();
            for (now, moved) in (2 * size..4 * size).flat_map(|now| (0..=size).map(move |moved| (now, moved)))
            {
                // An event is at most a round away from where it was asked for.
                for event in now - size..now {
                    let due = event >= now - moved;
                    let got =
                        need_event(places[usize::from(event)], places[usize::from(now)], moved.into(), size);
                    assert_eq!(got, due, "size {size}, event {event}, moved {moved} to {now}");
                }
            }
        }
    }

    #[test]
    fn v37_events_outside_of_the_ring() {
        for bits in [0x7fff, 0xffff, 256, 0x8100] {
            let event = Position::from_bits(bits);
            assert!(!need_event(event, Position::START.after(10, 256), 5, 256), "{bits:#x}");
            assert!(need_event(event, Position::START.after(10, 256), 256, 256), "{bits:#x}");
        }
    }
}
