//! What a port is: a factory of queue halves on the control path, and the halves themselves.

use std::fmt;
use std::os::fd::BorrowedFd;

use mbuf::{Burst, Mempool};

use crate::{DropReason, PortCounters};

/// A port's receive half: one owner, one lcore. It brings packets *into* the switch.
///
/// # One turn
/// ```ignore
/// let mut burst = Burst::new();
/// rx.rx_burst(&mut burst);        // borrows `rx` for as long as `burst` lives
/// tx.tx_burst(&mut burst);        // sent, or dropped and counted; `burst` may keep some
/// drop(burst);                    // whatever is left goes back
/// rx.complete();                  // only now does the sender get its buffers back
/// tx.flush();                     // only now is the receiver notified
/// ```
/// A burst's packets may name memory of the sender as their tails, and the borrow checker sees to it that none of them
/// outlives the turn: [`complete`](Self::complete) needs the queue back. What must outlive it is made to
/// [own](mbuf::Mbuf::own) its bytes.
pub trait RxQueue: Send {
    /// Appends packets that came in to `burst`, as many as there are and it has room for; returns how many.
    /// Completes the last turn first, if the caller has not.
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize;

    /// Ends the turn: the sender gets back all buffers of the bursts since the last call. One that polls for them may get the
    /// newest few a moment later.
    fn complete(&mut self) {}

    /// Asks for at most `packets` in each burst from now on, 1 to [`MAX_BURST`](mbuf::MAX_BURST): they cost much to forward, and
    /// others wait meanwhile. A wish: queues whose packets are never long need not know of it.
    fn limit_bursts(&mut self, packets: usize) {
        let _ = packets;
    }

    /// Whether packets can come at all: link up, queue enabled. Cheap, and only a hint.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether group-addressed frames that were sent by its port may come back by it, as from a virtual function whose card
    /// hands a broadcast to all functions, the sender included. Asked once.
    fn reflects(&self) -> bool {
        false
    }

    /// What an lcore waits on that wants to sleep: when packets come after [`arm`](Self::arm), it is signalled anew. To be
    /// watched for edges (EPOLLET): what was signalled before may leave it readable for ever, as nobody need read it. The
    /// same descriptor for the half's whole life, whoever the peer is. `None`: nothing wakes for it.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Asks the peer to make [`wake_fd`](Self::wake_fd) readable when the next packet comes. False if there may be packets
    /// already, or if it cannot be asked: do not sleep then, poll. Looks for packets after asking, so that none is missed.
    /// True without a `wake_fd`: nothing will come at all.
    fn arm(&mut self) -> bool {
        false
    }

    /// The opposite of [`arm`](Self::arm): the half is polled again, and its peer need not signal. Also after an `arm` that
    /// was false.
    fn disarm(&mut self) {}
}

/// A port's transmit half: one owner, one lcore. It takes packets *out of* the switch.
pub trait TxQueue: Send {
    /// Takes packets from the front of `burst`, as many as the receiver has room for; returns how many it took. What it
    /// took was sent, or dropped and counted here; what it could not take stays in `burst`. Never waits.
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize;

    /// Drops all of `burst`, counted here for `reason`.
    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason);

    /// Ends the turn: whatever is needed so that the receiver looks at what was sent.
    fn flush(&mut self) {}

    /// Whether packets are made to [own](mbuf::Mbuf::own) their bytes by it, as by one that gives them to a device. A flood
    /// copies borrowed bytes once for all of those. Asked once.
    fn keeps(&self) -> bool {
        false
    }

    /// Whether the receiver takes packets at all: link up, queue enabled. Cheap, and only a hint. A multiqueue port's
    /// sender spreads flows over its ready queues.
    fn is_ready(&self) -> bool {
        true
    }
}

/// A port's link as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Peer there and taking packets.
    Up,
    /// No peer, or administratively down.
    Down,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Up { "up" } else { "down" })
    }
}

/// What a port gets to make its queues from.
#[derive(Clone, Copy, Debug)]
pub struct QueueEnv {
    /// Where its receive halves take mbufs from.
    pub pool: &'static Mempool,
    /// The port's number: it tags the packets that come in ([`mbuf::Mbuf::port`]) and the mbufs it holds.
    pub port: u16,
}

/// A port's halves. Their numbers are fixed for the port's life; queues that its peer does not use are never ready.
#[derive(Default)]
pub struct Queues {
    /// Receive halves.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// Transmit halves.
    pub tx: Vec<Box<dyn TxQueue>>,
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queues({} rx, {} tx)", self.rx.len(), self.tx.len())
    }
}

/// Why a port could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The specification is wrong. Says what and what would be right.
    #[error("{0}")]
    Spec(String),
    /// The operating system refused. Says what was tried and what to do.
    #[error("{what}: {source}")]
    Os {
        /// What was tried, with the name that was wrong and, where there is one, the mend.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The NIC cannot be had or brought up. Says why and what to do.
    #[error(transparent)]
    Nic(#[from] crate::nic::NicError),
    /// Its peer could not be told of packets.
    #[error(transparent)]
    Notify(#[from] crate::notify::NotifyError),
    /// The queues were taken before.
    #[error("the port's queues are in use")]
    QueuesTaken,
}

/// A port's control path. Dropping it ends the port; its halves, wherever they are, then see and send nothing more.
pub trait Port: Send {
    /// The specification's word for it: `vhost-user`, `tap`, `null` ...
    fn kind(&self) -> &'static str;

    /// Makes the queue halves. Once.
    ///
    /// # Errors
    /// [`PortError`]; the port is as before then.
    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError>;

    /// Its counters, the same for its whole life.
    fn counters(&self) -> PortCounters;

    /// Its link.
    fn link(&self) -> Link;

    /// Largest frame it takes, in bytes without FCS and without VLAN tags; 65,535 and more if any.
    fn max_frame(&self) -> usize {
        65_535
    }

    /// What `polder port show` tells beside the counters: name and value, most telling first.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
