//! Ringing a front end's eventfd without ever waiting.
//!
//! A write to an eventfd waits while its counter is full, unless the descriptor is non-blocking; and as descriptor flags
//! belong to the open file, the front end that gave us the eventfd can fill the counter and clear the flag at any moment,
//! also between our look and our write (C14). One front end could so stop an lcore, and everybody's packets.
//!
//! The kernel itself never waits when it signals an eventfd. So we let it: an asynchronous read of nothing from /dev/null,
//! with the eventfd named to be told of its completion (io_submit(2), IOCB_FLAG_RESFD). The read completes at once,
//! inside the call. One context for each thread, as the system has few of them; where none is to be had the descriptor is
//! written to, which is then only as safe as its non-blocking flag.
#![expect(unsafe_code, reason = "the kernel's asynchronous I/O has no safe wrapper")]
// UNSAFETY: three system calls on structures whose layout linux/aio_abi.h fixes, and the head of the completion ring that
// the kernel maps at the context's address for this thread alone.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::LazyLock;

/// IOCB_CMD_PREAD
const CMD_PREAD: u16 = 0;
/// IOCB_FLAG_RESFD
const FLAG_RESFD: u32 = 1;
/// What the kernel writes to say that its completion ring has the layout below.
const RING_MAGIC: u32 = 0xa10a_10a1;

/// `struct iocb` of linux/aio_abi.h, little-endian.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

const _: () = assert!(size_of::<Iocb>() == 64);

/// The head of `struct aio_ring` (fs/aio.c).
#[repr(C)]
struct CompletionRing {
    id: u32,
    events: u32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: u32,
}

/// A thread's context.
struct Bell {
    ring: NonNull<CompletionRing>,
    nothing: &'static File,
}

/// /dev/null, opened once for all threads.
static NOTHING: LazyLock<Option<File>> = LazyLock::new(|| File::open("/dev/null").ok());

thread_local! {
    static BELL: Option<Bell> = Bell::new();
}

/// Adds 1 to `eventfd`'s counter, or leaves a full one as it is. Never waits. The first call of a thread sets up its context.
pub(super) fn ring(eventfd: BorrowedFd<'_>) {
    let rung = BELL.try_with(|bell| bell.as_ref().is_some_and(|b| b.ring(eventfd)));
    if !rung.unwrap_or(false) {
        let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
    }
}

impl Bell {
    fn new() -> Option<Self> {
        let nothing = NOTHING.as_ref()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: asks for a context of a few requests; its number is written to `context`.
        if unsafe { libc::syscall(libc::SYS_io_setup, 8, &raw mut context) } != 0 {
            return None;
        }
        // The context's number is the address where its completion ring is mapped.
        let ring = NonNull::new(core::ptr::with_exposed_provenance_mut::<CompletionRing>(context as usize))?;
        let bell = Self { ring, nothing };
        // SAFETY: mapped by the kernel until the context is destroyed.
        (unsafe { (&raw const (*ring.as_ptr()).magic).read() } == RING_MAGIC).then_some(bell)
    }

    fn ring(&self, eventfd: BorrowedFd<'_>) -> bool {
        self.forget_completions();
        let mut iocb = Iocb {
            opcode: CMD_PREAD,
            fd: self.nothing.as_raw_fd() as u32,
            flags: FLAG_RESFD,
            resfd: eventfd.as_raw_fd() as u32,
            ..Iocb::default()
        };
        let list = [&raw mut iocb];
        // SAFETY: one request, read by the kernel during the call; it reads no byte into memory.
        unsafe { libc::syscall(libc::SYS_io_submit, self.ring.as_ptr().addr(), 1, list.as_ptr()) == 1 }
    }

    /// Makes room in the completion ring: nobody wants to know how reading nothing went.
    fn forget_completions(&self) {
        // SAFETY: mapped as long as the bell lives; this thread is its one reader, the kernel its one writer.
        let (head, tail) = unsafe { (&(*self.ring.as_ptr()).head, &(*self.ring.as_ptr()).tail) };
        // ORDERING: Acquire and Release pair with the kernel's own accesses to head and tail of the completion ring.
        head.store(tail.load(Ordering::Acquire), Ordering::Release);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the context that `new` made; nothing is in flight, as every request completes inside its call.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.ring.as_ptr().addr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn count(fd: BorrowedFd<'_>) -> u64 {
        let mut bytes = [0u8; 8];
        rustix::io::read(fd, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn each_ring_counts() {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        for _ in 0..1000 {
            ring(fd.as_fd());
        }
        assert_eq!(count(fd.as_fd()), 1000);
        assert!(BELL.with(Option::is_some), "this kernel has contexts to give");
    }

    #[test]
    fn c14_a_full_counter_on_a_blocking_descriptor() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let start = Instant::now();
        for _ in 0..100 {
            ring(fd.as_fd());
        }
        assert!(start.elapsed() < Duration::from_secs(1), "a write would wait for ever");
    }
}
