//! The device side of a ring as the specification tells it, one descriptor at a time and with no thought of speed: what the
//! driver is tested against.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod packed;
pub(crate) mod split;

use vhost::driver::{GuestRam, Queue, Span};
use vhost::wire::ring::DESC_F_WRITE;

/// One ring's device, of one format or the other.
pub(crate) trait Device: Send {
    /// The device of a ring in `ram`.
    fn of(queue: &Queue, ram: &GuestRam) -> Self;

    fn ram(&self) -> &GuestRam;

    /// The next chain, if there is one.
    fn take(&mut self) -> Option<Chain>;

    /// Returns a chain, with so many bytes written.
    fn give(&mut self, chain: &Chain, len: usize);

    /// Returns chains that were taken one after the other, by a word of the last one alone (IN_ORDER).
    fn give_batch(&mut self, chains: &[Chain]);

    /// Lets the driver see what was given; returns whether it wants a call for that.
    fn publish(&mut self) -> bool;

    /// All bytes of a chain that the device may read.
    fn read(&self, chain: &Chain) -> Vec<u8> {
        let readable = chain.pieces.iter().all(|piece| piece.flags & DESC_F_WRITE == 0);
        assert!(readable, "a writable piece on a transmit ring");
        self.content(chain)
    }

    /// All bytes of a chain, whatever it is for.
    fn content(&self, chain: &Chain) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in &chain.pieces {
            let mut bytes = vec![0; piece.len as usize];
            piece.span(self.ram()).read(0, &mut bytes);
            all.extend(bytes);
        }
        all
    }

    /// Writes as much of `bytes` into a chain as it holds; returns how much that was.
    fn write(&self, chain: &Chain, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in &chain.pieces {
            assert_ne!(piece.flags & DESC_F_WRITE, 0, "a read-only piece on a receive ring");
            let now = (piece.len as usize).min(bytes.len() - done);
            piece.span(self.ram()).write(0, &bytes[done..done + now]);
            done += now;
        }
        done
    }
}

/// A chain as the device read it.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// By which it is returned: a split ring's head, a packed ring's buffer id.
    pub(crate) id: u16,
    /// Descriptors of the ring.
    pub(crate) descs: u16,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) indirect: bool,
}

/// What a descriptor of either format says of its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
}

impl Piece {
    fn span(&self, ram: &GuestRam) -> Span {
        ram.span((self.addr - ram.region().gpa) as usize, self.len as usize)
    }
}
