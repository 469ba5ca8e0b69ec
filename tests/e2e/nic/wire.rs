//! The far end of a card's wire: QEMU's `stream` netdev, each frame behind its length (four bytes, big endian).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::deadline::{secs, wait_for};
use crate::undo::{next_number, run_dir};

/// A wire whose card is not there yet.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    pub(crate) fn new() -> Self {
        let path = run_dir().join(format!("wire-{}", next_number()));
        let listener = UnixListener::bind(&path).expect("listen for a wire");
        Self { listener, path }
    }

    /// The netdev for the card, without its id.
    pub(crate) fn netdev(&self) -> String {
        format!("stream,server=off,addr.type=unix,addr.path={}", self.path.display())
    }

    /// QEMU connects before it starts the machine.
    pub(crate) fn connect(self) -> Wire {
        self.listener.set_nonblocking(true).expect("a socket");
        let (stream, _) = wait_for("QEMU to connect a wire", secs(20), || self.listener.accept().ok());
        stream.set_nonblocking(false).expect("a socket");
        stream.set_write_timeout(Some(secs(20))).expect("set a time-out");
        Wire { stream, received: Vec::new() }
    }
}

pub(crate) struct Wire {
    stream: UnixStream,
    /// Bytes that came; whole frames are taken from the front.
    received: Vec<u8>,
}

impl Wire {
    /// Sends all these frames; waits while the card takes none.
    pub(crate) fn send<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) {
        let mut bytes = Vec::new();
        for frame in frames {
            let length = u32::try_from(frame.len()).expect("a frame is short");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        self.stream.write_all(&bytes).expect("write to a wire");
    }

    /// Waits up to `limit` for frames, and gives each to `take`.
    pub(crate) fn receive(&mut self, limit: Duration, mut take: impl FnMut(&[u8])) {
        self.stream.set_read_timeout(Some(limit)).expect("set a time-out");
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(0) => panic!("QEMU closed the wire"),
            Ok(n) => self.received.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            Err(e) => panic!("read from a wire: {e}"),
        }
        let mut rest = &self.received[..];
        while let Some((frame, behind)) = split_frame(rest) {
            take(frame);
            rest = behind;
        }
        self.received.drain(..self.received.len() - rest.len());
    }

    /// Throws away what came.
    pub(crate) fn drain(&mut self) {
        self.receive(Duration::from_millis(1), |_| {});
    }
}

/// The first whole frame, and what stands behind it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}
