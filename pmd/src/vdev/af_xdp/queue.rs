//! A queue of the interface's, bound to a socket of ours; and its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mbuf::{PageSize, Zone, ZoneConfig};
use rustix::net::sockopt;
use rustix::net::xdp::{SocketAddrXdpFlags, XdpDesc, XdpUmemReg, XdpUmemRegFlags};

use crate::QueueEnv;
use crate::vdev::af_xdp::custody::Custody;
use crate::vdev::af_xdp::fill::Fill;
use crate::vdev::af_xdp::ring::{Consumer, Producer};
use crate::vdev::af_xdp::socket::{QueueAddress, Socket, SocketRings};
use crate::vdev::af_xdp::umem::Umem;

/// Bytes of kernel memory that a socket's frames may take up on their way out.
const SEND_BUFFER: usize = 4 << 20;
/// A queue is busy for a moment after its last owner closed it: the kernel tidies up behind.
const BUSY_AT_MOST: Duration = Duration::from_millis(500);
/// How long a device may take to let go of memory that it writes to.
const LET_GO_AT_MOST: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a queue is bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) zero_copy: bool,
    /// Frames may lie in several buffers (Linux 6.6).
    pub(crate) several_buffers: bool,
    /// The memory, with what that mode asks of it.
    pub(crate) umem: Umem,
}

impl Mode {
    fn flags(&self) -> SocketAddrXdpFlags {
        let copy =
            if self.zero_copy { SocketAddrXdpFlags::XDP_ZEROCOPY } else { SocketAddrXdpFlags::XDP_COPY };
        let several =
            if self.several_buffers { SocketAddrXdpFlags::XDP_USE_SG } else { SocketAddrXdpFlags::empty() };
        copy | several | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP
    }
}

/// A socket that is bound, with the mbufs that outlive its rings.
///
/// Rings keep a socket open, and a kernel or a device that is still at work must not find its buffers in other hands. So
/// both rings of a queue hold this, hand it their mbufs when they go, and hold it last: it closes the socket, sees that the
/// device has let go, and only then gives the mbufs back.
#[derive(Debug)]
pub(crate) struct QueueEnd {
    /// None only while it is being dropped.
    socket: Option<Socket>,
    address: QueueAddress,
    pub(crate) zero_copy: bool,
    /// Frames stand in the transmit ring that the kernel had no room for: somebody has to wake it again.
    pub(crate) left_over: AtomicBool,
    /// Addresses from the kernel that were not lent to it.
    pub(crate) strays: AtomicU64,
    estate: Mutex<Vec<Custody>>,
}

/// A queue that was opened. Its end comes last, and closes the socket when the rings are unmapped.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fill: Fill,
    pub(crate) rx: Consumer<XdpDesc>,
    pub(crate) tx: Producer<XdpDesc>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) end: Arc<QueueEnd>,
}

/// What is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The interface's index.
    pub(crate) index: u32,
    /// Its queues: those below.
    pub(crate) queues: u32,
    /// Buffers that each is to have for receiving.
    pub(crate) buffers: usize,
    pub(crate) env: QueueEnv,
}

/// Which step failed.
#[derive(Debug)]
pub(crate) enum Step {
    Socket,
    Register,
    Rings,
    Bind(u32),
}

/// Opens the queues: the first in the first of `modes` that it takes, the others like it.
pub(crate) fn open(wanted: &Wanted, modes: &[Mode]) -> Result<(Vec<Opened>, Mode), (Step, io::Error)> {
    let (first, mode) = open_first(wanted, modes)?;
    let mut opened = vec![first];
    for queue in 1..wanted.queues {
        let ready = Ready::new(wanted, &mode, false)?;
        let to = QueueAddress { interface: wanted.index, queue };
        let bound = patiently(|| match opened[0].end.socket() {
            Some(first) => ready.socket.bind_shared(to, first),
            None => Err(io::ErrorKind::NotConnected.into()),
        });
        bound.map_err(|e| (Step::Bind(queue), e))?;
        opened.push(ready.opened(to));
    }
    Ok((opened, mode))
}

fn open_first(wanted: &Wanted, modes: &[Mode]) -> Result<(Opened, Mode), (Step, io::Error)> {
    let to = QueueAddress { interface: wanted.index, queue: 0 };
    let mut refused = (Step::Bind(0), io::ErrorKind::Unsupported.into());
    for mode in modes {
        // A socket of its own for each try: the kernel keeps flags of the last one with the memory.
        let ready = Ready::new(wanted, mode, true)?;
        match patiently(|| ready.socket.bind(to, mode.flags())) {
            Ok(()) => return Ok((ready.opened(to), *mode)),
            Err(e) => {
                let may_differ = matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL));
                refused = (Step::Bind(0), e);
                if !may_differ {
                    break;
                }
            }
        }
    }
    Err(refused)
}

/// A socket that is ready to be bound, its buffers posted.
struct Ready {
    socket: Socket,
    rings: SocketRings,
    fill: Fill,
}

impl Ready {
    /// `first`: it brings the memory that the others share.
    fn new(wanted: &Wanted, mode: &Mode, first: bool) -> Result<Self, (Step, io::Error)> {
        let socket = Socket::new().map_err(|e| (Step::Socket, e))?;
        // Needs CAP_NET_ADMIN; without it the default must do.
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
        if first {
            socket.register(&mode.umem).map_err(|e| (Step::Register, e))?;
        }
        let (rings, fill) = socket.rings().map_err(|e| (Step::Rings, e))?;
        let fill = Fill::new(fill, mode.umem, wanted.env, wanted.buffers);
        Ok(Self { socket, rings, fill })
    }

    /// It was bound.
    fn opened(self, address: QueueAddress) -> Opened {
        let Self { socket, rings: SocketRings { rx, tx, completion }, mut fill } = self;
        let end = Arc::new(QueueEnd {
            address,
            zero_copy: socket.is_zero_copy(),
            socket: Some(socket),
            left_over: AtomicBool::new(false),
            strays: AtomicU64::new(0),
            estate: Mutex::default(),
        });
        fill.belong_to(&end);
        Opened { fill, rx, tx, completion, end }
    }
}

/// Tries again for a moment what fails because the queue is busy.
fn patiently(mut bind: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + BUSY_AT_MOST;
    loop {
        match bind() {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(LOOK_AGAIN);
            }
            done => return done,
        }
    }
}

impl QueueEnd {
    /// The socket; none only while this is being dropped.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Has the kernel look at the transmit ring: see [`Socket::wake_tx`]. How it went shows in the ring.
    #[inline]
    pub(crate) fn wake_tx(&self) {
        if let Some(socket) = &self.socket {
            let _ = socket.wake_tx();
        }
    }

    /// Has the driver look at the fill ring.
    #[cold]
    pub(crate) fn wake_rx(&self) {
        if let Some(socket) = &self.socket {
            socket.wake_rx();
        }
    }

    /// What becomes readable when a frame came.
    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Counts an address that nobody lent.
    #[cold]
    pub(crate) fn count_stray(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes over what a half that goes had lent to the kernel.
    pub(crate) fn inherit(&self, custody: Custody) {
        self.estate.lock().unwrap_or_else(PoisonError::into_inner).push(custody);
    }
}

impl Drop for QueueEnd {
    fn drop(&mut self) {
        // The rings are unmapped by now, so this closes it. In copy mode nobody writes to the memory when it returns.
        drop(self.socket.take());
        if self.zero_copy && !is_let_go(self.address, LET_GO_AT_MOST) {
            let estate = core::mem::take(self.estate.get_mut().unwrap_or_else(PoisonError::into_inner));
            let mbufs: usize = estate.iter().map(Custody::held).sum();
            tracing::error!(mbufs, "a device does not let go of packet memory: it is never used again");
            Box::leak(Box::new(estate));
        }
    }
}

/// Waits until the kernel has taken a closed socket's buffers from the device, which it does some time after the socket is
/// closed. A queue can be bound again exactly from then on; so that is what is tried, with a page of memory of its own.
pub(crate) fn is_let_go(address: QueueAddress, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    loop {
        match bind_with_a_page(address).map_err(|e| e.raw_os_error()) {
            Err(Some(libc::EBUSY)) => {}
            // It can be bound; or the interface is down or gone, and its device at rest.
            Ok(()) | Err(Some(libc::ENETDOWN | libc::ENODEV | libc::EINVAL)) => return true,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn bind_with_a_page(address: QueueAddress) -> io::Result<()> {
    let pages = PageSize::Small4K;
    let config = ZoneConfig { name: "af_xdp probe".into(), bytes: pages.bytes(), pages, numa_node: None };
    let page = Zone::new(&config).map_err(io::Error::other)?;
    let socket = Socket::new()?;
    let registration = XdpUmemReg {
        addr: page.base().addr().get() as u64,
        len: page.len() as u64,
        chunk_size: page.len() as u32,
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(&socket, registration)?;
    socket.bind(address, SocketAddrXdpFlags::XDP_COPY)
}

#[cfg(test)]
mod tests {
    use mbuf::{Mempool, MempoolConfig};

    use super::*;
    use crate::vdev::interface::Interface;

    /// On the loopback interface, whose queue AF_XDP can have, too.
    #[test]
    #[ignore = "needs root"]
    fn needs_root_a_queue_is_let_go_of_when_its_socket_is_closed() {
        let index = Interface::new("lo").unwrap().index().unwrap();
        let pool = Mempool::new(&MempoolConfig { mbufs: 64, ..MempoolConfig::default() }).unwrap();
        let mode = Mode { zero_copy: false, several_buffers: false, umem: Umem::of(pool).unwrap() };
        let env = QueueEnv { pool, port: 1 };
        let (opened, _) = open(&Wanted { index, queues: 1, buffers: 32, env }, &[mode]).unwrap();
        assert_eq!(pool.balance().out, 32);
        let address = QueueAddress { interface: index, queue: 0 };
        assert!(!is_let_go(address, Duration::from_millis(50)), "it is bound");
        drop(opened);
        assert_eq!(pool.balance().out, 0);
        assert!(is_let_go(address, LET_GO_AT_MOST));
        assert!(is_let_go(QueueAddress { interface: index, queue: 77 }, Duration::ZERO), "no such queue");
    }
}
