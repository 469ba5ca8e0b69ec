//! Why a packet was dropped.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped. Every packet that came in was sent, or is counted under one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The name that statistics show.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// The receiver's queue has no room (a guest's RX ring without buffers, a full NIC ring).
    TxFull = "tx_full",
    /// The receiver is not set up: guest not started, queue disabled, interface down.
    TxNotReady = "tx_not_ready",
    /// The receiver has room, but not for a frame of this length.
    TxTooLong = "tx_too_long",
    /// The receiver cannot do the offload that the packet needs, and neither could we.
    TxOffload = "tx_offload",
    /// The operating system or the device refused the packet.
    TxError = "tx_error",
    /// No mbuf was free.
    NoMbufs = "no_mbufs",
    /// The frame is shorter than an Ethernet header.
    RxTooShort = "rx_too_short",
    /// The frame is longer than any that Polder carries (64 KiB and headers).
    RxTooLong = "rx_too_long",
    /// The descriptors that named the frame break the virtio rules.
    RxBadDescriptor = "rx_bad_descriptor",
    /// The virtio-net header contradicts the packet or asks for what was not negotiated.
    RxBadOffload = "rx_bad_offload",
    /// The guest's front end had disabled the queue: drained without effect.
    RxDisabled = "rx_disabled",
    /// The guest's memory was taken away while the frame was read.
    RxMemoryGone = "rx_memory_gone",
    /// The device flagged the frame as broken.
    RxError = "rx_error",
    /// To a reserved group address 01-80-C2-00-00-0x (IEEE 802.1Q 8.6.3): not forwarded.
    ReservedGroup = "reserved_group",
    /// The way to the destination leads back to where it came from.
    SamePort = "same_port",
    /// A group-addressed frame came back by the device that it was sent through: its sender was seen behind another port a
    /// moment ago.
    Reflected = "reflected",
    /// There is no other port to send it to.
    NoOutput = "no_output",
    /// The ring to the lcore that owns the receiver is full.
    HandoverFull = "handover_full",
    /// Of what waits to be sent by other lcores, the port that the packet came in by has its share of mbufs.
    HandoverQuota = "handover_quota",
    /// The port was removed while the packet was on its way to it.
    PortRemoved = "port_removed",
    /// Malformed tag or a VLAN that the port is no member of.
    Vlan = "vlan",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_numbers_match() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        assert!(DropReason::ALL.iter().enumerate().all(|(i, r)| *r as usize == i));
    }
}
