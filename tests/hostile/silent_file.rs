//! A FUSE file system of one file whose server answers until the file is open, and then never again: every call into it
//! waits, also a close. And a memfd whose inode lock is held by a write whose source page lies in that file.
#![expect(unsafe_code, reason = "mount(2), and a write from memory whose page never comes")]
// UNSAFETY: system calls with pointers to strings of ours, and one write(2) from a mapping that lives as long as the process.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ftruncate, memfd_create, openat};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Bytes of the file.
const SIZE: u64 = 1 << 20;
/// The file's node; the root's is 1.
const NODE: u64 = 2;

/// Opcodes, include/uapi/linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// The open file, and the server that does not answer for it.
#[derive(Debug)]
pub(crate) struct SilentFile {
    file: Option<OwnedFd>,
    ended: Arc<AtomicBool>,
    /// Somebody waits for a page of it.
    asked: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl SilentFile {
    /// Mounts, opens, unmounts (the open file keeps the file system), and falls silent.
    pub(crate) fn new() -> Self {
        let device =
            openat(CWD, "/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                .expect("this test needs /dev/fuse (modprobe fuse)");
        let folder = tempfile::tempdir().expect("a folder");
        mount(&device, folder.path());
        let (silent, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let asked = Arc::new(AtomicBool::new(false));
        let server = {
            let (silent, ended, asked) = (Arc::clone(&silent), Arc::clone(&ended), Arc::clone(&asked));
            std::thread::spawn(move || serve(&device, &silent, &ended, &asked))
        };
        let file = openat(CWD, folder.path().join("file"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        silent.store(true, Ordering::SeqCst);
        unmount(folder.path());
        Self { file: Some(file.expect("the server answers so far")), ended, asked, server: Some(server) }
    }

    /// The server is gone: whatever waits for it gets an error.
    pub(crate) fn abort(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            server.join().expect("the server panicked");
        }
    }

    /// A memfd of `bytes` whose inode lock somebody holds until [`abort`](Self::abort).
    pub(crate) fn locked_memfd(&self, bytes: u64) -> OwnedFd {
        let memfd =
            memfd_create("polder-locked", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&memfd, bytes).expect("ftruncate");
        let target = memfd.try_clone().expect("dup");
        // SAFETY: a new mapping where the kernel likes; never taken down, so that the address stays good.
        let source = unsafe {
            mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, self.as_fd(), 0)
                .expect("mmap")
        };
        let source = source as usize;
        std::thread::spawn(move || {
            // SAFETY: 4,096 bytes are mapped there; if their page does not come the kernel says so, without a signal.
            unsafe { libc::write(target.as_raw_fd(), source as *const libc::c_void, 4096) }
        });
        let end = Instant::now() + Duration::from_secs(10);
        while !self.asked.load(Ordering::SeqCst) {
            assert!(Instant::now() < end, "nobody reads the page");
            std::thread::sleep(Duration::from_millis(1));
        }
        memfd
    }
}

impl AsFd for SilentFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().expect("until it is dropped").as_fd()
    }
}

impl Drop for SilentFile {
    /// The server first: closing the file would wait for it.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        self.file = None;
    }
}

fn mount(device: &OwnedFd, at: &Path) {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let (options, at) = (CString::new(options).expect("text"), path(at));
    // SAFETY: all pointers are to strings that live until the call is over.
    let done = unsafe {
        libc::mount(c"silent".as_ptr(), at.as_ptr(), c"fuse".as_ptr(), libc::MS_NOSUID | libc::MS_NODEV, {
            options.as_ptr().cast()
        })
    };
    assert_eq!(done, 0, "this test needs root to mount: {}", std::io::Error::last_os_error());
}

fn unmount(at: &Path) {
    // SAFETY: the string lives until the call is over.
    let done = unsafe { libc::umount2(path(at).as_ptr(), libc::MNT_DETACH) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zero in it")
}

/// Answers until silent, then only reads. Leaving closes the device, which ends the connection.
fn serve(device: &OwnedFd, silent: &AtomicBool, ended: &AtomicBool, asked: &AtomicBool) {
    let mut request = vec![0u8; 1 << 17];
    while !ended.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(device, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
        let Ok(got) = rustix::io::read(device, &mut request) else { continue };
        if got < 40 {
            continue;
        }
        let opcode = u32::from_ne_bytes(request[4..8].try_into().expect("4 bytes"));
        if silent.load(Ordering::SeqCst) {
            asked.fetch_or(opcode == READ, Ordering::SeqCst);
            continue;
        }
        if let Some(reply) = reply_to(opcode, u64_at(&request, 16)) {
            send(device, u64_at(&request, 8), reply);
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The payload, or an error number.
fn reply_to(opcode: u32, node: u64) -> Option<Result<Vec<u8>, i32>> {
    match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => None,
        INIT => {
            // Version 7.31; max_write 4,096; the rest is not wanted.
            let words = [7u32, 31, 0, 0, 0, 4096];
            let mut reply: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            reply.resize(64, 0);
            Some(Ok(reply))
        }
        // Valid for no time: each look asks anew.
        LOOKUP => Some(Ok([NODE, 0, 0, 0, 0]
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .chain(attributes(NODE))
            .collect())),
        GETATTR => Some(Ok([0u64, 0].iter().flat_map(|w| w.to_ne_bytes()).chain(attributes(node)).collect())),
        OPEN => Some(Ok(vec![0; 16])),
        _ => Some(Err(-libc::ENOSYS)),
    }
}

fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == NODE { (0o100_666u32, SIZE) } else { (0o040_755, 4096) };
    let mut attr: Vec<u8> = [node, size, size / 512, 0, 0, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
    attr.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].iter().flat_map(|w: &u32| w.to_ne_bytes()));
    attr
}

fn send(device: &OwnedFd, unique: u64, reply: Result<Vec<u8>, i32>) {
    let (error, payload) = reply.map_or_else(|e| (e, Vec::new()), |payload| (0, payload));
    let mut message = Vec::with_capacity(16 + payload.len());
    message.extend((16 + payload.len() as u32).to_ne_bytes());
    message.extend(error.to_ne_bytes());
    message.extend(unique.to_ne_bytes());
    message.extend(payload);
    rustix::io::write(device, &message).expect("a reply");
}
