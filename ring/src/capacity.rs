//! How large a ring is, how much is left in it, and why it could not be made.

use core::fmt;

/// The largest capacity: indices are `u32` and run freely, so a full ring must differ from an empty one.
const MAX: usize = 1 << 31;

/// How many elements a ring is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Exactly this many, which must be a power of two from 1 to 2³¹. All of them can be used (in `rte_ring`
    /// one less).
    PowerOfTwo(usize),
    /// Exactly this many, from 1 to 2³¹; the storage is the next power of two.
    Exact(usize),
}

impl Capacity {
    /// Checks the range and works out the storage.
    pub(crate) fn geometry(self) -> Result<Geometry, RingError> {
        let (Self::PowerOfTwo(wanted) | Self::Exact(wanted)) = self;
        let capacity = match u32::try_from(wanted) {
            Ok(capacity) if (1..=MAX).contains(&wanted) => capacity,
            _ => return Err(RingError::CapacityOutOfRange(wanted)),
        };
        if matches!(self, Self::PowerOfTwo(_)) && !capacity.is_power_of_two() {
            return Err(RingError::CapacityNotPowerOfTwo(wanted));
        }
        Ok(Geometry { capacity, mask: capacity.next_power_of_two() - 1 })
    }
}

/// A checked capacity. `capacity <= mask + 1`, and `mask + 1` is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Elements the ring holds at most.
    pub(crate) capacity: u32,
    /// Slots of storage, less one.
    pub(crate) mask: u32,
}

impl Geometry {
    /// Slots of storage.
    pub(crate) fn slots(self) -> usize {
        self.mask as usize + 1
    }
}

/// How many are left after an operation: free slots after an enqueue, elements after a dequeue.
///
/// It is a lower bound: it comes from the opposite index as last seen, and the other side may have gone on
/// since. `len` and `free` look anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Left(pub usize);

impl From<Left> for usize {
    fn from(left: Left) -> Self {
        left.0
    }
}

/// Why a ring could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// [`Capacity::PowerOfTwo`] was given this number, which is none.
    CapacityNotPowerOfTwo(usize),
    /// The capacity is 0 or above 2³¹.
    CapacityOutOfRange(usize),
    /// The slots would not fit into the address space.
    TooLarge {
        /// Slots wanted.
        slots: usize,
        /// Bytes an element takes.
        element_bytes: usize,
    },
    /// The allocator had not this many bytes.
    OutOfMemory {
        /// Bytes wanted.
        bytes: usize,
    },
    /// The caller's arena is too short.
    ArenaTooShort {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        got: usize,
    },
    /// The caller's arena does not start at a multiple of this.
    ArenaMisaligned {
        /// Alignment needed, in bytes.
        align: usize,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CapacityNotPowerOfTwo(n) => {
                write!(f, "ring capacity {n} is not a power of two: take one, or Capacity::Exact({n})")
            }
            Self::CapacityOutOfRange(n) => write!(f, "ring capacity {n} is not within 1 to {MAX}"),
            Self::TooLarge { slots, element_bytes } => {
                write!(f, "{slots} slots of {element_bytes} bytes exceed the address space: take fewer")
            }
            Self::OutOfMemory { bytes } => write!(f, "no memory for {bytes} bytes of ring slots"),
            Self::ArenaTooShort { need, got } => {
                write!(f, "the ring's arena has {got} bytes and needs {need}: see arena_layout")
            }
            Self::ArenaMisaligned { align } => {
                write!(f, "the ring's arena must start at a multiple of {align}: see arena_layout")
            }
        }
    }
}

impl core::error::Error for RingError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_of_two_rounds_nothing() {
        assert_eq!(Capacity::PowerOfTwo(4).geometry(), Ok(Geometry { capacity: 4, mask: 3 }));
        assert_eq!(Capacity::PowerOfTwo(5).geometry(), Err(RingError::CapacityNotPowerOfTwo(5)));
        assert_eq!(Capacity::PowerOfTwo(0).geometry(), Err(RingError::CapacityOutOfRange(0)));
    }

    #[test]
    fn exact_rides_on_the_next_power_of_two() {
        assert_eq!(Capacity::Exact(5).geometry(), Ok(Geometry { capacity: 5, mask: 7 }));
        assert_eq!(Capacity::Exact(1).geometry(), Ok(Geometry { capacity: 1, mask: 0 }));
        let largest = Geometry { capacity: 1 << 31, mask: (1 << 31) - 1 };
        assert_eq!(Capacity::Exact(MAX).geometry(), Ok(largest));
        assert_eq!(Capacity::Exact(MAX + 1).geometry(), Err(RingError::CapacityOutOfRange(MAX + 1)));
    }

    #[test]
    fn errors_name_the_value() {
        assert!(RingError::CapacityNotPowerOfTwo(5).to_string().contains("5 is not a power of two"));
        assert!(RingError::ArenaTooShort { need: 64, got: 63 }.to_string().contains("63 bytes"));
    }
}
