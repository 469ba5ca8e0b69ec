//! `polder run` where the kernel refuses that by which guests are notified: A5.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::daemon::{PATIENCE, assert_refused, polder};

/// Fails `syscall` with `errno` for the calling thread and all that it starts.
fn refuse(syscall: libc::c_long, errno: i32) {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a processor with a filter");
    let filter = SeccompFilter::new(
        [(syscall, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        arch,
    );
    let program = BpfProgram::try_from(filter.expect("a filter")).expect("a program");
    seccompiler::apply_filter(&program).expect("seccomp");
}

/// Runs it under that filter until it ends, or is ended.
fn run_refused(syscall: libc::c_long, errno: i32, args: &[&str]) -> Output {
    std::thread::scope(|scope| {
        let run = || {
            refuse(syscall, errno);
            let dir = tempfile::tempdir().expect("a folder");
            let mut command = polder();
            command.args(["run", "--memory", "8M", "--hugepages", "off", "--control"]);
            let mut child = command
                .arg(dir.path().join("control"))
                .args(args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start polder");
            let end = Instant::now() + PATIENCE;
            while child.try_wait().expect("wait for a child").is_none() {
                if Instant::now() > end {
                    child.kill().expect("end a child");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            child.wait_with_output().expect("its output")
        };
        scope.spawn(run).join().expect("the thread with the filter")
    })
}

#[test]
fn a05_the_systems_requests_are_used_up() {
    let line = assert_refused(&run_refused(libc::SYS_io_setup, libc::EAGAIN, &["--port", "n=null"]), 1);
    assert!(line.contains("io_setup") && line.contains("fs.aio-max-nr") && line.contains("sysctl"), "{line}");
}

#[test]
fn a05_a_filter_forbids_it() {
    for syscall in [libc::SYS_io_setup, libc::SYS_io_submit] {
        let line = assert_refused(&run_refused(syscall, libc::EPERM, &[]), 1);
        assert!(line.contains("seccomp") && line.contains("io_submit"), "{line}");
    }
}

#[test]
fn a05_the_kernel_does_not_have_it() {
    let line = assert_refused(&run_refused(libc::SYS_io_setup, libc::ENOSYS, &[]), 1);
    assert!(line.contains("CONFIG_AIO"), "{line}");
}
