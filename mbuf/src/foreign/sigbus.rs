//! The process's SIGBUS handler: a page that somebody else took away costs its owner's port, not the process.
//!
//! Whoever shares a memfd with us can shrink it; a hugepage may not be had when a hole is touched again; memory can
//! fail. The next access then raises SIGBUS on the thread that made it. The handler looks the address up among the
//! registered ranges; if it is there, it sets the range's `gone` flag, puts anonymous zero pages in place of what is
//! lost, and returns: the access is done again and goes on. A fault anywhere else is passed on to whoever handled SIGBUS
//! before, by default death.
//!
//! # Why zero pages and not a table of recovery addresses
//! A table (OpenVMM's `trycopy`) turns the fault into an error at the access, and every access to foreign memory must be
//! one of a few assembly primitives with a branch behind it. Zero pages cost the accesses nothing, work for atomics and for
//! any copy routine, and do not hide the fault as long as one rule is kept: **ask the flag once per burst, after the last
//! read and before anything made of it is published** ([`Watch::is_gone`](super::Watch::is_gone)). What was read in
//! between is zeroes, which is one more thing that a hostile guest could have written.
//!
//! # How much is replaced
//! From the page that faulted to the range's end. A file that was shrunk has nothing there, so that this is one fault for
//! all of it and there is nothing to tear down. Replacing the whole range would tear down what the process has in its
//! page table of the rest: 90 to 230 ms were measured for 1 GiB of 4 KiB pages, and a guest can make that gigabytes, while
//! other ports on this lcore wait. A page is the file's: a hugepage goes as a whole.
//!
//! # Registers
//! A device's registers ([`ForeignMapping::map_device`](super::ForeignMapping::map_device)) are replaced by pages of all
//! ones: that is what a bus answers for a device that is not there, and what every driver looks for already. Waiting for a bit
//! to go to 0 would take a zero page for success. One page at a time is replaced, because it has to be filled, and a BAR may
//! have gigabytes.
//!
//! # Limits
//! - A thread that blocks SIGBUS is killed by the fault as before; so is one without room on its signal stack (Rust's
//!   threads have one).
//! - With `vm.overcommit_memory=2` the replacement counts towards the commit limit; where that is reached, the process ends.
//! - Two threads that fault in one range may both replace it, and the second undoes what the first has written since:
//!   bytes that nobody else will ever see.
#![expect(unsafe_code, reason = "a signal handler that changes mappings")]
// UNSAFETY: the handler does loads and stores of atomics and one or two system calls, no lock, no allocation, no errno.
// It replaces pages only in ranges that were registered, which their owner keeps registered, mapped and otherwise
// unused while anybody may access them: so the range of a fault cannot go away under the handler of that fault.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{Ordering, fence};
use std::io;
use std::sync::OnceLock;

use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap_anonymous, mprotect, mremap_fixed};

use super::registry::{self, Fill};

/// Who handled SIGBUS before.
static PREVIOUS: OnceLock<Previous> = OnceLock::new();

#[derive(Clone, Copy)]
struct Previous {
    handler: libc::sighandler_t,
    with_info: bool,
}

/// Sees to it that the handler is there; once for the process.
///
/// # Errors
/// What the kernel says; it has no reason to.
pub(crate) fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    DONE.get_or_init(|| set().map_err(|e| e.raw_os_error().unwrap_or(0)))
        .map_err(io::Error::from_raw_os_error)
}

fn set() -> io::Result<()> {
    let old = current(libc::SIGBUS)?;
    let with_info = old.sa_flags & libc::SA_SIGINFO != 0;
    PREVIOUS.get_or_init(|| Previous { handler: old.sa_sigaction, with_info });
    // SAFETY: all zero is a valid sigaction: no flags, nothing masked.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    new.sa_sigaction = handler as libc::sighandler_t;
    // Without SA_NODEFER: a SIGBUS inside the handler is a bug of ours and ends the process.
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `new` is complete, and `on_sigbus` is async-signal-safe.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const new, core::ptr::null_mut()) })
}

fn check(returned: c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo to a SA_SIGINFO handler, and SIGBUS's has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let cured = match code {
        libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR => replace(address),
        // Memory failed that nobody is reading just now: time enough when somebody does. (This thread need not be one
        // that uses the range, so the range might go away under the handler: hence no replacement.)
        libc::BUS_MCEERR_AO => registry::find(address).is_some(),
        // Misaligned accesses, and signals that somebody sent.
        _ => false,
    };
    if !cured {
        pass_on(signal, code, info, context);
    }
}

/// Replaces what is lost at `address`, if it is in a registered range. False if not, or if the kernel has no room for it.
fn replace(address: usize) -> bool {
    let Some((range, gone)) = registry::find(address) else { return false };
    // SAFETY: the range's `Registration` keeps the flag alive, and stays as long as this thread may access the range.
    let gone = unsafe { &*gone };
    gone.store(true, Ordering::Relaxed);
    // ORDERING: G1 fence, pairs with G2: the flag is set before any thread can meet a replaced page. (Such a thread's TLB
    // entry is shot down, or its fault handled, after the system call below has begun.)
    fence(Ordering::SeqCst);
    let start = address & !(range.page - 1);
    let protection = if range.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
    match range.fill {
        Fill::Zeroes => put_zeroes(start, range.end - start, protection),
        Fill::Ones => put_ones(start, range.page, protection),
    }
}

/// Zero pages at `start`, which lies, like `start + len`, at a page's border in a registered range.
fn put_zeroes(start: usize, len: usize, protection: ProtFlags) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the bytes lie in a range that its owner gave for this, at the bounds of its pages. A bare system call
    // (rustix's), so errno stays as it was.
    unsafe { mmap_anonymous(start as *mut c_void, len, protection, flags) }.is_ok()
}

/// A page of all ones at `start`, as above. It is filled elsewhere and moved into place, so that nobody reads it half done.
fn put_ones(start: usize, page: usize, protection: ProtFlags) -> bool {
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping where the kernel likes; nothing else is replaced.
    let Ok(fresh) = (unsafe { mmap_anonymous(core::ptr::null_mut(), page, both, MapFlags::PRIVATE) }) else {
        return false;
    };
    let words = fresh.cast::<u64>();
    for i in 0..page / size_of::<u64>() {
        // SAFETY: inside the page, which is ours, writable and aligned.
        unsafe { words.add(i).write_volatile(u64::MAX) };
    }
    // SAFETY: ours, as above.
    let protected = protection == both || unsafe { mprotect(fresh, page, MprotectFlags::READ) }.is_ok();
    // SAFETY: the place lies in a range that its owner gave for this, at the bounds of its pages; what is moved is a
    // page that nobody else knows.
    protected
        && unsafe { mremap_fixed(fresh, page, page, MremapFlags::MAYMOVE, start as *mut c_void) }.is_ok()
}

/// Lets the signal have the effect that it would have had without this handler.
fn pass_on(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let sent = code <= 0;
    match PREVIOUS.get() {
        Some(p) if p.handler == libc::SIG_IGN && sent => return,
        Some(p) if p.handler != libc::SIG_IGN && p.handler != libc::SIG_DFL => p.call(signal, info, context),
        // SAFETY: async-signal-safe, and the default needs no handler.
        _ => _ = unsafe { libc::signal(signal, libc::SIG_DFL) },
    }
    // With the default in place (by us, or by Rust's own handler, which does the same) a fault comes again when the access
    // is done again, and ends the process with the right core. What was sent has to be sent again for that.
    if sent && is_default(signal) {
        // SAFETY: async-signal-safe; it arrives when this handler returns.
        unsafe { libc::raise(signal) };
    }
}

impl Previous {
    /// As the kernel would have called it.
    fn call(self, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the address was installed as a handler of the kind that `with_info` tells.
        unsafe {
            if self.with_info {
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    core::mem::transmute(self.handler);
                handler(signal, info, context);
            } else {
                let handler: extern "C" fn(c_int) = core::mem::transmute(self.handler);
                handler(signal);
            }
        }
    }
}

fn is_default(signal: c_int) -> bool {
    current(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL)
}

/// What the signal does now. Async-signal-safe.
fn current(signal: c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; all zero is a valid sigaction, which the call overwrites.
    check(unsafe { libc::sigaction(signal, core::ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: written by the call that succeeded.
    Ok(unsafe { action.assume_init() })
}
