//! Signals a peer's eventfd without ever waiting: what calls a guest.
//!
//! A write to an eventfd waits while its counter is full, unless the descriptor is non-blocking; and as descriptor flags
//! belong to the open file, the front end that gave us the eventfd can fill the counter and clear the flag at any moment,
//! also between our look and our write (C14). One front end could so stop an lcore, and everybody's packets.
//!
//! The kernel itself never waits when it signals an eventfd. So we let it: an asynchronous read of nothing from /dev/null,
//! with the eventfd named to be told of its completion (io_submit(2), IOCB_FLAG_RESFD). The read completes at once,
//! inside the call. It still walks the eventfd's wait queue, which may be long: time it, and do it elsewhere.
//!
//! A context for this is made before it is needed, and never replaced by a write. A data thread has its own
//! ([`prepare_thread`]) and shares nothing with anybody; control threads, of which there are thousands, share the process's
//! ([`prepare_process`]). The kernel holds no lock of the context while it signals, so that one thread's long call keeps no
//! other waiting.
#![expect(unsafe_code, reason = "the kernel's asynchronous I/O has no safe wrapper")]
// UNSAFETY: three system calls on structures whose layout linux/aio_abi.h fixes, and the head of the completion ring that
// the kernel maps at the context's address.

use core::cell::OnceCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};

/// IOCB_CMD_PREAD
const CMD_PREAD: u16 = 0;
/// IOCB_FLAG_RESFD
const FLAG_RESFD: u32 = 1;
/// What the kernel writes to say that its completion ring has the layout below.
const RING_MAGIC: u32 = 0xa10a_10a1;
/// Requests of a thread's own context: one at a time. The kernel counts them against fs.aio-max-nr.
const OF_A_THREAD: u32 = 1;
/// Requests of the process's context: so many control threads can be inside of a call at a time. A peer occupies one, that
/// of its own port; who finds none gets an error and tries again.
const OF_THE_PROCESS: u32 = 1024;
// Others want some of the 65,536 that fs.aio-max-nr is by default, too.
const _: () = assert!(OF_THE_PROCESS + mbuf::MAX_LCORES as u32 * OF_A_THREAD <= 65_536 / 32);

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

/// Why eventfds cannot be signalled. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// There is nothing to read nothing from.
    #[error(
        "cannot open /dev/null, which calls to guests need: {0}; have the device there, or raise the limit of open files (ulimit -n)"
    )]
    Null(io::Error),
    /// io_setup(2) failed.
    #[error("cannot make a context for calls to guests (io_setup): {source}; {}", advice(.source))]
    Context {
        /// What the system said.
        source: io::Error,
    },
    /// The context was made and does not work.
    #[error("cannot call guests by the kernel's asynchronous I/O (io_submit): {source}; {}", advice(.source))]
    Trial {
        /// What the system said.
        source: io::Error,
    },
    /// The completion ring is not laid out as Linux has it since 2.6.
    #[error(
        "the kernel's completion ring has the unknown magic {0:#x}: calls to guests need Linux's own io_setup"
    )]
    Layout(u32),
}

/// What an operator can do about an error of io_setup or io_submit.
fn advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            let [used, most] = ["nr", "max-nr"].map(|name| {
                std::fs::read_to_string(format!("/proc/sys/fs/aio-{name}"))
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            });
            format!(
                "the system's asynchronous requests are used up (fs.aio-nr {used} of fs.aio-max-nr {most}): raise the \
                 limit with 'sysctl fs.aio-max-nr=1048576'"
            )
        }
        Some(libc::ENOSYS) => {
            "the kernel was built without CONFIG_AIO, or a container's filter hides it: use one that has it"
                .into()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a seccomp filter forbids it: allow io_setup, io_submit and io_destroy".into()
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the limit of open files (ulimit -n, sysctl fs.file-max)".into()
        }
        _ => "see io_setup(2)".into(),
    }
}

thread_local! {
    static OWN: OnceCell<Context> = const { OnceCell::new() };
}

static PROCESS: OnceLock<Context> = OnceLock::new();

/// Gives the calling thread a context of its own, until it ends. For a data thread, before its first packet. Again: nothing.
///
/// # Errors
/// [`NotifyError`]; a later call tries again.
pub fn prepare_thread() -> Result<(), NotifyError> {
    OWN.with(|own| {
        if own.get().is_none() {
            // Nobody else can have set it meanwhile: it is this thread's.
            let _ = own.set(Context::new(OF_A_THREAD)?);
        }
        Ok(())
    })
}

/// Makes the process's context, for all threads without their own. Before the first of them signals. Again: nothing.
///
/// # Errors
/// [`NotifyError`]; a later call tries again.
pub fn prepare_process() -> Result<(), NotifyError> {
    if PROCESS.get().is_none() {
        // If another thread was quicker, one of the two is dropped.
        let _ = PROCESS.set(Context::new(OF_THE_PROCESS)?);
    }
    Ok(())
}

/// Adds 1 to `eventfd`'s counter, or leaves a full one as it is. Never waits for anybody; takes as long as the eventfd's wait
/// queue is (0.1 us for each entry).
///
/// # Errors
/// What io_submit(2) said; then nobody was signalled. ENXIO where nothing was prepared.
pub fn signal(eventfd: BorrowedFd<'_>) -> io::Result<()> {
    // While a thread ends its context may be gone already.
    let own = OWN.try_with(|own| own.get().map(|context| context.signal(eventfd)));
    let process = || PROCESS.get().map(|context| context.signal(eventfd));
    own.ok().flatten().or_else(process).unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::ENXIO)))
}

/// /dev/null, opened once.
fn nothing() -> Result<&'static File, NotifyError> {
    static NOTHING: OnceLock<File> = OnceLock::new();
    if let Some(file) = NOTHING.get() {
        return Ok(file);
    }
    let file = File::open("/dev/null").map_err(NotifyError::Null)?;
    Ok(NOTHING.get_or_init(|| file))
}

/// A context of the kernel's asynchronous I/O.
#[derive(Debug)]
struct Context {
    ring: NonNull<CompletionRing>,
    nothing: &'static File,
}

// SAFETY: the pointer is the number of a context, which is the process's and not a thread's; what it points to are atomics.
unsafe impl Send for Context {}
// SAFETY: the kernel takes calls on a context from several threads at once; we touch the completion ring by atomics alone.
unsafe impl Sync for Context {}

impl Context {
    /// One that was seen to work.
    fn new(requests: u32) -> Result<Self, NotifyError> {
        let nothing = nothing()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: asks for a context of a few requests; its number is written to `context`.
        if unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut context) } != 0 {
            return Err(NotifyError::Context { source: io::Error::last_os_error() });
        }
        // The context's number is the address where its completion ring is mapped, which is never 0.
        let ring = NonNull::new(core::ptr::with_exposed_provenance_mut::<CompletionRing>(context as usize))
            .ok_or(NotifyError::Layout(0))?;
        let context = Self { ring, nothing };
        // SAFETY: mapped by the kernel until the context is destroyed.
        let magic = unsafe { (&raw const (*ring.as_ptr()).magic).read() };
        if magic != RING_MAGIC {
            return Err(NotifyError::Layout(magic));
        }
        context.try_it().map_err(|source| NotifyError::Trial { source })?;
        Ok(context)
    }

    /// A filter may let contexts be made and not be used: better known now than at a guest's first packet.
    fn try_it(&self) -> io::Result<()> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        self.signal(event.as_fd())?;
        rustix::io::read(&event, &mut [0u8; 8])?;
        Ok(())
    }

    fn signal(&self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
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
        match unsafe { libc::syscall(libc::SYS_io_submit, self.ring.as_ptr().addr(), 1, list.as_ptr()) } {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes room in the completion ring: nobody wants to know how reading nothing went. If several threads do it at once, one
    /// of them does it.
    fn forget_completions(&self) {
        // SAFETY: mapped as long as the context lives, and atomics.
        let (head, tail) = unsafe { (&(*self.ring.as_ptr()).head, &(*self.ring.as_ptr()).tail) };
        // ORDERING: Acquire and Release pair with the kernel's own accesses to head and tail of the completion ring.
        let (from, to) = (head.load(Ordering::Relaxed), tail.load(Ordering::Acquire));
        let _ = head.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context that `new` made; nothing is in flight, as every request completes inside its call.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.ring.as_ptr().addr()) };
    }
}

#[cfg(test)]
mod tests;
