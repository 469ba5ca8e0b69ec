//! GET_FEATURES, SET_FEATURES, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES.

use super::Session;
use super::message::{Message, Reply};
use super::trouble::{Refusal, Trouble};
use crate::wire::message::protocol;
use crate::wire::net::{
    F_ANY_LAYOUT, F_CSUM, F_CTRL_RX, F_CTRL_VQ, F_EVENT_IDX, F_GUEST_ANNOUNCE, F_GUEST_CSUM, F_GUEST_ECN,
    F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, F_IN_ORDER, F_INDIRECT_DESC, F_MQ,
    F_MRG_RXBUF, F_MTU, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1,
};

/// Offered to every guest. A VMM strikes out what its back end does not offer, so this also holds what the VMM does by
/// itself: the control queue, receive modes, announcing. Not offered: the migration log, IOMMUs, UFO.
pub(super) const DEVICE: u64 = F_VERSION_1
    | F_PROTOCOL_FEATURES
    | F_ANY_LAYOUT
    | F_INDIRECT_DESC
    | F_EVENT_IDX
    | F_IN_ORDER
    | F_RING_PACKED
    | F_MRG_RXBUF
    | F_MTU
    | F_CTRL_VQ
    | F_CTRL_RX
    | F_GUEST_ANNOUNCE
    | OFFLOADS;

/// The offloads that the data plane deals with, in hardware or by itself.
const OFFLOADS: u64 = F_CSUM
    | F_GUEST_CSUM
    | F_HOST_TSO4
    | F_HOST_TSO6
    | F_HOST_ECN
    | F_GUEST_TSO4
    | F_GUEST_TSO6
    | F_GUEST_ECN;

/// The protocol features offered. Not CONFIG: QEMU keeps a network device's configuration itself, and warns of back ends
/// that offer theirs.
pub(super) const PROTOCOL: u64 = protocol::F_MQ
    | protocol::F_REPLY_ACK
    | protocol::F_MTU
    | protocol::F_RARP
    | protocol::F_CONFIGURE_MEM_SLOTS
    | protocol::F_RESET_DEVICE
    | protocol::F_STATUS;

impl Session {
    fn offered_features(&self) -> u64 {
        if self.offer.pairs > 1 { DEVICE | F_MQ } else { DEVICE }
    }

    pub(super) fn get_features(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        Ok(Reply::U64(self.offered_features()))
    }

    /// Rings that run are stopped, and go on under the new features.
    pub(super) fn set_features(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let features: u64 = m.payload()?;
        check_offered(features, self.offered_features())?;
        if self.features == Some(features) {
            return Ok(Reply::Done);
        }
        self.stop_rings();
        if self.features.is_some_and(|before| (before ^ features) & F_RING_PACKED != 0) {
            self.forget_bases();
        }
        self.features = Some(features);
        self.start_rings();
        Ok(Reply::Done)
    }

    pub(super) fn get_protocol_features(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        Ok(Reply::U64(PROTOCOL))
    }

    pub(super) fn set_protocol_features(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let features: u64 = m.payload()?;
        check_offered(features, PROTOCOL)?;
        self.protocol_features = features;
        Ok(Reply::Done)
    }

    /// The negotiated features; none before SET_FEATURES.
    pub(super) fn features(&self) -> u64 {
        self.features.unwrap_or(0)
    }
}

fn check_offered(asked: u64, offered: u64) -> Result<(), Refusal> {
    match asked & !offered {
        0 => Ok(()),
        bits => Err(Refusal::FeatureBits(bits)),
    }
}
