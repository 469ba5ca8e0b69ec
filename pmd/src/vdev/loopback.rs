//! Ports joined by rings: what one sends, the other receives. No system calls, no copies but for borrowed tails and
//! shared packets.
//!
//! ```
//! use mbuf::{Burst, Mempool, MempoolConfig};
//! use pmd::{Port, QueueEnv, vdev::loopback};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Mempool::new(&MempoolConfig { mbufs: 64, cache: 0, ..MempoolConfig::default() })?;
//! let (mut a, mut b) = loopback::pair(1, 32)?;
//! let mut a = a.open(QueueEnv { pool, port: 1 })?;
//! let mut b = b.open(QueueEnv { pool, port: 2 })?;
//!
//! let mut frame = pool.alloc(0)?;
//! frame.append(60).unwrap().fill(0xff);
//! let mut burst = Burst::new();
//! burst.push(frame).unwrap();
//! assert_eq!(a.tx[0].tx_burst(&mut burst), 1);
//! assert_eq!(b.rx[0].rx_burst(&mut burst), 1);
//! assert_eq!((burst[0].len(), burst[0].port()), (60, 2));
//! # Ok(())
//! # }
//! ```

use mbuf::{Burst, Mbuf};
use ring::Capacity;
use ring::spsc::{Consumer, Producer, channel};

use crate::vdev::burst::{Counters, Fate, count, drop_all, send_each};
use crate::vdev::life::{Life, Owner};
use crate::vdev::spec::check_queues;
use crate::{DropReason, Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

/// Packets that each ring of a `loopback` holds.
pub const DEFAULT_CAPACITY: usize = 1024;

/// One end of a pair, or a port joined to itself.
#[derive(Debug)]
pub struct LoopbackPort {
    owner: Owner,
    peer: Life,
    counters: PortCounters,
    /// The rings that it will send to and receive from; gone when the queues are made.
    rings: Vec<(Producer<Mbuf<'static>>, Consumer<Mbuf<'static>>)>,
}

/// Two ports: what is sent by queue n of one is received by queue n of the other. Each ring holds `capacity` packets.
///
/// # Errors
/// [`PortError::Spec`] for a number of queues or a capacity that is out of range.
pub fn pair(queues: usize, capacity: usize) -> Result<(LoopbackPort, LoopbackPort), PortError> {
    check_queues("loopback", queues)?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..queues {
        let (a_tx, b_rx) = ring_of(capacity)?;
        let (b_tx, a_rx) = ring_of(capacity)?;
        a.push((a_tx, a_rx));
        b.push((b_tx, b_rx));
    }
    let (a_owner, b_owner) = (Owner::new(), Owner::new());
    let (a_life, b_life) = (a_owner.life(), b_owner.life());
    Ok((LoopbackPort::joined(a_owner, b_life, a), LoopbackPort::joined(b_owner, a_life, b)))
}

fn ring_of(capacity: usize) -> Result<(Producer<Mbuf<'static>>, Consumer<Mbuf<'static>>), PortError> {
    channel(Capacity::Exact(capacity)).map_err(|e| PortError::Spec(format!("loopback: {e}")))
}

impl LoopbackPort {
    /// A port whose one queue receives what it sends.
    ///
    /// # Errors
    /// [`PortError::Spec`] for a capacity that is out of range.
    pub fn to_itself(capacity: usize) -> Result<Self, PortError> {
        let owner = Owner::new();
        let peer = owner.life();
        Ok(Self::joined(owner, peer, vec![ring_of(capacity)?]))
    }

    fn joined(
        owner: Owner,
        peer: Life,
        rings: Vec<(Producer<Mbuf<'static>>, Consumer<Mbuf<'static>>)>,
    ) -> Self {
        Self { owner, peer, counters: PortCounters::new(rings.len(), rings.len()), rings }
    }
}

impl Port for LoopbackPort {
    fn kind(&self) -> &'static str {
        "loopback"
    }

    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError> {
        self.owner.check_unopened()?;
        self.owner.set_opened();
        let mut queues = Queues::default();
        for (i, (to, from)) in self.rings.drain(..).enumerate() {
            let life = self.owner.life();
            let counters = self.counters.rx[i].clone();
            queues.rx.push(Box::new(LoopbackRx { life: life.clone(), from, counters, port: env.port }));
            let counters = self.counters.tx[i].clone();
            queues.tx.push(Box::new(LoopbackTx { life, peer: self.peer.clone(), to, counters }));
        }
        Ok(queues)
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        if self.peer.is_alive() { Link::Up } else { Link::Down }
    }
}

struct LoopbackRx {
    life: Life,
    from: Consumer<Mbuf<'static>>,
    counters: Counters,
    port: u16,
}

impl RxQueue for LoopbackRx {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        if !self.life.is_alive() {
            return 0;
        }
        let (before, mut packets, mut bytes) = (burst.len(), 0, 0);
        for _ in 0..burst.room() {
            let Some(mbuf) = self.from.pop() else { break };
            packets += 1;
            bytes += mbuf.len() as u64;
            // A flood's copies share one mbuf; here each goes its own way, with its own port number.
            let Ok(mut mbuf) = mbuf.unshare() else {
                self.counters.drop_packets(DropReason::NoMbufs, 1);
                continue;
            };
            mbuf.set_port(self.port);
            let pushed = burst.push(mbuf);
            debug_assert!(pushed.is_ok(), "there was room");
        }
        count(&self.counters, packets, bytes);
        burst.len() - before
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive()
    }
}

struct LoopbackTx {
    life: Life,
    peer: Life,
    to: Producer<Mbuf<'static>>,
    counters: Counters,
}

impl TxQueue for LoopbackTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        if !self.is_ready() {
            return drop_all(burst, &self.counters, DropReason::TxNotReady);
        }
        let mut room = self.to.free();
        let to = &mut self.to;
        send_each(burst, &self.counters, |mbuf| {
            if room == 0 {
                return Fate::Full(mbuf);
            }
            let Ok(owned) = mbuf.own() else { return Fate::Dropped(DropReason::NoMbufs) };
            room -= 1;
            let pushed = to.push(owned);
            debug_assert!(pushed.is_ok(), "there was room");
            Fate::Sent
        })
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        drop_all(burst, &self.counters, reason);
    }

    fn keeps(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive() && self.peer.is_alive()
    }
}
