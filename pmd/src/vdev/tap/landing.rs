//! Where a frame lands whose length is not known beforehand: enough mbufs in a row for the longest.

use std::io::IoSliceMut;

use mbuf::{Burst, MAX_BURST, Mbuf, Mempool, NoMbufs};

use crate::vdev::frame::MAX_FRAME;

/// Most pieces that one read is scattered over, the header's included.
pub(crate) const MAX_PIECES: usize = 64;

/// The mbufs. Those that a frame did not need wait for the next.
#[derive(Debug)]
pub(crate) struct Landing {
    pool: &'static Mempool,
    port: u16,
    /// Each is filled with whatever stands in it; the last is the one a frame's start goes to.
    spare: Vec<Mbuf<'static>>,
    wanted: usize,
}

impl Landing {
    /// Rooms for frames of [`MAX_FRAME`] bytes, or of what `MAX_PIECES - 1` mbufs of the pool hold if that is less.
    pub(crate) fn new(pool: &'static Mempool, port: u16) -> Self {
        let wanted = (MAX_FRAME + 1).div_ceil(pool.data_room()).min(MAX_PIECES - 1);
        Self { pool, port, spare: Vec::with_capacity(wanted), wanted }
    }

    /// Tops it up.
    pub(crate) fn refill(&mut self) -> Result<(), NoMbufs> {
        while self.spare.len() < self.wanted {
            let mut fresh = Burst::new();
            self.pool.alloc_bulk(&mut fresh, (self.wanted - self.spare.len()).min(MAX_BURST), self.port)?;
            self.spare.extend(fresh.drain().map(|mut mbuf| {
                mbuf.set_filled(0, mbuf.tailroom());
                mbuf
            }));
        }
        Ok(())
    }

    /// Lists `header` and the rooms in `pieces`, in the order in which they fill; returns how many.
    pub(crate) fn pieces<'a>(
        &'a mut self,
        header: &'a mut [u8],
        pieces: &mut [IoSliceMut<'a>; MAX_PIECES],
    ) -> usize {
        pieces[0] = IoSliceMut::new(header);
        let rooms = self.spare.iter_mut().rev().filter_map(Mbuf::data_mut);
        let listed = pieces[1..].iter_mut().zip(rooms).map(|(piece, room)| *piece = IoSliceMut::new(room));
        1 + listed.count()
    }

    /// Bytes of the longest frame for which there is room now, and of one more to know longer ones by.
    pub(crate) fn capacity(&self) -> usize {
        // All of one pool, so all alike.
        self.spare.last().map_or(0, Mbuf::len) * self.spare.len()
    }

    /// The packet of `len` bytes that has landed; `None` if there was no room for so many.
    pub(crate) fn take(&mut self, len: usize) -> Option<Mbuf<'static>> {
        let mut packet = self.take_piece(len)?;
        packet.set_port(self.port);
        while packet.len() < len {
            let more = self.take_piece(len - packet.len())?;
            packet.chain(more).ok()?;
        }
        Some(packet)
    }

    fn take_piece(&mut self, len: usize) -> Option<Mbuf<'static>> {
        let mut piece = self.spare.pop()?;
        piece.set_filled(0, len.min(piece.len()));
        Some(piece)
    }
}
