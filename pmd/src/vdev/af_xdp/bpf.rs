//! bpf(2): the four of its commands that a redirecting program takes. Layouts as in the kernel's uapi/linux/bpf.h.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper, and takes structures full of addresses")]
// UNSAFETY: one system call, in `bpf`, with a structure of ours and its size. What addresses stand in it, the caller of each
// command lends for the call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;

const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// The program can take frames in several buffers.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const _: () = assert!(size_of::<MapCreate>() == 20 && size_of::<MapUpdate>() == 32);
const _: () = assert!(size_of::<ProgLoad>() == 72 && size_of::<LinkCreate>() == 16);

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes, all of the structure; the addresses in it are lent by the caller.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attributes), size_of::<T>() as libc::c_uint)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}

/// A descriptor that the command has just made.
fn descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A map from queue numbers below `queues` to AF_XDP sockets.
pub(crate) fn create_socket_map(queues: u32) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: queues,
        map_flags: 0,
    };
    descriptor(BPF_MAP_CREATE, &attributes)
}

/// Puts a socket into a map. It leaves the map when it is closed.
pub(crate) fn put_socket(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd() as u32;
    let attributes = MapUpdate {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const queue).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(|_| ())
}

/// Loads an XDP program. `frags`: also for frames in several buffers (Linux 5.18).
pub(crate) fn load_program(instructions: &[u64], frags: bool) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..6].copy_from_slice(b"polder");
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr().addr() as u64,
        license: c"Apache-2.0 OR MIT".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: if frags { BPF_F_XDP_HAS_FRAGS } else { 0 },
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: BPF_XDP,
    };
    descriptor(BPF_PROG_LOAD, &attributes)
}

/// Attaches a program to interface `index`, for as long as the link that it returns is open.
pub(crate) fn link_to_interface(program: BorrowedFd<'_>, index: u32, flags: u32) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: index,
        attach_type: BPF_XDP,
        flags,
    };
    descriptor(BPF_LINK_CREATE, &attributes)
}
