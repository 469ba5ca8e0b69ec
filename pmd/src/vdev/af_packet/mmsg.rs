//! recvmmsg(2) and sendmmsg(2) for packet sockets: a burst in one system call.
#![expect(unsafe_code, reason = "the calls take arrays of structures full of pointers")]
// UNSAFETY: all structures live on the stack of the one function that fills them in and makes the call; every pointer in
// them is to memory that the function's arguments lend it for longer than that.

use std::os::fd::{AsRawFd, BorrowedFd};

use mbuf::{MAX_BURST, Mbuf};
use rustix::io::Errno;

use crate::offload::VirtioNetHdr;

/// Pieces of all packets together that one call sends.
const MAX_PIECES: usize = 512;
/// Room for one `tpacket_auxdata` (20 bytes) with its control header, in words.
const CONTROL_WORDS: usize = 6;

/// Where one frame is to land: its virtio-net header, its first bytes, and the rest of it.
pub(crate) struct Slot<'a> {
    pub(crate) header: &'a mut [u8; VirtioNetHdr::LEN],
    pub(crate) first: &'a mut [u8],
    pub(crate) rest: &'a mut [u8],
}

/// What landed in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Landed {
    /// Bytes of the frame, without its virtio-net header.
    pub(crate) len: usize,
    /// It was longer than the slot.
    pub(crate) truncated: bool,
    /// The VLAN tag that the kernel has taken out of it: TPID and TCI.
    pub(crate) tag: Option<(u16, u16)>,
}

/// Receives frames into the first 32 of `slots`, as many as there are now; returns how many.
pub(crate) fn receive<'a>(
    fd: BorrowedFd<'_>,
    slots: impl Iterator<Item = Slot<'a>>,
    landed: &mut [Landed; MAX_BURST],
) -> Result<usize, Errno> {
    // SAFETY: plain numbers and pointers: all zero (null) is a value of each.
    let mut pieces: [[libc::iovec; 3]; MAX_BURST] = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; MAX_BURST] = unsafe { core::mem::zeroed() };
    let mut controls = [[0u64; CONTROL_WORDS]; MAX_BURST];
    let mut count = 0;
    for (((slot, piece), message), control) in slots.zip(&mut pieces).zip(&mut messages).zip(&mut controls) {
        count += 1;
        *piece = [room(slot.header), room(slot.first), room(slot.rest)];
        message.msg_hdr.msg_iov = piece.as_mut_ptr();
        message.msg_hdr.msg_iovlen = piece.len() as _;
        message.msg_hdr.msg_control = control.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = size_of_val(control) as _;
    }
    // SAFETY: the first `count` messages are filled in; their pieces name rooms lent by the slots for 'a, exclusively, and their
    // controls the array above. The kernel writes within the lengths given. No timeout.
    let n = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count as _,
            libc::MSG_DONTWAIT as _,
            core::ptr::null_mut(),
        )
    };
    let n = usize::try_from(n).map_err(|_| last_error())?;
    for (to, message) in landed.iter_mut().zip(&messages[..n]) {
        *to = Landed {
            len: (message.msg_len as usize).saturating_sub(VirtioNetHdr::LEN),
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            tag: tag(&message.msg_hdr),
        };
    }
    Ok(n)
}

fn room(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// The VLAN tag out of a received message's PACKET_AUXDATA.
fn tag(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: the kernel has filled in the control buffer and set its length; it is aligned to 8 and still there.
    let first = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    let len = size_of::<libc::tpacket_auxdata>();
    // SAFETY: computes a length, no memory is touched.
    let enough = first.cmsg_len as usize >= unsafe { libc::CMSG_LEN(len as _) } as usize;
    if first.cmsg_level != libc::SOL_PACKET || first.cmsg_type != libc::PACKET_AUXDATA || !enough {
        return None;
    }
    // SAFETY: the control message is one of auxiliary data, and holds all of it.
    let aux = unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let named = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    Some((if named { aux.tp_vlan_tpid } else { 0x8100 }, aux.tp_vlan_tci))
}

/// Sends packets without tails, each behind its header, from the front; returns how many the kernel took. A packet in
/// too many pieces for one call is E2BIG.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    packets: &[Mbuf<'static>],
    headers: &[[u8; VirtioNetHdr::LEN]; MAX_BURST],
) -> Result<usize, Errno> {
    // SAFETY: plain numbers and pointers: all zero (null) is a value of each.
    let mut pieces: [libc::iovec; MAX_PIECES] = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; MAX_BURST] = unsafe { core::mem::zeroed() };
    let (mut used, mut count) = (0, 0);
    for (packet, header) in packets.iter().zip(headers) {
        debug_assert!(!packet.has_tail());
        let parts = 1 + packet.segment_count();
        let Some(own) = pieces.get_mut(used..used + parts) else { break };
        let bytes = core::iter::once(&header[..]).chain(packet.segments());
        own.iter_mut().zip(bytes).for_each(|(piece, bytes)| *piece = readable(bytes));
        messages[count].msg_hdr.msg_iov = own.as_mut_ptr();
        messages[count].msg_hdr.msg_iovlen = parts as _;
        used += parts;
        count += 1;
    }
    if count == 0 {
        return if packets.is_empty() { Ok(0) } else { Err(Errno::TOOBIG) };
    }
    // SAFETY: the first `count` messages are filled in; their pieces name bytes that `packets` and `headers` lend, which
    // the kernel only reads.
    let n =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count as _, libc::MSG_DONTWAIT as _) };
    usize::try_from(n).map_err(|_| last_error())
}

fn readable(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn last_error() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
