//! Hugepages, lockable memory, memfds.

use std::fs;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Resource, getrlimit};

use super::Check;

/// What a NIC's packet memory needs to be locked.
const MEMLOCK_WANTED: u64 = 64 << 20;

pub(super) fn hugepages_2m() -> Check {
    hugepages("hugepages-2m", 2048, 64)
}

pub(super) fn hugepages_1g() -> Check {
    let found = pool(1 << 20);
    match found {
        Some((total, free)) if total > 0 => Check::ok("hugepages-1g", format!("{free} of {total} free")),
        // Only for gigabytes of packet memory: not having them is no fault.
        Some(_) => Check::ok("hugepages-1g", "none reserved; needed only with --hugepages 1g"),
        None => Check::ok("hugepages-1g", "not known to this machine; needed only with --hugepages 1g"),
    }
}

fn hugepages(name: &'static str, kib: u64, wanted: u64) -> Check {
    let mend = |pages| format!("echo {pages} | sudo tee {}/nr_hugepages", folder(kib));
    match pool(kib) {
        Some((total, free)) if free >= wanted.min(32) => Check::ok(name, format!("{free} of {total} free")),
        Some((total, free)) => {
            let found =
                format!("{free} of {total} free: packet memory lies on 4 KiB pages, which costs TLB misses");
            Check::warn(name, found, mend(total - free.min(total) + wanted))
        }
        None => Check::warn(name, "not known to this kernel", "use a kernel with CONFIG_HUGETLBFS"),
    }
}

fn folder(kib: u64) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB")
}

/// Pages in the pool, and those of them that are free.
fn pool(kib: u64) -> Option<(u64, u64)> {
    let number = |file: &str| fs::read_to_string(format!("{}/{file}", folder(kib))).ok()?.trim().parse().ok();
    Some((number("nr_hugepages")?, number("free_hugepages")?))
}

pub(super) fn memlock() -> Check {
    match getrlimit(Resource::Memlock).current {
        None => Check::ok("memlock", "unlimited"),
        Some(bytes) if bytes >= MEMLOCK_WANTED => Check::ok("memlock", format!("{} MiB", bytes >> 20)),
        Some(bytes) => Check::warn(
            "memlock",
            format!("{} KiB: too little to lock packet memory for a NIC", bytes >> 10),
            "ulimit -l unlimited (as root; LimitMEMLOCK=infinity in a systemd unit)",
        ),
    }
}

pub(super) fn memfd() -> Check {
    let made = memfd_create("polder-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .and_then(|fd| fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::SEAL));
    match made {
        Ok(()) => Check::ok("memfd", "can be made and sealed"),
        Err(e) => Check::bad(
            "memfd",
            format!("memfd_create: {e}"),
            "use a kernel of 3.17 or later, and allow the call in the sandbox",
        ),
    }
}
