//! What a guest can break, by name.

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a ring was stopped by its own guest's doing. Latched until the ring is set up anew.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(crate) enum Fault { $($(#[$doc])* $variant = $number,)* }

        impl Fault {
            /// The name that logs and `port show` give.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            pub(crate) const fn from_number(n: u8) -> Option<Self> {
                match n { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

faults! {
    /// avail.idx moved by more than the ring's size (I4).
    AvailIndex = 1, "avail_index_jump";
    /// A head or `next` names no descriptor of its table.
    DescIndex = 2, "descriptor_index_out_of_range";
    /// A chain is longer than the ring.
    ChainTooLong = 3, "chain_too_long";
    /// An indirect table is nested, misshapen, chained on or not negotiated.
    Indirect = 4, "bad_indirect_table";
    /// A buffer lies (partly) outside of guest memory.
    Address = 5, "buffer_outside_memory";
    /// A buffer's direction contradicts its queue.
    Direction = 6, "buffer_direction";
    /// Guest memory was taken away under us.
    MemoryGone = 7, "memory_gone";
    /// A packed ring's buffer id is no number below the ring's size, or comes twice.
    BufferId = 8, "bad_buffer_id";
    /// A packed ring's chain runs into a descriptor that is not available.
    ChainBroken = 9, "chain_not_available";
    /// A mergeable buffer has no room for the header (virtio 1.3 §5.1.6.3.1).
    BufferTooShort = 10, "mergeable_buffer_too_short";
    /// Touching guest memory took too much time, again and again.
    SlowMemory = 12, "slow_memory";
}
