//! TAP: a network interface of the kernel's whose other end is this port.
//!
//! Frames go both ways with their offloads: the kernel hands over TCP packets of up to 64 KiB with their checksums undone,
//! and takes such packets. The interface is made if need be and set up; its addresses are the operator's business
//! (`ip addr add .. dev IFACE`), and it goes away with the port unless it was made to stay (`ip tuntap add`).
//!
//! One system call a packet each way, on the lcore that polls it: the kernel has no other way for TAP.

mod device;
mod landing;

use std::array;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

use mbuf::{Burst, Mbuf};
use rustix::io::{Errno, readv, writev};

use crate::offload::{Adapted, OffloadSet, VirtioNetHdr, adapt, from_virtio_net, to_virtio_net};
use crate::vdev::burst::{Counters, Fate, admit, count, drop_all, send_each};
use crate::vdev::frame::{MAX_FRAME, MIN_FRAME};
use crate::vdev::interface::Interface;
use crate::vdev::life::{Life, Owner};
use crate::vdev::spec::{check_interface, check_queues, interface_and_queues};
use crate::wake::is_readable;
use crate::{DropReason, Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

use device::HEADER;
use landing::{Landing, MAX_PIECES};

/// Which interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Its name, up to 15 bytes.
    pub interface: String,
    /// Queues each way, 1 to 16.
    pub queues: usize,
}

impl FromStr for TapConfig {
    type Err = PortError;

    fn from_str(rest: &str) -> Result<Self, PortError> {
        let (interface, queues) = interface_and_queues("tap", rest)?;
        Ok(Self { interface, queues })
    }
}

/// The port.
#[derive(Debug)]
pub struct TapPort {
    owner: Owner,
    counters: PortCounters,
    interface: Interface,
    offloads: OffloadSet,
    fds: Vec<Arc<OwnedFd>>,
}

impl TapPort {
    /// Opens the interface, makes it if it does not exist, and sets it up.
    ///
    /// # Errors
    /// [`PortError`]: says what is missing (the device, the right, the interface's queues).
    pub fn new(config: &TapConfig) -> Result<Self, PortError> {
        check_interface("tap", &config.interface)?;
        check_queues("tap", config.queues)?;
        let fds = device::open(&config.interface, config.queues)?;
        // Of all queues alike: the kernel keeps it for the interface.
        let offloads = fds.first().map_or(OffloadSet::NONE, device::offer_offloads);
        let no_socket =
            |source| PortError::Os { what: "cannot make a socket for interface calls".into(), source };
        let interface = Interface::new(&config.interface).map_err(no_socket)?;
        interface.bring_up()?;
        Ok(Self {
            owner: Owner::new(),
            counters: PortCounters::new(config.queues, config.queues),
            interface,
            offloads,
            fds: fds.into_iter().map(Arc::new).collect(),
        })
    }
}

impl Port for TapPort {
    fn kind(&self) -> &'static str {
        "tap"
    }

    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError> {
        self.owner.check_unopened()?;
        self.owner.set_opened();
        let mut queues = Queues::default();
        for (i, fd) in self.fds.drain(..).enumerate() {
            queues.rx.push(Box::new(TapRx {
                life: self.owner.life(),
                fd: fd.clone(),
                counters: self.counters.rx[i].clone(),
                landing: Landing::new(env.pool, env.port),
                allowed: self.offloads | OffloadSet::DATA_VALID,
            }));
            queues.tx.push(Box::new(TapTx {
                life: self.owner.life(),
                fd,
                counters: self.counters.tx[i].clone(),
                accepted: self.offloads,
                whole: Vec::with_capacity(HEADER + MAX_FRAME),
            }));
        }
        Ok(queues)
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        self.interface.link()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("interface", self.interface.name().to_owned()), ("offloads", self.offloads.to_string())]
    }
}

struct TapRx {
    life: Life,
    fd: Arc<OwnedFd>,
    counters: Counters,
    landing: Landing,
    allowed: OffloadSet,
}

impl RxQueue for TapRx {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        if !self.life.is_alive() {
            return 0;
        }
        let (before, mut packets, mut bytes) = (burst.len(), 0, 0);
        // Without mbufs nothing is read: the frames wait in the interface's queue.
        for _ in 0..burst.room() {
            if self.landing.refill().is_err() {
                break;
            }
            let (len, accepted) = match self.read() {
                Ok((header, len)) => (len, self.accept(&header, len)),
                // The kernel has no virtio-net header for what the frame asks for, and has dropped it.
                Err(Errno::INVAL) => (0, Err(DropReason::RxError)),
                Err(_) => break,
            };
            packets += 1;
            bytes += len as u64;
            admit(burst, accepted, &self.counters);
        }
        count(&self.counters, packets, bytes);
        burst.len() - before
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn arm(&mut self) -> bool {
        !is_readable(self.fd.as_fd())
    }
}

impl TapRx {
    /// Reads one frame: its header, and its length.
    fn read(&mut self) -> Result<(VirtioNetHdr, usize), Errno> {
        let mut header = [0; HEADER];
        let mut pieces: [_; MAX_PIECES] = array::from_fn(|_| IoSliceMut::new(&mut []));
        let n = self.landing.pieces(&mut header, &mut pieces);
        let len = readv(&*self.fd, &mut pieces[..n])?.saturating_sub(HEADER);
        let header = header.first_chunk().map(VirtioNetHdr::from_ne_bytes).unwrap_or_default();
        Ok((header, len))
    }

    /// What was read, as a packet.
    fn accept(&mut self, header: &VirtioNetHdr, len: usize) -> Result<Mbuf<'static>, DropReason> {
        if len < MIN_FRAME {
            return Err(DropReason::RxTooShort);
        }
        // The kernel cuts off what does not fit: a frame that fills all there is was longer.
        if len > MAX_FRAME || len >= self.landing.capacity() {
            return Err(DropReason::RxTooLong);
        }
        let mut mbuf = self.landing.take(len).ok_or(DropReason::RxTooLong)?;
        let offload = from_virtio_net(header, mbuf.data(), len, self.allowed)?;
        mbuf.set_offload(offload);
        Ok(mbuf)
    }
}

struct TapTx {
    life: Life,
    fd: Arc<OwnedFd>,
    counters: Counters,
    accepted: OffloadSet,
    /// For packets in too many pieces, or with bytes that no system call may be pointed at: all in one.
    whole: Vec<u8>,
}

impl TxQueue for TapTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        if !self.life.is_alive() {
            return drop_all(burst, &self.counters, DropReason::TxNotReady);
        }
        let counters = self.counters.clone();
        send_each(burst, &counters, |mbuf| self.send(mbuf))
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        drop_all(burst, &self.counters, reason);
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive()
    }
}

impl TapTx {
    fn send<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        match adapt(mbuf, self.accepted) {
            Ok(Adapted::One(mbuf)) => match self.write(&mbuf) {
                Ok(()) => Fate::Sent,
                Err(DropReason::TxFull) => Fate::Full(mbuf),
                Err(reason) => Fate::Dropped(reason),
            },
            Ok(Adapted::Many(segments)) => {
                for segment in segments {
                    if let Err(reason) = segment.map_err(|_| DropReason::NoMbufs).and_then(|s| self.write(&s))
                    {
                        return Fate::Dropped(reason);
                    }
                }
                Fate::Sent
            }
            Err(reason) => Fate::Dropped(reason),
        }
    }

    fn write(&mut self, mbuf: &Mbuf<'_>) -> Result<(), DropReason> {
        let mut header = [0; HEADER];
        header[..VirtioNetHdr::LEN]
            .copy_from_slice(&to_virtio_net(mbuf.offload(), self.accepted).to_ne_bytes());
        let written = if mbuf.has_tail() || mbuf.segment_count() >= MAX_PIECES {
            self.whole.resize(mbuf.len(), 0);
            mbuf.copy_to(0, &mut self.whole);
            writev(&*self.fd, &[IoSlice::new(&header), IoSlice::new(&self.whole)])
        } else {
            let mut pieces = [IoSlice::new(&header); MAX_PIECES];
            let segments =
                pieces[1..].iter_mut().zip(mbuf.segments()).map(|(p, s)| *p = IoSlice::new(s)).count();
            writev(&*self.fd, &pieces[..=segments])
        };
        written.map(|_| ()).map_err(reason)
    }
}

/// Why the kernel did not take a frame. EIO: the interface is down; EBADFD: it is gone.
fn reason(e: Errno) -> DropReason {
    match e {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => DropReason::TxFull,
        Errno::IO | Errno::BADFD | Errno::NETDOWN => DropReason::TxNotReady,
        Errno::MSGSIZE => DropReason::TxTooLong,
        _ => DropReason::TxError,
    }
}
