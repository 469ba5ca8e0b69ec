//! Any port as an endpoint: frames are copied into mbufs, and out of them.

use hdrhistogram::Histogram;
use mbuf::{Burst, MAX_BURST, Mempool, MempoolConfig};
use pmd::{Port, PortError, QueueEnv, Queues};
use vhost::VhostUserPort;
use vhost::driver::traffic::Tally;

use super::{Counts, Endpoint, Work, histogram, note_latency};
use crate::probe::{Stamper, Streams};

/// Mbufs of an endpoint: a NIC's rings hold a thousand or two.
const MBUFS: usize = 8192;

/// Makes the port that a specification names.
///
/// # Errors
/// [`PortError`].
pub fn open_port(spec: &str) -> Result<Box<dyn Port>, PortError> {
    let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
    match kind {
        "vhost-user" => Ok(Box::new(VhostUserPort::new(&rest.parse()?)?)),
        _ => pmd::from_spec(kind, rest),
    }
}

/// The port, and its streams: all queues are received from, the first one is sent by.
pub(super) struct PortEndpoint {
    queues: Queues,
    streams: Streams,
    stamper: Stamper,
    latency: Histogram<u64>,
    work: Work,
    pool: &'static Mempool,
    bare: u64,
    received: u64,
    bytes: u64,
    next: usize,
    scratch: Vec<u8>,
    /// Dropped last.
    _port: Box<dyn Port>,
}

impl PortEndpoint {
    pub(super) fn open(spec: &str, work: Work) -> Result<Self, String> {
        let wrong = |e: PortError| format!("{spec}: {e}");
        let mut port = open_port(spec).map_err(wrong)?;
        let data_room = work.longest().next_multiple_of(64).max(2048);
        let pool = Mempool::new(&MempoolConfig { mbufs: MBUFS, data_room, ..MempoolConfig::default() })
            .map_err(|e| e.to_string())?;
        let queues = port.open(QueueEnv { pool, port: work.number.into() }).map_err(wrong)?;
        let (layout, extent) = work.layout();
        Ok(Self {
            queues,
            streams: Streams::new(work.partner, 1, layout, extent),
            stamper: Stamper::new(u16::from(work.number) << 8, layout, extent),
            latency: histogram(),
            work,
            pool,
            bare: 0,
            received: 0,
            bytes: 0,
            next: 0,
            scratch: Vec::new(),
            _port: port,
        })
    }

    fn receive(&mut self, now_ns: u64) {
        let Self { queues, streams, latency, work, received, bytes, scratch, .. } = self;
        for rx in &mut queues.rx {
            let mut burst = Burst::new();
            rx.rx_burst(&mut burst);
            for mbuf in &*burst {
                *bytes += mbuf.len() as u64;
                if work.probe.is_none() {
                    *received += 1;
                    continue;
                }
                if mbuf.data().len() == mbuf.len() {
                    note_latency(latency, streams.whole(mbuf.data()), now_ns);
                } else {
                    scratch.resize(mbuf.len(), 0);
                    mbuf.copy_to(0, scratch);
                    note_latency(latency, streams.whole(scratch), now_ns);
                }
            }
            drop(burst);
            rx.complete();
        }
    }

    fn send(&mut self, most: usize, now_ns: u64) {
        let most = most.min(self.work.burst).min(MAX_BURST);
        let Some(tx) = self.queues.tx.first_mut().filter(|tx| tx.is_ready()) else { return };
        let mut burst = Burst::new();
        if self.pool.alloc_bulk(&mut burst, most, self.work.number.into()).is_err() {
            return;
        }
        for mbuf in &mut *burst {
            let frame = &self.work.frames[self.next];
            self.next = (self.next + 1) % self.work.frames.len();
            // The pool's mbufs were made for the longest frame.
            if let Some(room) = mbuf.append(frame.len()) {
                room.copy_from_slice(frame);
                if self.work.probe.is_some() {
                    self.stamper.stamp(room, now_ns);
                }
            }
        }
        tx.tx_burst(&mut burst);
        tx.flush();
        // What it had no room for was not sent, and is sent again with the same numbers.
        let (left, frames) = (burst.len(), self.work.frames.len());
        self.next = (self.next + frames - left % frames) % frames;
        match self.work.probe {
            Some(_) => self.stamper.take_back(left),
            None => self.bare += (most - left) as u64,
        }
    }
}

impl Endpoint for PortEndpoint {
    fn turn(&mut self, most: usize, now_ns: u64) -> Result<(), String> {
        self.receive(now_ns);
        self.send(most, now_ns);
        Ok(())
    }

    fn counts(&self) -> Counts {
        let (sent, received) = (self.bare + self.stamper.sent(), self.received + self.streams.received());
        Counts { sent, received, bytes: self.bytes }
    }

    fn sent_by_queue(&self) -> Vec<u64> {
        vec![self.bare + self.stamper.sent()]
    }

    fn tally(&self, sent: Option<&[u64]>) -> Tally {
        self.streams.tally(sent)
    }

    fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    fn forget_latency(&mut self) {
        self.latency.reset();
    }
}
