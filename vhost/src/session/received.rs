//! Descriptors as a front end sent them: anything may be behind them, also a file whose every call waits for its owner for
//! ever (FUSE, NFS). close(2) is such a call, and no signal ends it.
//!
//! A [`Received`] is asked only what the kernel answers by itself. What turns out to be an eventfd or a file in memory
//! becomes an ordinary descriptor; whatever else is closed by a [`Closer`], on threads that the port can leave.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::fcntl_get_seals;
use rustix::io::Errno;

use super::eventfd;
use super::trouble::Refusal;
use crate::memory::MemoryError;

/// Threads of one port that may be stuck in close(2).
const MAX_THREADS: usize = 4;
/// Descriptors that may wait for them: those of some messages. With more, the port takes no front end.
const MAX_WAITING: usize = 32;
/// A thread with nothing to close ends after this time.
const IDLE: Duration = Duration::from_secs(5);
const STACK: usize = 64 << 10;

/// A descriptor that came with a message. Dropping it never waits.
#[derive(Debug)]
pub(super) struct Received {
    /// `None` only once it was turned into something else.
    fd: Option<OwnedFd>,
    closer: Closer,
}

impl Received {
    pub(super) fn new(fd: OwnedFd, closer: &Closer) -> Self {
        Self { fd: Some(fd), closer: closer.clone() }
    }

    /// As kick, call or err descriptor of a ring.
    pub(super) fn into_eventfd(mut self) -> Result<OwnedFd, Refusal> {
        eventfd::check(self.as_fd())?;
        self.take()
    }

    /// As the memory of a region at `gpa`: a file that knows seals, which is one on tmpfs or hugetlbfs, or a memfd. Their
    /// fstat, fstatfs, mmap and close wait for nobody.
    pub(super) fn into_memory_file(mut self, gpa: u64) -> Result<OwnedFd, Refusal> {
        match fcntl_get_seals(self.as_fd()) {
            Ok(_) => self.take(),
            Err(Errno::BADF) => Err(MemoryError::ReadOnly { gpa }.into()),
            Err(_) => Err(MemoryError::NotInMemory { gpa }.into()),
        }
    }

    fn take(&mut self) -> Result<OwnedFd, Refusal> {
        self.fd.take().ok_or(Refusal::NotEventfd)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken only by value").as_fd()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.closer.close(fd);
        }
    }
}

/// Whether the kernel alone answers for the file, so that closing it waits for nobody.
fn is_harmless(fd: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(fd).is_ok() || eventfd::is_eventfd(fd) == Ok(true)
}

/// Closes one port's descriptors, elsewhere if that may wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Closer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<OwnedFd>,
    threads: usize,
    /// Threads that take from `waiting` next.
    idle: usize,
}

impl Closer {
    /// Closes a descriptor of which nothing is known.
    pub(super) fn close(&self, fd: OwnedFd) {
        if !is_harmless(fd.as_fd()) {
            self.close_elsewhere(fd);
        }
    }

    /// Closes a descriptor on another thread.
    pub(super) fn close_elsewhere(&self, fd: OwnedFd) {
        let mut queue = self.0.lock();
        queue.waiting.push(fd);
        self.staff(&mut queue);
        self.0.more.notify_one();
    }

    /// Whether descriptors are closed as they come. If not, more must not be taken from the front end.
    pub(super) fn has_room(&self) -> bool {
        let mut queue = self.0.lock();
        self.staff(&mut queue);
        queue.waiting.len() <= MAX_WAITING
    }

    /// Starts a thread if one is missing and there may be one.
    fn staff(&self, queue: &mut Queue) {
        if queue.waiting.len() <= queue.idle || queue.threads == MAX_THREADS {
            return;
        }
        let shared = Arc::clone(&self.0);
        let named = std::thread::Builder::new().name("vhost-close".into()).stack_size(STACK);
        // Without a thread they wait, and the port with them; it tries again.
        if named.spawn(move || shared.work()).is_ok() {
            queue.threads += 1;
            queue.idle += 1;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life. It counts as idle when it begins.
    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(fd) = queue.waiting.pop() {
                queue.idle -= 1;
                drop(queue);
                drop(fd);
                queue = self.lock();
                queue.idle += 1;
                continue;
            }
            let waited = self.more.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = waited.0;
            if waited.1.timed_out() && queue.waiting.is_empty() {
                queue.idle -= 1;
                queue.threads -= 1;
                return;
            }
        }
    }
}

impl Drop for Queue {
    /// There is no thread to close them, and who drops the last of all must not wait: they stay open.
    fn drop(&mut self) {
        for fd in self.waiting.drain(..) {
            let _stays_open = fd.into_raw_fd();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::pipe::pipe;

    use super::*;

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < end, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn c09_what_an_honest_front_end_sends_needs_no_thread() {
        let closer = Closer::default();
        for _ in 0..20 {
            drop(Received::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap(), &closer));
            drop(Received::new(memfd_create("received", MemfdFlags::CLOEXEC).unwrap(), &closer));
        }
        assert_eq!(closer.0.lock().threads, 0);
    }

    #[test]
    fn c09_whatever_else_is_closed_by_few_threads() {
        let closer = Closer::default();
        let (reader, writer) = pipe().unwrap();
        for _ in 0..100 {
            drop(Received::new(writer.try_clone().unwrap(), &closer));
        }
        drop(Received::new(writer, &closer));
        assert!(closer.0.lock().threads <= MAX_THREADS);
        // End of file: nobody has the other end any more.
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
        until("room", || closer.has_room());
    }

    #[test]
    fn a07_no_more_is_taken_than_can_be_closed() {
        let closer = Closer::default();
        // As if as many threads as there may be were stuck.
        closer.0.lock().threads = MAX_THREADS;
        let (reader, writer) = pipe().unwrap();
        for _ in 0..MAX_WAITING {
            drop(Received::new(writer.try_clone().unwrap(), &closer));
        }
        assert!(closer.has_room());
        drop(Received::new(writer, &closer));
        assert!(!closer.has_room());
        closer.0.lock().threads = MAX_THREADS - 1;
        until("one comes back", || closer.has_room());
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }
}
