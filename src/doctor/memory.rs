//! Hugepages, lockable memory, memfds.

use std::fs;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::settings::MemorySize;

/// Pages of 2 MiB that packet memory of the ordinary size needs.
pub(super) const PACKET_PAGES: u64 = 32;
/// What a card has beside packet memory: descriptor rings.
const RINGS: u64 = 4 << 20;
/// Lets its owner lock memory without limit (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn hugepages_2m() -> Check {
    hugepages("hugepages-2m", 2048, 64)
}

pub(super) fn hugepages_1g() -> Check {
    let found = pool_of(1 << 20);
    match found {
        Some((total, free)) if total > 0 => Check::ok("hugepages-1g", format!("{free} of {total} free")),
        // Only for gigabytes of packet memory: not having them is no fault.
        Some(_) => Check::ok("hugepages-1g", "none reserved; needed only with --hugepages 1g"),
        None => Check::ok("hugepages-1g", "not known to this machine; needed only with --hugepages 1g"),
    }
}

fn hugepages(name: &'static str, kib: u64, wanted: u64) -> Check {
    let mend = |pages| format!("echo {pages} | sudo tee {}/nr_hugepages", folder(kib));
    match pool_of(kib) {
        Some((total, free)) if free >= wanted.min(PACKET_PAGES) => {
            Check::ok(name, format!("{free} of {total} free"))
        }
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

fn pool_of(kib: u64) -> Option<(u64, u64)> {
    pool(|file| fs::read_to_string(format!("{}/{file}", folder(kib))).ok())
}

/// Pages in a pool, and those of them that are free; `read` reads the pool's files.
pub(super) fn pool(read: impl Fn(&str) -> Option<String>) -> Option<(u64, u64)> {
    let number = |file: &str| read(file)?.trim().parse().ok();
    Some((number("nr_hugepages")?, number("free_hugepages")?))
}

/// Whether memory can be locked for so many cards: all reach the same packet memory, which is locked once, and each has
/// rings of its own.
pub(super) fn memlock(nics: usize) -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    memlock_of(nics as u64, getrlimit(Resource::Memlock).current, locks_without_limit(&status))
}

fn memlock_of(nics: u64, limit: Option<u64>, without_limit: bool) -> Check {
    const NAME: &str = "memlock";
    let wanted = MemorySize::default().bytes() + nics * RINGS;
    match limit {
        None => Check::ok(NAME, "unlimited"),
        Some(_) if without_limit => Check::ok(NAME, "unlimited for who has CAP_IPC_LOCK, as this user has"),
        Some(bytes) if nics == 0 => Check::ok(NAME, format!("{} KiB; nothing needs more", bytes >> 10)),
        Some(bytes) if bytes >= wanted => Check::ok(NAME, format!("{} MiB", bytes >> 20)),
        Some(bytes) => Check::warn(
            NAME,
            format!(
                "{} KiB may be locked; packet memory of {} MiB and the rings of network cards ({nics}) need {} KiB",
                bytes >> 10,
                MemorySize::default().bytes() >> 20,
                wanted >> 10
            ),
            format!("ulimit -l {} (as root; LimitMEMLOCK=infinity in a systemd unit)", wanted >> 10),
        ),
    }
}

/// Whether a process's status says that it has CAP_IPC_LOCK.
fn locks_without_limit(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_IPC_LOCK) != 0)
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

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn memory_to_lock_is_asked_for_only_with_a_card() {
        let limit = Some(8 << 20);
        assert_eq!(memlock_of(0, limit, false).state, State::Ok);
        assert_eq!(memlock_of(1, limit, true).state, State::Ok);
        assert_eq!(memlock_of(1, Some(68 << 20), false).state, State::Ok);
        assert_eq!(memlock_of(1, None, false).state, State::Ok);
        let check = memlock_of(2, limit, false);
        let needed = (64 + 2 * 4) * 1024;
        assert!(check.mend.unwrap().contains(&format!("ulimit -l {needed} ")), "{}", check.found);
    }

    #[test]
    fn a_capability_is_found() {
        assert!(locks_without_limit("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(!locks_without_limit("CapPrm:\t0000000000004000\nCapEff:\t0000000000000000\n"));
        assert!(!locks_without_limit(""));
    }
}
