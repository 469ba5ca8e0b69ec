//! One message as it came in: whole, its header checked, its descriptors owned. And the replies.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::received::Received;
use super::trouble::{Malformed, Refusal, Trouble};
use crate::wire::message::{Header, MAX_PAYLOAD, Request, VringState, flags, vring_fd};

/// A request. What descriptors a handler does not take go with it, closed as [`Received`] says.
#[derive(Debug)]
pub(crate) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<Received>,
}

impl Message {
    /// The payload as a `T`, and not a byte more; no descriptors.
    pub(super) fn payload<T: FromBytes>(&self) -> Result<T, Malformed> {
        self.no_fds()?;
        self.payload_beside_fds()
    }

    /// The payload as a `T`; descriptors are somebody else's business.
    pub(super) fn payload_beside_fds<T: FromBytes>(&self) -> Result<T, Malformed> {
        let size = Malformed::PayloadSize { got: self.payload.len(), want: size_of::<T>() };
        T::read_from_bytes(&self.payload).map_err(|_| size)
    }

    /// A `T` at the payload's front, and what follows it.
    pub(super) fn payload_head<T: FromBytes>(&self) -> Result<(T, &[u8]), Malformed> {
        let size = Malformed::PayloadSize { got: self.payload.len(), want: size_of::<T>() };
        T::read_from_prefix(&self.payload).map_err(|_| size)
    }

    /// No payload, no descriptors.
    pub(super) fn empty(&self) -> Result<(), Malformed> {
        self.no_fds()?;
        self.no_payload()
    }

    pub(super) fn no_payload(&self) -> Result<(), Malformed> {
        match self.payload.len() {
            0 => Ok(()),
            got => Err(Malformed::PayloadSize { got, want: 0 }),
        }
    }

    pub(super) fn no_fds(&self) -> Result<(), Malformed> {
        match self.fds.len() {
            0 => Ok(()),
            got => Err(Malformed::Descriptors { got, want: 0 }),
        }
    }

    /// Takes the one descriptor that came along.
    pub(super) fn one_fd(&mut self) -> Result<Received, Malformed> {
        let fds: [Received; 1] = std::mem::take(&mut self.fds)
            .try_into()
            .map_err(|fds: Vec<_>| Malformed::Descriptors { got: fds.len(), want: 1 })?;
        let [fd] = fds;
        Ok(fd)
    }

    /// SET_VRING_KICK and its like: the ring's number, not checked yet, and the descriptor unless the message says none.
    pub(super) fn vring_fd(&mut self) -> Result<(u64, Option<Received>), Trouble> {
        let value: u64 = self.payload_beside_fds()?;
        let fd = if value & vring_fd::NO_FD == 0 {
            Some(self.one_fd()?)
        } else {
            self.no_fds()?;
            None
        };
        if value & !(vring_fd::INDEX_MASK | vring_fd::NO_FD) != 0 {
            return Err(Refusal::Value(value).into());
        }
        Ok((value & vring_fd::INDEX_MASK, fd))
    }
}

/// Checks what every header must obey, before a byte of payload is read.
pub(super) fn check_header(header: &Header) -> Result<(), Malformed> {
    let version = header.flags & flags::VERSION_MASK;
    if version != flags::VERSION {
        return Err(Malformed::Version(version));
    }
    if header.flags & flags::REPLY != 0 {
        return Err(Malformed::Reply);
    }
    if header.size as usize > MAX_PAYLOAD {
        return Err(Malformed::PayloadTooLong { got: header.size });
    }
    Ok(())
}

/// What a handler answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// All went well; said only if the front end asked.
    Done,
    /// The request's own reply.
    U64(u64),
    /// The request's own reply.
    State(VringState),
    /// The request's own reply.
    Bytes(Vec<u8>),
}

/// A reply's bytes for the wire.
pub(super) fn encode<T: IntoBytes + Immutable + KnownLayout + ?Sized>(request: u32, payload: &T) -> Vec<u8> {
    let size = payload.as_bytes().len() as u32;
    let header = Header { request, flags: flags::VERSION | flags::REPLY, size };
    [header.as_bytes(), payload.as_bytes()].concat()
}

/// Whether a `u64` would be mistaken for this request's own reply, or break it: it cannot be refused politely.
pub(super) const fn has_own_reply(request: Request) -> bool {
    use Request as R;
    matches!(
        request,
        R::GetVringBase
            | R::GetConfig
            | R::GetInflightFd
            | R::GetSharedObject
            | R::CreateCryptoSession
            | R::PostcopyAdvise
    )
}
