//! What the control thread signals itself: A5, A6.

use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::*;
use crate::session::calls::Calls;
use crate::session::control::lock;

/// A session whose ring 0 runs and calls by the eventfd that is returned, and its control thread's memory.
fn called_by() -> (Mutex<Session>, Calls, OwnedFd) {
    pmd::notify::prepare_process().expect("a context");
    let mut s = running();
    let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd");
    let ours = call.as_fd().try_clone_to_owned().expect("a descriptor");
    assert_eq!(s.ask(Request::SetVringCall, &0u64, vec![ours]), Ok(0));
    let calls = Calls::new(Arc::clone(s.slots[0].notifier().port()));
    // The call that every new eventfd gets.
    let _ = rustix::io::read(&call, &mut [0; 8]);
    (Mutex::new(s), calls, call)
}

fn is_called(call: &OwnedFd) -> bool {
    rustix::io::read(call, &mut [0; 8]).is_ok()
}

fn refuse_requests() {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a processor with a filter");
    let refused = SeccompAction::Errno(libc::EAGAIN as u32);
    let rules = [(libc::SYS_io_submit, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("seccomp");
}

#[test]
fn a_call_that_is_due_is_made_once() {
    let (session, mut calls, call) = called_by();
    calls.make(&session);
    assert!(!is_called(&call), "none is due");
    lock(&session).slots[0].notifier().is_still_due();
    calls.make(&session);
    assert!(is_called(&call));
    calls.make(&session);
    assert!(!is_called(&call));
    assert_eq!(calls.next_time(), None, "nothing to wait for");
}

#[test]
fn a_ring_that_went_away_is_not_called_for() {
    let (session, mut calls, call) = called_by();
    lock(&session).slots[0].notifier().is_still_due();
    lock(&session).end();
    calls.make(&session);
    assert!(!is_called(&call));
}

/// Nothing is written where the kernel refuses (the counter is full, and a write would wait for ever); it is tried again.
#[test]
fn a05_a_refused_call_stays_due() {
    let (session, mut calls, call) = called_by();
    rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).expect("it was 0");
    let flags = rustix::fs::fcntl_getfl(&call).expect("F_GETFL");
    rustix::fs::fcntl_setfl(&call, flags - rustix::fs::OFlags::NONBLOCK).expect("F_SETFL");
    lock(&session).slots[0].notifier().is_still_due();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            refuse_requests();
            calls.make(&session);
        });
    });
    assert_eq!(lock(&session).times("call_failed"), 1);
    let again = calls.next_time().expect("it is tried again");
    assert!(is_called(&call), "empties the counter");
    std::thread::sleep(again.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    calls.make(&session);
    assert!(is_called(&call));
}

/// Whatever the data plane leaves to it: the port says so, and once.
#[test]
fn a06_the_port_says_who_calls() {
    let (session, mut calls, _call) = called_by();
    let notifier = Arc::clone(lock(&session).slots[0].notifier().port());
    assert!(lock(&session).details().iter().all(|(name, _)| *name != "calls"));
    notifier.took_control_thread(Duration::from_millis(40));
    (0..3).for_each(|_| calls.make(&session));
    let session = lock(&session);
    assert_eq!((session.times("calls_moved"), session.times("calls_returned")), (1, 0));
    let details = session.details();
    let detail = |name| details.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
    assert!(detail("calls").is_some_and(|words| words.contains("control thread") && words.contains("40")));
    assert_eq!(detail("slow_calls"), Some("1"));
}
