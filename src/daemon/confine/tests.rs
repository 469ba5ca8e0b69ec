//! A violation kills the process that makes it: a child of the test, which is this test program again.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use super::*;
use crate::settings::{Hugepages, MemorySize, SwitchSetting};
use mbuf::foreign::{self, ForeignMapping};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const VARIABLE: &str = "POLDER_TEST_VIOLATION";

/// What a confined thread of each role does that it must not, or may.
const ROLES: [(&str, Role); 4] =
    [("lcore", Role::Lcore), ("session", Role::Session), ("client", Role::ClientSession), ("nic", Role::Nic)];

/// Guest memory that its owner took away.
fn vanished() -> ForeignMapping {
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, 4096).expect("ftruncate");
    let memory = ForeignMapping::map(fd.as_fd(), 0, 4096, true).expect("a mapping");
    ftruncate(&fd, 0).expect("ftruncate");
    memory
}

fn act(what: &str, memory: Option<ForeignMapping>) {
    match what {
        "execve" => drop(Command::new("/bin/true").status()),
        "inet" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
        "unix" => {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
            assert!(socket.is_ok());
        }
        "kill" => drop(rustix::process::test_kill_process(rustix::process::getpid())),
        "open" => {
            let error = std::fs::File::open("/etc/passwd").expect_err("no files for such a thread");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        "refused" => {
            let error = Command::new("/bin/true").status().expect_err("no programs");
            assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()));
        }
        "executable" => {
            use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
            let (all, private) = (ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE);
            #[expect(unsafe_code, reason = "a mapping that is refused")]
            // SAFETY: a new mapping where the kernel likes, of which nothing is used.
            let mapped = unsafe { mmap_anonymous(core::ptr::null_mut(), 4096, all, private) };
            assert!(mapped.is_err());
        }
        "vanish" => {
            let memory = memory.expect("guest memory");
            #[expect(unsafe_code, reason = "foreign memory")]
            // SAFETY: aligned and inside the mapping, which is registered.
            let word = unsafe { foreign::load_u64(memory.base().as_ptr().cast()) };
            assert!(word == 0 && memory.is_gone());
        }
        "file" => {
            let file = std::env::temp_dir().join("polder-test-sandbox");
            let error = std::fs::write(file, "x").expect_err("no files in strict");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        "nothing" => {
            // What a panic does is no violation, nor is the allocator's work.
            let panicked = std::panic::catch_unwind(|| panic!("on purpose"));
            assert!(panicked.is_err());
            drop(vec![1u8; 64 << 20]);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        other => panic!("there is no act {other}"),
    }
}

/// The child's part; without the variable it is a test of nothing but that a process of its own is needed.
#[test]
fn child() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (role, what) = text.split_once(':').expect("ROLE:ACT");
    let (role, what) = (ROLES.iter().find(|r| r.0 == role).expect("a role").1, what.to_owned());
    let settings = Settings {
        ports: vec![],
        cpus: vec![],
        switch: SwitchSetting::default(),
        memory: MemorySize::default(),
        hugepages: Hugepages::Off,
        sandbox: Sandbox::Strict,
        control: None,
    };
    begin(&settings, Path::new("/nowhere/control")).expect("rights can be given up");
    let memory = (what == "vanish").then(vanished);
    let (said, heard) = std::sync::mpsc::channel();
    let (over, looked) = std::sync::mpsc::channel::<()>();
    pmd::threads::spawn("confined".into(), role, move || {
        act(&what, memory);
        let _ = said.send(rustix::thread::gettid());
        let _ = looked.recv();
    })
    .expect("a thread");
    let thread = heard.recv().expect("the act was survived");
    let status = format!("/proc/self/task/{}/status", thread.as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("a thread's status");
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let none = status.contains("CapPrm:\t0000000000000000") && status.contains("CapEff:\t0000000000000000");
    assert!(none || matches!(role, Role::ClientSession | Role::Nic), "{status}");
    drop(over);
}

fn of_child(role: &str, what: &str) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["daemon::confine::tests::child", "--exact"]).env(VARIABLE, format!("{role}:{what}"));
    child.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("a child")
}

#[test]
fn a_violation_kills_the_process() {
    for (role, what) in [
        ("lcore", "execve"),
        ("lcore", "inet"),
        ("lcore", "unix"),
        ("lcore", "kill"),
        ("lcore", "executable"),
        ("session", "execve"),
        ("session", "inet"),
        ("session", "unix"),
        ("session", "kill"),
        ("client", "inet"),
        ("client", "execve"),
    ] {
        let status = of_child(role, what);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{role}: {what}: {status}");
    }
}

#[test]
fn what_is_no_violation_is_survived() {
    for (role, what) in [
        ("lcore", "nothing"),
        ("lcore", "open"),
        ("session", "nothing"),
        ("session", "open"),
        ("client", "unix"),
        ("lcore", "vanish"),
        ("session", "vanish"),
        ("nic", "file"),
        ("nic", "refused"),
        ("nic", "inet"),
        ("nic", "executable"),
    ] {
        let status = of_child(role, what);
        assert!(status.success(), "{role}: {what}: {status}");
    }
}

#[test]
fn every_list_is_part_of_the_process_list() {
    let process = lists::process();
    for call in lists::lcore().iter().chain(&lists::session()) {
        assert!(process.contains(call), "{call}");
    }
    assert!(!process.contains(&libc::SYS_execve) && !process.contains(&libc::SYS_ptrace));
}
