//! One connection: messages put together from whatever comes, replies written as far as they go. It never blocks, and
//! it holds one message and one reply at most.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    Shutdown, recvmsg, sendmsg, shutdown,
};
use zerocopy::FromBytes;

use super::closer::Closer;
use super::message::{Message, check_header};
use super::received::Received;
use super::trouble::Malformed;
use crate::wire::message::{Header, MAX_FDS, MAX_PAYLOAD};

/// A message must be whole, and a reply taken, this long after their first byte.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

const HEADER: usize = size_of::<Header>();

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("closed by the front end")]
    ByPeer,
    #[error("{0}")]
    System(Errno),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The name of an end that is nobody's fault.
pub(super) const CLOSED_BY_FRONT_END: &str = "closed_by_front_end";

impl Closed {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::ByPeer => CLOSED_BY_FRONT_END,
            Self::System(_) => "socket_error",
            Self::Malformed(e) => e.name(),
        }
    }
}

/// A connection to a front end.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    input: Box<[u8; HEADER + MAX_PAYLOAD]>,
    have: usize,
    fds: Vec<Received>,
    closer: Closer,
    output: Vec<u8>,
    sent: usize,
    /// When the message that is coming in, or the reply that is going out, began.
    since: Option<Instant>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, closer: Closer) -> Self {
        Self {
            socket,
            input: Box::new([0; HEADER + MAX_PAYLOAD]),
            have: 0,
            fds: Vec::new(),
            closer,
            output: Vec::new(),
            sent: 0,
            since: None,
        }
    }

    /// What to wait for: while a reply is going out, nothing is read.
    pub(super) fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// When the front end will have been too slow, if it owes something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + DEADLINE)
    }

    /// Reads on; a message if one is whole. While a reply is going out, writes on instead.
    pub(super) fn proceed(&mut self) -> Result<Option<Message>, Closed> {
        if !self.output.is_empty() {
            self.send_on()?;
            return Ok(None);
        }
        loop {
            let want = self.want()?;
            if self.have == want {
                return Ok(Some(self.take_message()?));
            }
            if !self.receive_up_to(want)? {
                return Ok(None);
            }
        }
    }

    /// Starts writing a reply; what the socket does not take now goes out by [`Self::proceed`].
    pub(super) fn send(&mut self, reply: Vec<u8>) -> Result<(), Closed> {
        debug_assert!(self.output.is_empty(), "nothing is read before the last reply is out");
        (self.output, self.sent) = (reply, 0);
        self.since = Some(Instant::now());
        self.send_on()
    }

    /// Bytes of the message so far as is known: its header at first.
    fn want(&self) -> Result<usize, Malformed> {
        match Header::read_from_prefix(&self.input[..self.have]) {
            Ok((header, _)) => {
                check_header(&header)?;
                Ok(HEADER + header.size as usize)
            }
            Err(_) => Ok(HEADER),
        }
    }

    /// Receives up to where the input has `want` bytes; false if there is nothing for now. Every descriptor that comes
    /// along has an owner at once.
    fn receive_up_to(&mut self, want: usize) -> Result<bool, Closed> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [IoSliceMut::new(&mut self.input[self.have..want])];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(&self.socket, &mut iov, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(Errno::CONNRESET) => return Err(Closed::ByPeer),
            Err(e) => return Err(Closed::System(e)),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds.map(|fd| Received::new(fd, &self.closer)));
            }
        }
        let cut = received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC);
        if cut || self.fds.len() > MAX_FDS {
            return Err(Malformed::DescriptorsTruncated.into());
        }
        if received.bytes == 0 {
            return Err(Closed::ByPeer);
        }
        self.since.get_or_insert_with(Instant::now);
        self.have += received.bytes;
        Ok(true)
    }

    fn take_message(&mut self) -> Result<Message, Malformed> {
        let short = Malformed::PayloadSize { got: self.have, want: HEADER };
        let (header, _) = Header::read_from_prefix(&self.input[..self.have]).map_err(|_| short)?;
        let payload = self.input[HEADER..self.have].to_vec();
        (self.have, self.since) = (0, None);
        Ok(Message { header, payload, fds: std::mem::take(&mut self.fds) })
    }

    fn send_on(&mut self) -> Result<(), Closed> {
        while self.sent < self.output.len() {
            let iov = [IoSlice::new(&self.output[self.sent..])];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &iov, &mut SendAncillaryBuffer::default(), flags) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Closed::ByPeer),
                Err(e) => return Err(Closed::System(e)),
            }
        }
        self.output.clear();
        self.since = None;
        Ok(())
    }
}

impl Drop for Connection {
    /// Hangs up. What the front end sent and nobody read goes with the socket, descriptors included: where there is any, the
    /// last copy of the socket is closed elsewhere.
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
        if rustix::io::ioctl_fionread(&self.socket) != Ok(0)
            && let Ok(copy) = self.socket.try_clone()
        {
            self.closer.close(copy);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
