//! Which system calls which thread may make.
//!
//! The lists were made by strace of every port kind under traffic, of ports added and removed, of resets and of the end,
//! and by reading what the rarer ways (a fault, a panic, the allocator) call. What is not on a list of a thread that a
//! guest, a front end or the wire reaches kills the process; on the operator's threads it fails with EPERM.

/// Calls that any thread makes to live, allocate, wait, report and end.
const COMMON: &[libc::c_long] = &[
    // Memory: malloc, thread stacks; the SIGBUS handler's replacement pages (decision 0003). mmap and mprotect: see below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Signals.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    // Time and waiting.
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_ppoll,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    // Eventfds, the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    // Calls to guests (decision 0008).
    libc::SYS_io_submit,
    libc::SYS_io_getevents,
    libc::SYS_io_destroy,
    // A panic, an abort, the end of a thread or of the process.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
];

/// What x86-64 has beside them: older forms that newer machines do not know.
#[cfg(target_arch = "x86_64")]
const COMMON_HERE: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const COMMON_HERE: &[libc::c_long] = &[];

/// Lcores: moving packets through TAPs, packet sockets, AF_XDP's wake-ups and pcap files.
const LCORE: &[libc::c_long] = &[
    libc::SYS_readv,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    // What a page fault on a guest's memory cost (decision 0016).
    libc::SYS_getrusage,
];

/// Threads that serve a front end: its messages, its descriptors, its memory.
const SESSION: &[libc::c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_lseek,
    libc::SYS_mincore,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    // The process that closes what may never close (decision 0018), which inherits this list.
    libc::SYS_clone,
    libc::SYS_wait4,
    libc::SYS_close_range,
];

/// The operator's threads and those that look after NICs: files, sockets and devices of ports, and giving up rights.
const OPERATOR: &[libc::c_long] = &[
    // Files.
    libc::SYS_openat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_statfs,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_memfd_create,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_getcwd,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Devices.
    libc::SYS_ioctl,
    libc::SYS_bpf,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Packet memory.
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    // Rights.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_seccomp,
    // Threads, and calls to guests (decision 0017).
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_prctl,
    libc::SYS_io_setup,
    // The process.
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_getegid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getcpu,
    libc::SYS_gettimeofday,
    libc::SYS_set_tid_address,
];

#[cfg(target_arch = "x86_64")]
const OPERATOR_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_pipe,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OPERATOR_HERE: &[libc::c_long] = &[];

/// A panic looks for names of functions with these; refused, it does without, and the message is still written.
#[cfg(target_arch = "x86_64")]
pub(super) const REFUSED: &[libc::c_long] =
    &[libc::SYS_openat, libc::SYS_open, libc::SYS_getcwd, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const REFUSED: &[libc::c_long] = &[libc::SYS_openat, libc::SYS_getcwd];

/// Those that may be called, but not for memory that can be executed.
pub(super) const NOT_EXECUTABLE: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

pub(super) fn lcore() -> Vec<libc::c_long> {
    [COMMON, COMMON_HERE, LCORE].concat()
}

pub(super) fn session() -> Vec<libc::c_long> {
    [COMMON, COMMON_HERE, SESSION].concat()
}

/// All that any of them makes: what the process makes.
pub(super) fn process() -> Vec<libc::c_long> {
    let mut all = [COMMON, COMMON_HERE, LCORE, SESSION, OPERATOR, OPERATOR_HERE].concat();
    all.sort_unstable();
    all.dedup();
    all
}
