use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::*;

fn count(fd: BorrowedFd<'_>) -> u64 {
    let mut bytes = [0u8; 8];
    rustix::io::read(fd, &mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}

/// An eventfd on which a write waits for ever.
fn full() -> rustix::fd::OwnedFd {
    let fd = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    fd
}

/// Fails `syscall` with `errno`, for the calling thread.
fn refuse(syscall: libc::c_long, errno: i32) {
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let (rules, refused) = ([(syscall, Vec::new())].into(), SeccompAction::Errno(errno as u32));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Runs `body` in a thread of its own; fails if it does not come back.
fn within_seconds<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = channel();
    std::thread::spawn(move || done.send(body()));
    end.recv_timeout(Duration::from_secs(20)).expect("it came back")
}

#[test]
fn each_signal_counts() {
    let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    prepare_thread().unwrap();
    for _ in 0..1000 {
        signal(fd.as_fd()).unwrap();
    }
    assert_eq!(count(fd.as_fd()), 1000);
}

#[test]
fn threads_without_a_context_share_the_processs() {
    const EACH: u64 = 5_000;
    prepare_process().unwrap();
    let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..EACH).for_each(|_| signal(fd.as_fd()).unwrap()));
        }
    });
    assert_eq!(count(fd.as_fd()), 4 * EACH);
}

#[test]
fn c14_a_full_counter_on_a_blocking_descriptor() {
    prepare_process().unwrap();
    let fd = full();
    let start = Instant::now();
    for _ in 0..100 {
        let _ = signal(fd.as_fd());
    }
    assert!(start.elapsed() < Duration::from_secs(1), "a write would wait for ever");
}

/// A thread that could make no context says so, and waits for nobody either.
#[test]
fn a05_without_a_context_nothing_is_written() {
    for (errno, word) in
        [(libc::EAGAIN, "fs.aio-max-nr"), (libc::EPERM, "seccomp"), (libc::ENOSYS, "CONFIG_AIO")]
    {
        let error = within_seconds(move || {
            refuse(libc::SYS_io_setup, errno);
            let error = prepare_thread().unwrap_err();
            // By the process's context, if another test made one; else not at all.
            let _ = signal(full().as_fd());
            assert!(prepare_thread().is_err(), "it is tried again, and refused again");
            error.to_string()
        });
        assert!(error.contains(word) && error.contains("io_setup"), "{error}");
    }
}

/// A context that works when it is made, and fails later.
#[test]
fn a05_a_refused_request_is_an_error_and_no_write() {
    let (before, after) = within_seconds(|| {
        prepare_thread().unwrap();
        let fd = full();
        let before = signal(fd.as_fd());
        refuse(libc::SYS_io_submit, libc::EAGAIN);
        (before.is_ok(), signal(fd.as_fd()).map_err(|e| e.raw_os_error()))
    });
    assert_eq!((before, after), (true, Err(Some(libc::EAGAIN))));
}
