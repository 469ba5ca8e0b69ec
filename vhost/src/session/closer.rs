//! Closing descriptors of which close(2) may never return: in a process of their own, which shares our descriptors.
//!
//! A thread would not do. One that is stuck in the kernel keeps its process from being reaped, whatever signal comes, and the
//! last of a process's threads closes its descriptors on the way out. A process that has the same table of descriptors takes
//! both upon itself: who is stuck is not us, and we are not the last to have the table.
#![expect(unsafe_code, reason = "clone(2), waitpid(2) of a clone, close_range(2)")]
// UNSAFETY: the other process has our memory and a stack of its own; it runs `work` and nothing else, which makes system
// calls that do not fail, so that errno, which is the starting thread's, stays; does not allocate and cannot panic. Stack and job stay
// where they are until it was reaped, or for ever.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Processes of one port that may be stuck.
const MAX_PROCESSES: usize = 4;
/// Descriptors that may wait for them: those of some messages. With more, the port takes no front end.
pub(super) const MAX_WAITING: usize = 32;
/// Bytes of a process's stack.
const STACK: usize = 32 << 10;
/// Has our memory, descriptors and directory; sends no signal when it ends.
const SHARED: libc::c_int = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS;

/// Descriptors, of all ports, of which it is not known that closing them waits for nobody.
static UNKNOWN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
/// Processes that were not reaped.
static LIVE: AtomicUsize = AtomicUsize::new(0);

pub(super) fn unknown() -> MutexGuard<'static, BTreeSet<RawFd>> {
    UNKNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes one port's descriptors elsewhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Closer(Arc<Mutex<Work>>);

#[derive(Debug, Default)]
struct Work {
    waiting: Vec<OwnedFd>,
    processes: Vec<Process>,
}

impl Closer {
    /// Closes a descriptor, some time: those of one message together, when [`has_room`](Self::has_room) is asked next.
    pub(super) fn close(&self, fd: OwnedFd) {
        unknown().insert(fd.as_raw_fd());
        self.lock().waiting.push(fd);
    }

    /// Whether descriptors are closed as they come. If not, more must not be taken from the front end.
    pub(super) fn has_room(&self) -> bool {
        let mut work = self.lock();
        work.proceed();
        work.waiting.len() <= MAX_WAITING
    }

    /// Whether something is still to be closed or reaped: [`has_room`](Self::has_room) is to be asked now and then.
    pub(super) fn is_at_work(&self) -> bool {
        let work = self.lock();
        !work.waiting.is_empty() || !work.processes.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Reaps processes that are done, and starts one for what waits.
    fn proceed(&mut self) {
        self.processes.retain(|process| !process.is_over());
        if self.processes.len() < MAX_PROCESSES {
            self.start();
        }
    }

    fn start(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        // Without one they wait, and the port with them; it tries again.
        if let Some(process) = Process::start(self.waiting.iter().map(AsRawFd::as_raw_fd).collect()) {
            for fd in self.waiting.drain(..) {
                let _closed_by_it = fd.into_raw_fd();
            }
            self.processes.push(process);
        }
    }
}

impl Drop for Work {
    /// What is stuck is left, and what nobody closes stays open: who drops this must not wait for long.
    fn drop(&mut self) {
        const LOOKS: usize = 50;
        for _ in 0..LOOKS {
            self.proceed();
            if self.processes.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // One more than there may be, rather than to lose them.
        self.start();
        for fd in self.waiting.drain(..) {
            let _stays_open = fd.into_raw_fd();
        }
    }
}

/// A process that closes. Dropping it leaves it to itself.
#[derive(Debug)]
struct Process {
    pid: libc::pid_t,
    /// What it needs until it was reaped.
    job: NonNull<Job>,
}

// SAFETY: a number and a pointer to what only the other process looks at until it was reaped, which is once.
unsafe impl Send for Process {}

/// What a process has to do, and its stack.
#[derive(Debug)]
struct Job {
    fds: Vec<RawFd>,
    stack: Vec<u128>,
}

impl Process {
    /// One that closes these. `None` if the system has no process left, or does not let us.
    fn start(fds: Vec<RawFd>) -> Option<Self> {
        let mut job = Box::new(Job { fds, stack: vec![0; STACK / size_of::<u128>()] });
        let top = job.stack.as_mut_ptr_range().end;
        let job = NonNull::from(Box::leak(job));
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both sets are ours; sigfillset makes `all` whole, pthread_sigmask `before`. The process begins with all
        // signals blocked: the handlers are ours, and not for it to run. `top` is the end of a stack that is aligned to 16 bytes
        // and stays, as the job does, until `is_over` has reaped the process; what it may do is in the UNSAFETY note.
        let pid = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let pid = libc::clone(work, top.cast(), SHARED, job.as_ptr().cast());
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), core::ptr::null_mut());
            pid
        };
        if pid > 0 {
            LIVE.fetch_add(1, Ordering::Relaxed);
            return Some(Self { pid, job });
        }
        // SAFETY: leaked above; there is no process that has it.
        drop(unsafe { Box::from_raw(job.as_ptr()) });
        None
    }

    /// Whether it has ended. Not to be asked again once it has.
    fn is_over(&self) -> bool {
        // SAFETY: no pointer is handed over; the number is our child's until it is reaped.
        let reaped = unsafe { libc::waitpid(self.pid, core::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
        if reaped == 0 {
            return false;
        }
        LIVE.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: leaked by `start`; the process that had it is no more, and nobody asks again.
        let job = unsafe { Box::from_raw(self.job.as_ptr()) };
        drop(job);
        true
    }
}

/// The life of such a process.
extern "C" fn work(job: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the job that `start` handed over; nobody writes to it while the process lives.
    let job = unsafe { &*job.cast::<Job>() };
    for fd in &job.fds {
        // Not close(2), which passes on what a file says to that: there is no errno of its own to put it in.
        // SAFETY: no pointer is handed over; the descriptor's owner gave it up when the process was started.
        unsafe { libc::syscall(libc::SYS_close_range, *fd, *fd, 0) };
    }
    0
}

/// The last thing that a program does before it ends. If front ends have left descriptors behind whose closing may wait for
/// ever, they go to a process of their own, and all others but the standard ones are closed: otherwise that process would
/// keep them open, devices and sockets alike. Threads that still run find theirs closed.
pub fn give_up_descriptors() {
    let unknown = unknown().clone();
    if LIVE.load(Ordering::Relaxed) == 0 && unknown.is_empty() {
        return;
    }
    let _never_reaped = Process::start(unknown.iter().copied().collect());
    let mut first = 3;
    for fd in unknown.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: no pointer is handed over. The program ends: no descriptor of these is opened or relied on any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = first.max(fd.saturating_add(1));
    }
}
