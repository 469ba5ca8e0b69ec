//! The rings as the port knows them: of either format, told apart once a burst.

use mbuf::Burst;

use super::packed::Packed;
use super::rx::Rx;
use super::split::Split;
use super::tx::Tx;
use crate::QueueCounters;
use crate::bus::Registers;
use crate::nic::{Ring, RxRing, TxRing};

/// A receive ring.
#[expect(private_interfaces, reason = "made and run by this driver only")]
pub enum VirtioRx<B> {
    /// Of descriptors, available and used entries.
    Split(Rx<Split, B>),
    /// Of descriptors alone.
    Packed(Rx<Packed, B>),
}

/// A transmit ring.
#[expect(private_interfaces, reason = "made and run by this driver only")]
pub enum VirtioTx<B> {
    /// Of descriptors, available and used entries.
    Split(Tx<Split, B>),
    /// Of descriptors alone.
    Packed(Tx<Packed, B>),
}

/// Does something with the ring, whichever format it has.
macro_rules! either {
    ($of:ident, $this:expr, $ring:ident => $what:expr) => {
        match $this {
            $of::Split($ring) => $what,
            $of::Packed($ring) => $what,
        }
    };
}

impl<B: Registers + 'static> Ring for VirtioRx<B> {
    fn check(&mut self) -> Option<&'static str> {
        either!(VirtioRx, self, ring => ring.check())
    }
}

impl<B: Registers + 'static> RxRing for VirtioRx<B> {
    #[inline]
    fn rx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        either!(VirtioRx, self, ring => ring.rx_burst(burst, counters))
    }

    fn arm(&mut self) -> bool {
        either!(VirtioRx, self, ring => ring.arm())
    }

    fn disarm(&mut self) {
        either!(VirtioRx, self, ring => ring.disarm());
    }
}

impl<B: Registers + 'static> Ring for VirtioTx<B> {
    fn check(&mut self) -> Option<&'static str> {
        either!(VirtioTx, self, ring => ring.check())
    }
}

impl<B: Registers + 'static> TxRing for VirtioTx<B> {
    #[inline]
    fn tx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        either!(VirtioTx, self, ring => ring.tx_burst(burst, counters))
    }

    #[inline]
    fn flush(&mut self) {
        either!(VirtioTx, self, ring => ring.flush());
    }
}
