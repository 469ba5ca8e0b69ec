//! Pass two: header and frame into the buffers that pass one found. Of the ring it has what gives buffers back, and works by
//! private copies: whatever the guest or a frame writes over a descriptor by now, nothing here reads it.
#![expect(unsafe_code, reason = "copies from mbufs into guest memory")]
// UNSAFETY: every guest pointer comes from pass one's translation, and no copy is longer than what was translated. The gate
// is held for the whole burst.

use core::ptr::NonNull;

use mbuf::{Mbuf, Offload, Stretch, foreign};
use pmd::offload::{OffloadSet, VirtioNetHdr, to_virtio_net};
use ring::prefetch;

use super::find::{Part, Plain, PlainList};
use crate::vring::MAX_FRAME;
use crate::vring::format::Used;
use crate::wire::net;

/// A packet that is longer has its buffer's lines asked for one by one; the first two are, of every buffer.
const LONG: usize = 256;
/// Packets from the one that is written to the one whose lines are asked for.
const AHEAD: usize = 2;
/// Most bytes of a buffer that are asked for: more would push out what is wanted sooner.
const MOST_AHEAD: usize = 2048;

/// Where a burst's second pass stands.
pub(super) struct Writer {
    pub(super) hdr_len: usize,
    pub(super) accepted: OffloadSet,
    /// Buffers filled, and not published yet.
    pub(super) filled: usize,
}

impl Writer {
    /// One packet into the first of `plain`, the plain buffers that are left, and takes it out of the list; false, and nothing
    /// done, if it does not fit.
    #[inline(always)]
    pub(super) fn put_plain<U: Used>(
        &mut self,
        ring: &mut U,
        mbuf: &Mbuf<'_>,
        plain: &mut PlainList<'_>,
    ) -> bool {
        let Some(first) = plain.0.as_slice().first() else { return false };
        let len = mbuf.len();
        if self.hdr_len + len > first.len as usize || len > MAX_FRAME {
            return false;
        }
        if len > LONG {
            ask_for(plain.0.as_slice().get(AHEAD), len);
        }
        plain.0.next();
        // SAFETY: header and packet are not longer than the buffer, of which all was translated.
        let written = unsafe { self.put(mbuf, first.start) };
        ring.stage(self.filled, first.buffer, written);
        self.filled += 1;
        true
    }

    /// Writes header and packet from `to` on; returns how many bytes.
    ///
    /// # Safety
    /// `to` is translated guest memory for as many bytes as both have.
    #[inline(always)]
    unsafe fn put(&self, mbuf: &Mbuf<'_>, to: NonNull<u8>) -> u32 {
        let (hdr_len, data, to) = (self.hdr_len, mbuf.data(), to.as_ptr());
        let mut at = hdr_len + data.len();
        // SAFETY: by contract; the pieces together are as long as the packet.
        unsafe {
            self.put_header(mbuf.offload(), to);
            foreign::copy(to.add(hdr_len), data.as_ptr(), data.len());
            if at < hdr_len + mbuf.len() {
                for more in mbuf.segments().skip(1) {
                    foreign::copy(to.add(at), more.as_ptr(), more.len());
                    at += more.len();
                }
                for more in mbuf.tail() {
                    foreign::copy(to.add(at), more.start().as_ptr(), more.len());
                    at += more.len();
                }
            }
        }
        at as u32
    }

    /// Writes the header of a packet that takes one buffer, in whole words: nothing reads them back in other pieces. Mostly it
    /// is what stands there from the last packet.
    ///
    /// # Safety
    /// The guest's header goes to `to`, which is translated.
    #[inline(always)]
    unsafe fn put_header(&self, offload: &Offload, to: *mut u8) {
        let (head, rest) = if offload.is_blank() {
            (0, 0)
        } else {
            let bytes = to_virtio_net(offload, self.accepted).to_le_bytes();
            let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
            (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u16::from_le_bytes(rest))
        };
        // SAFETY: as many bytes as the header has, by contract.
        unsafe {
            foreign::update_u64(to, head);
            if self.hdr_len == net::HDR_LEN {
                foreign::update_u32(to.add(8), u32::from(rest) | 1 << 16);
            } else {
                foreign::update_u16(to.add(8), rest);
            }
        }
    }

    /// One packet over `pieces`, which are the buffers of `parts`.
    #[cold]
    pub(super) fn put_scattered<U: Used>(
        &mut self,
        ring: &mut U,
        mbuf: &Mbuf<'_>,
        (parts, pieces): (&[Part], &[Stretch]),
    ) {
        let header = header(mbuf.offload(), parts.len() as u16, self.accepted);
        let mut to = Scatter { pieces, offset: 0 };
        to.put(header.as_ptr(), self.hdr_len);
        for segment in mbuf.segments() {
            to.put(segment.as_ptr(), segment.len());
        }
        for segment in mbuf.tail() {
            to.put(segment.start().as_ptr(), segment.len());
        }
        for part in parts {
            ring.stage(self.filled, part.buffer, part.len);
            self.filled += 1;
        }
    }
}

/// Has a buffer's first two lines brought here. One that has nothing but the header in it, as with drivers that align
/// frames, mostly stays as it is ([`foreign::update_u64`]): it may stay with the guest, too.
#[inline(always)]
pub(super) fn ask_for_start(buffer: *const u8, hdr_len: usize) {
    if (buffer.addr() + hdr_len).is_multiple_of(64) {
        prefetch::for_reading(buffer);
    } else {
        prefetch::for_writing(buffer);
    }
    prefetch::for_writing(buffer.wrapping_add(64));
}

/// Has a buffer's lines brought here that a packet will be written to which is, most likely, as long as this one.
fn ask_for(plain: Option<&Plain>, len: usize) {
    if let Some(plain) = plain {
        let end = len.min(plain.len as usize).min(MOST_AHEAD);
        (128..end).step_by(64).for_each(|at| prefetch::for_writing(plain.start.as_ptr().wrapping_add(at)));
    }
}

/// The virtio-net header, with the number of buffers that the packet takes.
#[inline(always)]
fn header(offload: &Offload, buffers: u16, accepted: OffloadSet) -> [u8; net::HDR_LEN] {
    let mut bytes = [0; net::HDR_LEN];
    if *offload != Offload::NONE {
        bytes[..VirtioNetHdr::LEN].copy_from_slice(&to_virtio_net(offload, accepted).to_le_bytes());
    }
    bytes[net::NUM_BUFFERS_OFFSET..].copy_from_slice(&buffers.to_le_bytes());
    bytes
}

/// Writes bytes one after the other over a list of pieces.
struct Scatter<'p> {
    pieces: &'p [Stretch],
    /// Where the first piece's room starts.
    offset: usize,
}

impl Scatter<'_> {
    /// Writes `len` bytes from `src`, which must be readable. What has no room is left out: the caller saw to it.
    fn put(&mut self, mut src: *const u8, mut len: usize) {
        while len > 0 {
            let Some(piece) = self.pieces.first() else { return };
            let n = len.min(piece.len() - self.offset);
            // SAFETY: n bytes of a translated, writable piece; `src` is readable for `len` by contract.
            unsafe {
                foreign::copy(piece.start().as_ptr().add(self.offset), src, n);
                src = src.add(n);
            }
            len -= n;
            self.offset += n;
            if self.offset == piece.len() {
                (self.pieces, self.offset) = (&self.pieces[1..], 0);
            }
        }
    }
}
