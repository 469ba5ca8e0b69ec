//! What a driver is to the port around it.

use std::os::fd::BorrowedFd;

use mbuf::Burst;

use crate::bus::BusError;
use crate::{Link, QueueCounters, QueueEnv};

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Good,
    /// It has to be reset, for this reason: the PF was reset, a queue stalled, a write-back made no sense ...
    Reset(&'static str),
    /// It is not there any more.
    Gone,
}

/// Why a device could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// The bus says no.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The device did not do in time what it was told.
    #[error("{device} did not {what} within {within_ms} ms{hint}")]
    Timeout {
        /// Which device.
        device: String,
        /// "answer the reset", "enable receive queue 0" ...
        what: String,
        /// How long it was waited for.
        within_ms: u64,
        /// What that most likely means, and the mend: begins with "; ", or is empty.
        hint: &'static str,
    },
    /// The device, or who it belongs to, refused.
    #[error("{device} {what}")]
    Refused {
        /// Which device.
        device: String,
        /// "was denied its MAC by the PF", "offers no VIRTIO_F_VERSION_1" ... and the mend.
        what: String,
    },
}

/// A device's rings, pair by pair.
#[derive(Debug)]
pub struct Rings<R, T> {
    /// Receive rings.
    pub rx: Vec<R>,
    /// Transmit rings, as many.
    pub tx: Vec<T>,
}

/// Either side of a queue pair, while its device runs. Owned by one thread at a time.
pub trait Ring: Send + 'static {
    /// Looks, between two bursts, whether the ring still makes sense; says why it does not: a device that does not complete
    /// what it was given, above all. Called about every 10 ms, on the data plane as a rule: bounded, without a system call.
    /// Also the place to give back mbufs of a ring that nothing is sent to any more.
    fn check(&mut self) -> Option<&'static str> {
        None
    }
}

/// The receive side of a queue pair.
pub trait RxRing: Ring {
    /// Appends packets that came in to `burst`, as many as there are and it has room for, counts them, gives the device fresh
    /// buffers; returns how many it appended. Data plane.
    fn rx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize;

    /// Has the device signal the ring's vector at the next packet; false if one is there already, or if it cannot.
    fn arm(&mut self) -> bool {
        false
    }

    /// Ends that, and takes back what was signalled.
    fn disarm(&mut self) {}
}

/// The transmit side of a queue pair.
pub trait TxRing: Ring {
    /// Takes packets from the front of `burst`, as many as the ring has room for, and counts them; returns how many it took.
    /// Gives back mbufs that the device is done with. Data plane.
    fn tx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize;

    /// Ends the turn: rings the doorbell, if that was left open.
    fn flush(&mut self) {}
}

/// A device under its driver. Control path.
///
/// Made when the device is opened; then `start`, `look` again and again, `stop`, perhaps `start` again; dropped when the
/// device is gone or given back. Dropping it stops it.
pub trait NicDriver: Send + 'static {
    /// Its receive ring.
    type Rx: RxRing;
    /// Its transmit ring.
    type Tx: TxRing;

    /// The driver's name: `igbvf`, `virtio_pci`.
    fn name(&self) -> &'static str;

    /// How many queue pairs it will run. Fixed by the first device's; a later one may have fewer.
    fn queue_pairs(&self) -> usize;

    /// Brings the device up from whatever state it is in, reset first: rings made, buffers posted, queues enabled.
    ///
    /// # Errors
    /// [`NicError`]; the device is stopped then, and it can be tried again.
    fn start(&mut self, env: QueueEnv) -> Result<Rings<Self::Rx, Self::Tx>, NicError>;

    /// Stops the device: when this returns it does not touch memory any more, and the rings may be dropped.
    fn stop(&mut self);

    /// Looks after the device: mailbox, link. Called about every 10 ms while it runs, and when an event of
    /// [`events`](Self::events) is readable. Never waits for the device longer than 100 ms.
    fn look(&mut self) -> Health;

    /// Its link, as last seen by `look`.
    fn link(&self) -> Link;

    /// Largest frame it takes, in bytes without FCS.
    fn max_frame(&self) -> usize;

    /// What `polder port show` tells: MAC, firmware, offloads ... name and value, most telling first.
    fn details(&self) -> Vec<(&'static str, String)>;

    /// Descriptors that are readable when there is something to look after (the mailbox's interrupt, link).
    fn events(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Becomes readable when the system wants the device back.
    fn removal(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// As [`RxQueue::reflects`](crate::RxQueue::reflects).
    fn reflects(&self) -> bool {
        false
    }

    /// What becomes readable when packets came to receive ring `pair` after [`RxRing::arm`]; [`RxRing::disarm`] reads it.
    fn rx_event(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        let _ = pair;
        None
    }
}
