//! What a driver's ring is to be, and what can be wrong with it.

use super::order::Order;
use super::ram::RamError;
use crate::wire::net::hdr_len;

/// Into which pieces a slot's buffer (header, then frame) is cut: a descriptor each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// All in one.
    #[default]
    Whole,
    /// The header, and the frame.
    HeaderApart,
    /// A piece of `first` bytes, then pieces of `rest` bytes; neither may be 0.
    Pieces {
        /// Bytes of the first.
        first: u32,
        /// Bytes of each other.
        rest: u32,
    },
}

impl Cut {
    pub(super) const fn sizes(self, hdr_len: u32) -> (u32, u32) {
        match self {
            Self::Whole => (u32::MAX, u32::MAX),
            Self::HeaderApart => (hdr_len, u32::MAX),
            Self::Pieces { first, rest } => (first, rest),
        }
    }
}

/// When to kick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kicks {
    /// When the device asks for it (§2.7.10): a fence and a look at its wish each time something is published.
    #[default]
    AsAsked,
    /// Never: for a device that polls, and figures that count each cycle.
    Never,
    /// Each time.
    Always,
}

/// What a ring is to be.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Descriptors, 1 to 32,768: a power of two, unless the ring is packed.
    pub size: u16,
    /// Bytes of each slot's buffer, the virtio-net header included.
    pub buffer_bytes: u32,
    /// How the buffer is cut into descriptors. With k pieces and no indirect tables a ring has size / k slots, where a split
    /// one rounds k up to a power of two.
    pub cut: Cut,
    /// The pieces stand in an indirect table (§2.7.5.3). Takes F_INDIRECT_DESC.
    pub indirect: bool,
    /// The first available and used position (SET_VRING_BASE). Packed: so many descriptors behind the start, in the first
    /// round or the second.
    pub base: u16,
    /// When to kick.
    pub kicks: Kicks,
    /// In which order free slots are posted again; F_IN_ORDER takes [`Order::Same`].
    pub order: Order,
    /// Whether posted receive buffers have foreign content where their header will be, as a kernel's have, whose buffers were
    /// used for something else meanwhile; otherwise the last packet's header stands there.
    pub foreign_headers: bool,
    /// Negotiated features. With F_RING_PACKED the ring is packed.
    pub features: u64,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            size: 256,
            buffer_bytes: 2048,
            cut: Cut::Whole,
            indirect: false,
            base: 0,
            kicks: Kicks::AsAsked,
            order: Order::Same,
            foreign_headers: false,
            features: 0,
        }
    }
}

/// Why a ring cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RingConfigError {
    /// No ring has this size.
    #[error("ring size {0}: 1 to 32768 is needed, and a power of two unless the ring is packed")]
    Size(u16),
    /// The pieces of one buffer don't fit.
    #[error(
        "a buffer of {pieces} descriptors does not fit into a ring of {size}: larger pieces, a larger ring or indirect tables are needed"
    )]
    Pieces {
        /// Descriptors of one buffer.
        pieces: usize,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A piece, or what is left after the header, would be empty.
    #[error(
        "buffers of {buffer_bytes} bytes cut as {cut:?}: no piece may be empty, and a header of {hdr_len} must fit with room to spare"
    )]
    Empty {
        /// As asked.
        buffer_bytes: u32,
        /// As asked.
        cut: Cut,
        /// By the features.
        hdr_len: usize,
    },
    /// Indirect tables without the feature.
    #[error("indirect tables take the feature INDIRECT_DESC, which was not negotiated")]
    Indirect,
    /// Another order than the ring's, which IN_ORDER asks for (§2.7.9).
    #[error("with the feature IN_ORDER free buffers are posted in the ring's order, and in no other")]
    Order,
    /// No room.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// No eventfd.
    #[error("eventfd: {0}")]
    Eventfd(#[source] std::io::Error),
}

/// What a device did that no device may. Latched: the ring answers nothing else from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// used.idx moved past what was posted.
    #[error("used.idx is {idx}: {posted} slots were posted from {next} on")]
    UsedIdx {
        /// What it is.
        idx: u16,
        /// Where it was.
        next: u16,
        /// Most that it could have moved.
        posted: u16,
    },
    /// A used entry names no posted slot: made up, or returned twice.
    #[error("used entry at {at} returns {id}, which is not posted")]
    UsedId {
        /// The entry's position.
        at: u16,
        /// What it names.
        id: u32,
    },
    /// More bytes used than the buffer has, or less than a header.
    #[error("used entry at {at} says {len} bytes of a buffer of {room}")]
    UsedLen {
        /// The entry's position.
        at: u16,
        /// What it says.
        len: u32,
        /// What would have been possible.
        room: u32,
    },
    /// A packet says more buffers than were returned with it, or none.
    #[error("packet at {at} says {num_buffers} buffers, {there} are there")]
    NumBuffers {
        /// The first entry's position.
        at: u16,
        /// What its header says.
        num_buffers: u16,
        /// Used entries from there on.
        there: u16,
    },
}

/// Descriptors of one buffer.
pub(super) fn pieces_of(config: RingConfig) -> Result<usize, RingConfigError> {
    let hdr_len = hdr_len(config.features);
    let (first, rest) = config.cut.sizes(hdr_len as u32);
    let bytes = config.buffer_bytes;
    if first == 0 || rest == 0 || bytes as usize <= hdr_len {
        return Err(RingConfigError::Empty { buffer_bytes: bytes, cut: config.cut, hdr_len });
    }
    Ok(1 + bytes.saturating_sub(first).div_ceil(rest) as usize)
}

/// Bytes from one buffer to the next: an odd number of cache lines, so that their first lines spread over all of a cache's
/// sets.
pub(super) const fn stride(buffer_bytes: u32) -> usize {
    (buffer_bytes as usize).div_ceil(64) / 2 * 128 + 64
}
