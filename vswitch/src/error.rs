//! What can go wrong on the control path.

use crate::PortId;

/// Why the switch could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// A switch needs a thread to turn it.
    #[error("the switch has no lcore: name at least one")]
    NoLcores,
    /// Mempools know this many lcores.
    #[error("{0} lcores are too many: at most {max} threads can hold an lcore's identity", max = mbuf::MAX_LCORES)]
    TooManyLcores(usize),
    /// Statistics and mailboxes name lcores by their ids.
    #[error("lcore {0} is named twice")]
    DuplicateLcore(usize),
    /// The process may not run there, or there is no such CPU.
    #[error("CPU {cpu} is not one that this process may run on (allowed: {allowed})")]
    CpuNotAllowed {
        /// The CPU asked for.
        cpu: usize,
        /// Those there are.
        allowed: String,
    },
    /// The system refused to pin a thread.
    #[error("cannot pin the lcore's thread: {0}")]
    Affinity(std::io::Error),
    /// The system refused to start a thread.
    #[error("cannot start the lcore's thread: {0}")]
    Thread(std::io::Error),
    /// The system refused what wakes a sleeping lcore.
    #[error("cannot make what wakes an lcore: {0}; raise the limit of open files (ulimit -n)")]
    Wake(std::io::Error),
    /// The system refused that by which guests are called.
    #[error(transparent)]
    Notify(#[from] pmd::notify::NotifyError),
    /// A number of the FDB's configuration is out of range.
    #[error("fdb {what} = {value} is out of range ({range})")]
    Fdb {
        /// Which number.
        what: &'static str,
        /// What it was.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
    /// All port numbers are in use.
    #[error("the switch has {max} ports already", max = crate::MAX_PORTS)]
    TooManyPorts,
    /// Names tell ports apart.
    #[error("there is a port `{0}` already")]
    DuplicateName(String),
    /// No port has this id (any more).
    #[error("there is no port {0} (any more)")]
    NoSuchPort(PortId),
    /// A port's queues are attached once.
    #[error("port {0} is attached already")]
    AlreadyAttached(PortId),
    /// A port is being removed.
    #[error("port {0} is being removed")]
    Leaving(PortId),
    /// A queue was asked to live on an lcore that there is not.
    #[error("the switch has no lcore {0}")]
    NoSuchLcore(usize),
    /// An lcore did not answer in time: its thread is stopped or starved. What was asked for can be asked for again.
    #[error("lcore {0} did not answer within {1:?}: its thread is stopped or starved")]
    NotQuiescing(usize, std::time::Duration),
    /// An lcore's thread ended by a panic; its queues are lost.
    #[error("the thread of lcore {0} died")]
    LcoreDied(usize),
    /// A ring between lcores could not be made.
    #[error("cannot make a hand-over ring: {0}")]
    Ring(#[from] ring::RingError),
}
