//! An AF_XDP socket: set up, bound to a queue, woken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpOptionsFlags, XdpRingOffset,
    XdpStatistics,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::vdev::af_xdp::ring::{Consumer, Entry, Mapping, Producer, Shared};
use crate::vdev::af_xdp::umem::Umem;

/// Entries of the fill and the receive ring.
pub(crate) const RX_ENTRIES: u32 = 1024;
/// Entries of the transmit and the completion ring: two TCP packets of 64 KiB cut into frames, from each of 20 senders.
pub(crate) const TX_ENTRIES: u32 = 2048;

/// The socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// Our ends of its rings, but for the fill ring. Each keeps the socket open.
#[derive(Debug)]
pub(crate) struct SocketRings {
    pub(crate) rx: Consumer<XdpDesc>,
    pub(crate) tx: Producer<XdpDesc>,
    pub(crate) completion: Consumer<u64>,
}

/// The queue that a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueAddress {
    pub(crate) interface: u32,
    pub(crate) queue: u32,
}

impl Socket {
    /// A socket of no memory and no queue, with its rings made.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?;
        sockopt::set_xdp_umem_fill_ring_size(&fd, RX_ENTRIES)?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, TX_ENTRIES)?;
        sockopt::set_xdp_rx_ring_size(&fd, RX_ENTRIES)?;
        sockopt::set_xdp_tx_ring_size(&fd, TX_ENTRIES)?;
        Ok(Self(fd))
    }

    /// Registers the packet memory with it. Sockets that share it need not.
    pub(crate) fn register(&self, umem: &Umem) -> io::Result<()> {
        Ok(sockopt::set_xdp_umem_reg(&self.0, umem.registration())?)
    }

    /// Maps its rings, the fill ring apart; before it is bound.
    pub(crate) fn rings(&self) -> io::Result<(SocketRings, Producer<u64>)> {
        let places = sockopt::xdp_mmap_offsets(&self.0)?;
        let fill = Producer::new(self.ring(XDP_UMEM_PGOFF_FILL_RING, &places.fr, RX_ENTRIES)?);
        let rings = SocketRings {
            rx: Consumer::new(self.ring(XDP_PGOFF_RX_RING, &places.rx, RX_ENTRIES)?),
            tx: Producer::new(self.ring(XDP_PGOFF_TX_RING, &places.tx, TX_ENTRIES)?),
            completion: Consumer::new(self.ring(XDP_UMEM_PGOFF_COMPLETION_RING, &places.cr, TX_ENTRIES)?),
        };
        Ok((rings, fill))
    }

    fn ring<T: Entry>(&self, offset: u64, places: &XdpRingOffset, size: u32) -> io::Result<Shared<T>> {
        let memory = Mapping::of(self.0.as_fd(), offset, Shared::<T>::bytes(places, size))?;
        let no_flags = io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than Linux 5.4");
        Shared::new(&Arc::new(memory), places, size).ok_or(no_flags)
    }

    /// Binds it to a queue, with the memory that was registered with it.
    pub(crate) fn bind(&self, to: QueueAddress, flags: SocketAddrXdpFlags) -> io::Result<()> {
        Ok(bind(&self.0, &SocketAddrXdp::new(flags, to.interface, to.queue))?)
    }

    /// Binds it to a queue, with the memory, the mode and the flags of a socket that is bound.
    pub(crate) fn bind_shared(&self, to: QueueAddress, first: &Self) -> io::Result<()> {
        let addr = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_SHARED_UMEM, to.interface, to.queue);
        Ok(bind(&self.0, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: first.0.as_fd() })?)
    }

    /// Whether the device reads and writes the packet memory itself.
    pub(crate) fn is_zero_copy(&self) -> bool {
        sockopt::xdp_options(&self.0).is_ok_and(|o| o.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// What the kernel dropped.
    pub(crate) fn statistics(&self) -> io::Result<XdpStatistics> {
        Ok(sockopt::xdp_statistics(&self.0)?)
    }

    /// Has the kernel look at the transmit ring. In copy mode it sends from within this call, some 32 frames; EAGAIN means
    /// that there are more.
    #[inline]
    pub(crate) fn wake_tx(&self) -> Result<(), Errno> {
        rustix::net::send(&self.0, &[], SendFlags::DONTWAIT).map(|_| ())
    }

    /// Has the device's driver look at the fill ring.
    pub(crate) fn wake_rx(&self) {
        // The next burst asks again, if the driver still wants it.
        let _ = rustix::net::recv(&self.0, &mut [0u8; 0], RecvFlags::DONTWAIT);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
