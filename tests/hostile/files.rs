//! A14: whoever may write in the directory of a socket, or reads it, or listens in our place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pmd::Port;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, fstat, open, renameat_with};
use tempfile::TempDir;
use vhost::{VhostUserPort, VhostUserSpec};

use crate::scene::case;

/// How long each race lasts. The audit's took 0.1 s.
const RACE: Duration = Duration::from_secs(1);

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("the file is there").permissions().mode() & 0o777
}

/// Makes ports at `path` and drops them, again and again, beside an adversary who does `each` as fast as it can.
fn race(path: &Path, each: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                each();
            }
        });
        let end = Instant::now() + RACE;
        while Instant::now() < end {
            // It may be refused; that is not what is judged.
            drop(VhostUserPort::new(&VhostUserSpec::new(path)));
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Has `other` and the socket change places as soon as that is there, for a moment; `put` makes `other` anew.
fn swap(socket: &Path, other: &Path, put: impl Fn()) {
    if renameat_with(CWD, socket, CWD, other, RenameFlags::EXCHANGE).is_ok() {
        std::thread::sleep(Duration::from_micros(20));
        let _ = fs::remove_file(socket);
        let _ = fs::remove_file(other);
        put();
    }
}

/// A file of ours that nobody else may read.
fn precious(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("precious");
    fs::write(&path, "secret").expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    path
}

#[test]
fn a14_a_symlink_between_bind_and_chmod() {
    case(|_| {
        let (theirs, ours) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let precious = precious(&ours);
        let (socket, other) = (theirs.path().join("vm.sock"), theirs.path().join("other"));
        let put = || drop(symlink(&precious, &other));
        put();
        race(&socket, || swap(&socket, &other, put));
        assert_eq!(mode(&precious), 0o600, "a local user widened the mode of somebody else's file");
    });
}

#[test]
fn a14_a_hard_link_between_bind_and_chmod() {
    case(|_| {
        let folder = tempfile::tempdir().expect("a folder");
        let precious = precious(&folder);
        let (socket, other) = (folder.path().join("vm.sock"), folder.path().join("other"));
        let put = || drop(fs::hard_link(&precious, &other));
        put();
        race(&socket, || swap(&socket, &other, put));
        assert_eq!(mode(&precious), 0o600, "a local user widened the mode of somebody else's file");
    });
}

#[test]
fn a14_another_socket_of_ours_between_bind_and_chmod() {
    case(|_| {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, other) = (folder.path().join("vm.sock"), folder.path().join("control"));
        let _control = UnixListener::bind(&other).expect("bind");
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
        // Whoever owns the directory may remove it; that is not what is judged.
        let control = open(&other, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("open");
        let inode = fstat(&control).expect("stat").st_ino;
        race(&socket, || {
            // There and back again.
            let exchange = || renameat_with(CWD, &socket, CWD, &other, RenameFlags::EXCHANGE).is_ok();
            let _ = (0..100).all(|_| exchange());
            if fs::symlink_metadata(&socket).is_ok_and(|m| m.ino() == inode) {
                let _ = fs::rename(&socket, &other);
            }
        });
        let mode = fstat(&control).expect("stat").st_mode & 0o777;
        assert_eq!(mode, 0o600, "the mode of the control socket was widened");
    });
}

#[test]
fn a14_a_directory_swapped_while_the_socket_is_made() {
    case(|_| {
        let all = tempfile::tempdir().expect("a folder");
        let (name, one, two) = (all.path().join("now"), all.path().join("one"), all.path().join("two"));
        for folder in [&one, &two] {
            fs::create_dir(folder).expect("mkdir");
        }
        symlink(&one, &name).expect("symlink");
        let next = all.path().join("next");
        let point_to = |folder: &PathBuf| {
            let _ = symlink(folder, &next);
            let _ = fs::rename(&next, &name);
        };
        race(&name.join("vm.sock"), || {
            point_to(&two);
            point_to(&one);
        });
        for folder in [one, two] {
            let left = fs::read_dir(&folder).expect("a folder").count();
            assert_eq!(
                left,
                0,
                "a socket stays in a directory that nobody looks after: {}",
                folder.display()
            );
        }
    });
}

#[test]
fn c26_a_stale_socket_is_replaced_and_nothing_else_is() {
    case(|_| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vm.sock");
        let port = || VhostUserPort::new(&VhostUserSpec::new(&path)).map(drop).map_err(|e| e.to_string());
        drop(UnixListener::bind(&path).expect("bind"));
        assert_eq!(port(), Ok(()));
        assert!(!path.exists(), "the port's socket goes with it");
        for put in [
            &|| fs::write(&path, "mine").expect("write"),
            &|| symlink("/nowhere", &path).expect("symlink"),
            &|| fs::create_dir(&path).expect("mkdir"),
        ] as [&dyn Fn(); 3]
        {
            put();
            assert!(port().is_err_and(|e| e.contains("no socket")));
            assert!(fs::symlink_metadata(&path).is_ok(), "it stays");
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    });
}

/// As another user, listens at `path`, as whom the kernel names to who connects.
fn listen_as(uid: u32, path: &Path) -> UnixListener {
    let path = path.to_owned();
    let thread = std::thread::spawn(move || {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("setresuid");
        UnixListener::bind(path).expect("bind")
    });
    thread.join().expect("listens")
}

fn detail(port: &VhostUserPort, name: &str) -> Option<String> {
    port.details().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Whether the port connects to `listener` within a second.
fn is_connected(listener: &UnixListener, port: &VhostUserPort) -> bool {
    listener.set_nonblocking(true).expect("non-blocking");
    let end = Instant::now() + Duration::from_secs(1);
    let mut held = Vec::new();
    while Instant::now() < end {
        held.extend(listener.accept());
        if detail(port, "front end").is_some_and(|said| said.starts_with("connected")) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn a14_needs_root_a_listener_of_another_uid_in_client_mode() {
    case(|_| {
        assert!(rustix::process::geteuid().is_root(), "this test needs root, to act as another user");
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let client = |name: &str, uids: &[u32]| {
            let path = folder.path().join(name);
            VhostUserSpec { client: true, uids: uids.to_vec(), ..VhostUserSpec::new(path) }
        };
        for (name, uids, uid, served) in [
            ("anybody", &[][..], 65_534, false),
            ("unlisted", &[1234], 65_534, false),
            ("listed", &[1234], 1234, true),
            ("root", &[], 0, true),
        ] {
            let spec = client(name, uids);
            let listener = listen_as(uid, &spec.path);
            let port = VhostUserPort::new(&spec).expect("a port");
            assert_eq!(is_connected(&listener, &port), served, "{name}: {:?}", port.details());
            assert_eq!(detail(&port, "uid_refused").is_some(), !served, "{name}");
        }
    });
}
