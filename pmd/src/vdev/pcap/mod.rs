//! A port that reads a capture and writes a capture.
//!
//! It reads and writes files on the lcore that polls it, a buffer at a time: that is what it is for, and why it has no
//! place in a switch that must keep time. Packets come as fast as they are polled for, whatever their timestamps; when the
//! file ends, the link goes down.

mod source;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use mbuf::{Burst, Mbuf, Mempool};

use crate::offload::{Adapted, OffloadSet, adapt};
use crate::vdev::burst::{Counters, Fate, admit, count, drop_all, send_each};
use crate::vdev::frame::{MAX_FRAME, MIN_FRAME, from_bytes};
use crate::vdev::life::{Life, Owner};
use crate::vdev::null::Nothing;
use crate::vdev::spec;
use crate::{DropReason, Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

use source::{Next, Source};

pub use writer::CaptureWriter;

/// Which files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcapConfig {
    /// The capture that packets come from: pcap or pcapng, Ethernet.
    pub rx: Option<PathBuf>,
    /// The capture that packets go to: pcap with nanoseconds; made anew.
    pub tx: Option<PathBuf>,
    /// Whether to start over at the end of `rx`.
    pub repeat: bool,
}

impl FromStr for PcapConfig {
    type Err = PortError;

    fn from_str(rest: &str) -> Result<Self, PortError> {
        let mut config = Self::default();
        for (key, value) in spec::parts(rest) {
            match (key, value) {
                ("rx", path) if !path.is_empty() => config.rx = Some(path.into()),
                ("tx", path) if !path.is_empty() => config.tx = Some(path.into()),
                ("loop", "") => config.repeat = true,
                _ => return Err(wrong(&format!("\"{key}\" is no option of it, or lacks a file name"))),
            }
        }
        if config.rx.is_none() && config.tx.is_none() {
            return Err(wrong("it names no file"));
        }
        if config.repeat && config.rx.is_none() {
            return Err(wrong("loop needs an rx file"));
        }
        Ok(config)
    }
}

fn wrong(why: &str) -> PortError {
    PortError::Spec(format!("pcap: {why}: write pcap:[rx=FILE][,tx=FILE][,loop]"))
}

/// The port: one queue each way, of which one does nothing if there is no file for it.
#[derive(Debug)]
pub struct PcapPort {
    owner: Owner,
    counters: PortCounters,
    ended: Arc<AtomicBool>,
    source: Option<Source>,
    capture: Option<CaptureWriter<File>>,
}

impl PcapPort {
    /// Opens the files.
    ///
    /// # Errors
    /// [`PortError`] with the file's name, if one cannot be opened or is no capture of Ethernet frames.
    pub fn new(config: &PcapConfig) -> Result<Self, PortError> {
        let source = config.rx.as_deref().map(|p| open(p, config.repeat)).transpose()?;
        let capture = config.tx.as_deref().map(create).transpose()?;
        Ok(Self {
            owner: Owner::new(),
            counters: PortCounters::new(1, 1),
            ended: Arc::default(),
            source,
            capture,
        })
    }
}

fn open(path: &Path, repeat: bool) -> Result<Source, PortError> {
    let source = File::open(path).and_then(|file| Source::new(file, repeat));
    source.map_err(|e| os_error("read packets from", path, e))
}

fn create(path: &Path) -> Result<CaptureWriter<File>, PortError> {
    File::create(path).and_then(CaptureWriter::new).map_err(|e| os_error("write packets to", path, e))
}

fn os_error(what: &str, path: &Path, source: io::Error) -> PortError {
    PortError::Os { what: format!("pcap: cannot {what} {}", path.display()), source }
}

impl Port for PcapPort {
    fn kind(&self) -> &'static str {
        "pcap"
    }

    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError> {
        self.owner.check_unopened()?;
        self.owner.set_opened();
        let rx: Box<dyn RxQueue> = match self.source.take() {
            None => Box::new(Nothing),
            Some(source) => Box::new(PcapRx {
                life: self.owner.life(),
                counters: self.counters.rx[0].clone(),
                ended: self.ended.clone(),
                source,
                pool: env.pool,
                port: env.port,
            }),
        };
        let tx = PcapTx {
            life: self.owner.life(),
            counters: self.counters.tx[0].clone(),
            capture: self.capture.take(),
        };
        Ok(Queues { rx: vec![rx], tx: vec![Box::new(tx)] })
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        if self.ended.load(Ordering::Relaxed) { Link::Down } else { Link::Up }
    }
}

struct PcapRx {
    life: Life,
    counters: Counters,
    ended: Arc<AtomicBool>,
    source: Source,
    pool: &'static Mempool,
    port: u16,
}

impl RxQueue for PcapRx {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        if !self.is_ready() {
            return 0;
        }
        let (before, mut packets, mut bytes) = (burst.len(), 0, 0);
        let (pool, port) = (self.pool, self.port);
        for _ in 0..burst.room() {
            let (len, made) = match self.source.next(|frame| (frame.len(), make(pool, port, frame))) {
                Next::Frame(len, made) => (len, made),
                Next::Foreign => (0, Err(DropReason::RxError)),
                Next::End => {
                    self.ended.store(true, Ordering::Relaxed);
                    break;
                }
            };
            packets += 1;
            bytes += len as u64;
            admit(burst, made, &self.counters);
        }
        count(&self.counters, packets, bytes);
        burst.len() - before
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive() && !self.ended.load(Ordering::Relaxed)
    }

    fn arm(&mut self) -> bool {
        !self.is_ready() // After its end nothing comes any more.
    }
}

fn make(pool: &'static Mempool, port: u16, frame: &[u8]) -> Result<Mbuf<'static>, DropReason> {
    if frame.len() < MIN_FRAME {
        return Err(DropReason::RxTooShort);
    }
    if frame.len() > MAX_FRAME {
        return Err(DropReason::RxTooLong);
    }
    from_bytes(pool, port, frame).map_err(|_| DropReason::NoMbufs)
}

struct PcapTx {
    life: Life,
    counters: Counters,
    capture: Option<CaptureWriter<File>>,
}

impl TxQueue for PcapTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        let alive = self.life.is_alive();
        let Some(capture) = self.capture.as_mut().filter(|_| alive) else {
            return drop_all(burst, &self.counters, DropReason::TxNotReady);
        };
        let now = SystemTime::now();
        send_each(burst, &self.counters, |mbuf| match record(capture, now, mbuf) {
            Ok(()) => Fate::Sent,
            Err(reason) => Fate::Dropped(reason),
        })
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        drop_all(burst, &self.counters, reason);
    }

    fn flush(&mut self) {
        if let Some(capture) = &mut self.capture {
            // A full disk shows as tx_error on the next packet: the writer remembers.
            let _ = capture.flush();
        }
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive() && self.capture.is_some()
    }
}

/// Writes a packet as a wire would see it: checksum complete, cut to size.
fn record(capture: &mut CaptureWriter<File>, now: SystemTime, mbuf: Mbuf<'_>) -> Result<(), DropReason> {
    let mut write = |m: &Mbuf<'_>| capture.write_packet(now, m).map_err(|_| DropReason::TxError);
    match adapt(mbuf, OffloadSet::NONE)? {
        Adapted::One(mbuf) => write(&mbuf),
        Adapted::Many(segments) => {
            for segment in segments {
                write(&segment.map_err(|_| DropReason::NoMbufs)?)?;
            }
            Ok(())
        }
    }
}
