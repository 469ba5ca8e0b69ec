//! The vhost-user front end: what a VMM says to a back end, one call a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::message::{
    ConfigHead, Header, LogBase, MAX_PAYLOAD, MemoryRegion, MemoryTableHead, Request, SingleRegion,
    VringAddr, VringState, flags, protocol, vring_fd,
};

/// Why a message got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum FrontEndError {
    /// Nobody to talk to.
    #[error("{path}: {source}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said, last of all.
        source: io::Error,
    },
    /// The back end took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The back end closed the connection.
    #[error("the back end closed the connection")]
    Closed,
    /// The socket failed.
    #[error("vhost-user socket: {0}")]
    Socket(#[source] io::Error),
    /// The back end said no (REPLY_ACK).
    #[error("{request} was refused: {code}", request = request.name())]
    Refused {
        /// What was asked.
        request: Request,
        /// The number it answered.
        code: u64,
    },
    /// The answer is none to what was asked.
    #[error("a strange answer to {request}: {header:?}", request = request.name())]
    StrangeReply {
        /// What was asked.
        request: Request,
        /// What came.
        header: Header,
    },
}

/// A message from the back end, as it came.
#[derive(Debug)]
pub struct Reply {
    /// Its header.
    pub header: Header,
    /// Its payload, `header.size` bytes.
    pub payload: Vec<u8>,
    /// Descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// Most descriptors that a reply may carry.
const MAX_REPLY_FDS: usize = 8;

/// One connection to a back end.
#[derive(Debug)]
pub struct FrontEnd {
    socket: UnixStream,
    timeout: Duration,
    reply_ack: bool,
}

impl FrontEnd {
    /// Connects to a listening back end, trying again until `timeout` has passed: it may not be there yet. The same limit
    /// then goes for every message.
    ///
    /// # Errors
    /// [`FrontEndError::Connect`].
    pub fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, FrontEndError> {
        let deadline = Instant::now() + timeout;
        loop {
            match try_connect(path.as_ref()) {
                Ok(socket) => return Ok(Self::over(socket.into(), timeout)),
                // Not there yet, or its backlog is full.
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    return Err(FrontEndError::Connect { path: path.as_ref().into(), source: error.into() });
                }
            }
        }
    }

    /// Waits at `listener` for a back end that connects (a `client` port), `timeout` at most.
    ///
    /// # Errors
    /// [`FrontEndError::Timeout`], [`FrontEndError::Socket`].
    pub fn accept(listener: &UnixListener, timeout: Duration) -> Result<Self, FrontEndError> {
        wait(listener.as_fd(), PollFlags::IN, Instant::now() + timeout, timeout)?;
        let (socket, _) = listener.accept().map_err(FrontEndError::Socket)?;
        Ok(Self::over(socket, timeout))
    }

    /// Speaks over a socket that is connected.
    #[must_use]
    pub fn over(socket: UnixStream, timeout: Duration) -> Self {
        Self { socket, timeout, reply_ack: false }
    }

    /// Whether every message is sent with NEED_REPLY. Set by [`set_protocol_features`](Self::set_protocol_features).
    pub fn set_reply_ack(&mut self, reply_ack: bool) {
        self.reply_ack = reply_ack;
    }

    /// GET_FEATURES.
    ///
    /// # Errors
    /// [`FrontEndError`]; so for all that follow.
    pub fn features(&mut self) -> Result<u64, FrontEndError> {
        self.ask(Request::GetFeatures, &[])
    }

    /// SET_FEATURES.
    pub fn set_features(&mut self, features: u64) -> Result<(), FrontEndError> {
        self.order(Request::SetFeatures, &features, &[])
    }

    /// SET_OWNER.
    pub fn set_owner(&mut self) -> Result<(), FrontEndError> {
        self.order(Request::SetOwner, &(), &[])
    }

    /// RESET_OWNER.
    pub fn reset_owner(&mut self) -> Result<(), FrontEndError> {
        self.order(Request::ResetOwner, &(), &[])
    }

    /// RESET_DEVICE.
    pub fn reset_device(&mut self) -> Result<(), FrontEndError> {
        self.order(Request::ResetDevice, &(), &[])
    }

    /// GET_PROTOCOL_FEATURES.
    pub fn protocol_features(&mut self) -> Result<u64, FrontEndError> {
        self.ask(Request::GetProtocolFeatures, &[])
    }

    /// SET_PROTOCOL_FEATURES. With REPLY_ACK among them, every later message asks for its answer.
    pub fn set_protocol_features(&mut self, features: u64) -> Result<(), FrontEndError> {
        self.order(Request::SetProtocolFeatures, &features, &[])?;
        self.reply_ack = features & protocol::F_REPLY_ACK != 0;
        Ok(())
    }

    /// GET_QUEUE_NUM: queue pairs (DPDK) or rings (Polder), as back ends differ.
    pub fn queue_num(&mut self) -> Result<u64, FrontEndError> {
        self.ask(Request::GetQueueNum, &[])
    }

    /// SET_MEM_TABLE.
    pub fn set_mem_table(&mut self, regions: &[(MemoryRegion, BorrowedFd<'_>)]) -> Result<(), FrontEndError> {
        let head = MemoryTableHead { regions: regions.len() as u32, padding: 0 };
        let mut payload = head.as_bytes().to_vec();
        for (region, _) in regions {
            payload.extend_from_slice(region.as_bytes());
        }
        let fds: Vec<_> = regions.iter().map(|&(_, fd)| fd).collect();
        self.order(Request::SetMemTable, payload.as_slice(), &fds)
    }

    /// GET_MAX_MEM_SLOTS.
    pub fn max_mem_slots(&mut self) -> Result<u64, FrontEndError> {
        self.ask(Request::GetMaxMemSlots, &[])
    }

    /// ADD_MEM_REG.
    pub fn add_mem_reg(&mut self, region: MemoryRegion, fd: BorrowedFd<'_>) -> Result<(), FrontEndError> {
        self.order(Request::AddMemReg, &SingleRegion { padding: 0, region }, &[fd])
    }

    /// REM_MEM_REG.
    pub fn rem_mem_reg(&mut self, region: MemoryRegion) -> Result<(), FrontEndError> {
        self.order(Request::RemMemReg, &SingleRegion { padding: 0, region }, &[])
    }

    /// SET_VRING_NUM.
    pub fn set_vring_num(&mut self, index: u32, num: u32) -> Result<(), FrontEndError> {
        self.order(Request::SetVringNum, &VringState { index, num }, &[])
    }

    /// SET_VRING_BASE.
    pub fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), FrontEndError> {
        self.order(Request::SetVringBase, &VringState { index, num: base }, &[])
    }

    /// GET_VRING_BASE, which stops the ring.
    pub fn vring_base(&mut self, index: u32) -> Result<u32, FrontEndError> {
        let state: VringState = self.ask(Request::GetVringBase, VringState { index, num: 0 }.as_bytes())?;
        Ok(state.num)
    }

    /// SET_VRING_ADDR.
    pub fn set_vring_addr(&mut self, addr: VringAddr) -> Result<(), FrontEndError> {
        self.order(Request::SetVringAddr, &addr, &[])
    }

    /// SET_VRING_KICK; without a descriptor: poll.
    pub fn set_vring_kick(&mut self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), FrontEndError> {
        self.vring_fd(Request::SetVringKick, index, fd)
    }

    /// SET_VRING_CALL; without a descriptor: call nobody.
    pub fn set_vring_call(&mut self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), FrontEndError> {
        self.vring_fd(Request::SetVringCall, index, fd)
    }

    /// SET_VRING_ERR; without a descriptor: tell nobody.
    pub fn set_vring_err(&mut self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<(), FrontEndError> {
        self.vring_fd(Request::SetVringErr, index, fd)
    }

    fn vring_fd(
        &mut self,
        request: Request,
        index: u32,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), FrontEndError> {
        let none = if fd.is_none() { vring_fd::NO_FD } else { 0 };
        self.order(request, &(u64::from(index) | none), fd.as_slice())
    }

    /// SET_VRING_ENABLE.
    pub fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<(), FrontEndError> {
        self.order(Request::SetVringEnable, &VringState { index, num: enable.into() }, &[])
    }

    /// NET_SET_MTU.
    pub fn set_mtu(&mut self, mtu: u64) -> Result<(), FrontEndError> {
        self.order(Request::NetSetMtu, &mtu, &[])
    }

    /// SEND_RARP.
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), FrontEndError> {
        let mut payload = [0; 8];
        payload[..6].copy_from_slice(&mac);
        self.order(Request::SendRarp, &payload, &[])
    }

    /// SET_STATUS: the virtio device status (§2.1).
    pub fn set_status(&mut self, status: u8) -> Result<(), FrontEndError> {
        self.order(Request::SetStatus, &u64::from(status), &[])
    }

    /// GET_STATUS.
    pub fn status(&mut self) -> Result<u64, FrontEndError> {
        self.ask(Request::GetStatus, &[])
    }

    /// GET_CONFIG: `len` bytes of the virtio configuration space from `offset` on.
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, FrontEndError> {
        let head = ConfigHead { offset, size: len, flags: 0 };
        let mut payload = head.as_bytes().to_vec();
        payload.resize(payload.len() + len as usize, 0);
        let mut reply = self.exchange(Request::GetConfig, &payload, &[])?;
        if reply.payload.len() < size_of::<ConfigHead>() {
            return Err(FrontEndError::StrangeReply { request: Request::GetConfig, header: reply.header });
        }
        Ok(reply.payload.split_off(size_of::<ConfigHead>()))
    }

    /// SET_LOG_BASE, with LOG_SHMFD.
    pub fn set_log_base(&mut self, log: LogBase, fd: BorrowedFd<'_>) -> Result<(), FrontEndError> {
        self.exchange(Request::SetLogBase, log.as_bytes(), &[fd]).map(drop)
    }

    /// SET_LOG_FD.
    pub fn set_log_fd(&mut self, fd: BorrowedFd<'_>) -> Result<(), FrontEndError> {
        self.order(Request::SetLogFd, &(), &[fd])
    }

    /// Sends a message that has no answer of its own; with REPLY_ACK, waits until it is done.
    pub fn order<P: IntoBytes + Immutable + ?Sized>(
        &mut self,
        request: Request,
        payload: &P,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        if !self.reply_ack {
            return self.send(request, 0, payload.as_bytes(), fds);
        }
        self.send(request, flags::NEED_REPLY, payload.as_bytes(), fds)?;
        match self.answer::<u64>(request)? {
            0 => Ok(()),
            code => Err(FrontEndError::Refused { request, code }),
        }
    }

    /// Sends a message and waits for its answer, a `T`.
    pub fn ask<T: FromBytes + KnownLayout>(
        &mut self,
        request: Request,
        payload: &[u8],
    ) -> Result<T, FrontEndError> {
        self.send(request, 0, payload, &[])?;
        self.answer(request)
    }

    /// Sends a message and waits for its answer, whatever its payload.
    pub fn exchange(
        &mut self,
        request: Request,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, FrontEndError> {
        self.send(request, 0, payload, fds)?;
        let reply = self.recv_reply()?;
        let header = reply.header;
        if header.request != request as u32 || header.flags & flags::REPLY == 0 {
            return Err(FrontEndError::StrangeReply { request, header });
        }
        Ok(reply)
    }

    fn answer<T: FromBytes + KnownLayout>(&mut self, request: Request) -> Result<T, FrontEndError> {
        let reply = self.recv_reply()?;
        let header = reply.header;
        if header.request != request as u32 || header.flags & flags::REPLY == 0 {
            return Err(FrontEndError::StrangeReply { request, header });
        }
        T::read_from_bytes(&reply.payload).map_err(|_| FrontEndError::StrangeReply { request, header })
    }

    fn send(
        &mut self,
        request: Request,
        more_flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let header = Header {
            request: request as u32,
            flags: flags::VERSION | more_flags,
            size: payload.len() as u32,
        };
        self.send_raw(&[header.as_bytes(), payload].concat(), fds)
    }

    /// Sends bytes and descriptors as they are, whether they mean anything or not.
    pub fn send_raw(&mut self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> Result<(), FrontEndError> {
        let deadline = Instant::now() + self.timeout;
        while !bytes.is_empty() {
            wait(self.socket.as_fd(), PollFlags::OUT, deadline, self.timeout)?;
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(FrontEndError::Socket(io::ErrorKind::InvalidInput.into()));
            }
            let how = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, how) {
                Ok(sent) => (bytes, fds) = (&bytes[sent..], &[]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(FrontEndError::Closed),
                Err(error) => return Err(FrontEndError::Socket(error.into())),
            }
        }
        Ok(())
    }

    /// Receives one message, whatever it is.
    pub fn recv_reply(&mut self) -> Result<Reply, FrontEndError> {
        let deadline = Instant::now() + self.timeout;
        let mut header = Header::default();
        let mut fds = Vec::new();
        self.recv_exact(header.as_mut_bytes(), &mut fds, deadline)?;
        let size = header.size as usize;
        if size > MAX_PAYLOAD {
            return Err(FrontEndError::Socket(io::Error::other(format!("a message of {size} bytes"))));
        }
        let mut payload = vec![0; size];
        self.recv_exact(&mut payload, &mut fds, deadline)?;
        Ok(Reply { header, payload, fds })
    }

    fn recv_exact(
        &mut self,
        mut bytes: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<(), FrontEndError> {
        while !bytes.is_empty() {
            wait(self.socket.as_fd(), PollFlags::IN, deadline, self.timeout)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_REPLY_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let how = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let got = match recvmsg(&self.socket, &mut [IoSliceMut::new(bytes)], &mut control, how) {
                Ok(message) => message.bytes,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(Errno::CONNRESET) => 0,
                Err(error) => return Err(FrontEndError::Socket(error.into())),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if got == 0 {
                return Err(FrontEndError::Closed);
            }
            bytes = &mut bytes[got..];
        }
        Ok(())
    }

    /// Whether the back end has closed the connection, within `timeout`. Bytes that it sent before are not looked at.
    #[must_use]
    pub fn is_closed_within(&self, timeout: Duration) -> bool {
        let Ok(timeout) = Timespec::try_from(timeout) else { return false };
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut fds, Some(&timeout)).is_ok_and(|n| n > 0)
    }
}

impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until `fd` is ready.
fn wait(
    fd: BorrowedFd<'_>,
    for_what: PollFlags,
    deadline: Instant,
    timeout: Duration,
) -> Result<(), FrontEndError> {
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
        match poll(&mut [PollFd::from_borrowed_fd(fd, for_what)], Some(&left)) {
            Ok(0) => return Err(FrontEndError::Timeout(timeout)),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(FrontEndError::Socket(error.into())),
        }
    }
}

/// Connects, or fails, at once.
fn try_connect(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
