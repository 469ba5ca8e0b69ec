//! Page sizes: what there is of each, and the command that makes more.

use core::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;

/// The size of a zone's pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageSize {
    /// The largest that can be had: 1 GiB for zones of at least that size, or else 2 MiB, or else 4 KiB.
    #[default]
    Auto,
    /// 1 GiB hugepages, or an error.
    Huge1G,
    /// 2 MiB hugepages, or an error.
    Huge2M,
    /// The smallest pages of the machine, on most 4 KiB.
    Small4K,
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Huge1G => "1 GiB",
            Self::Huge2M => "2 MiB",
            Self::Small4K => "4 KiB",
        })
    }
}

impl PageSize {
    /// Bytes of one page; `Auto` counts as the smallest.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Huge1G => 1 << 30,
            Self::Huge2M => 2 << 20,
            Self::Small4K | Self::Auto => rustix::param::page_size(),
        }
    }

    /// The sizes to try for a zone of `bytes`, best first.
    pub(super) fn candidates(self, bytes: usize) -> &'static [Self] {
        match self {
            Self::Auto if bytes >= 1 << 30 => &[Self::Huge1G, Self::Huge2M, Self::Small4K],
            Self::Auto => &[Self::Huge2M, Self::Small4K],
            Self::Huge1G => &[Self::Huge1G],
            Self::Huge2M => &[Self::Huge2M],
            Self::Small4K => &[Self::Small4K],
        }
    }

    pub(super) fn is_huge(self) -> bool {
        matches!(self, Self::Huge1G | Self::Huge2M)
    }

    pub(super) fn memfd_flags(self) -> MemfdFlags {
        match self {
            Self::Huge1G => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
            Self::Huge2M => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
            Self::Small4K | Self::Auto => MemfdFlags::empty(),
        }
    }
}

/// The kernel's pool of hugepages of one size, on one node or on all, as sysfs shows it.
pub(super) struct HugePool {
    folder: PathBuf,
    /// Pages in the pool, in use or not.
    total: usize,
    /// Pages that neither are in use nor were promised to somebody.
    pub(super) available: usize,
}

impl HugePool {
    /// `None` if the machine has no pages of this size (on this node).
    pub(super) fn of(size: PageSize, node: Option<u32>) -> Option<Self> {
        let root = match node {
            None => PathBuf::from("/sys/kernel/mm/hugepages"),
            Some(n) => PathBuf::from(format!("/sys/devices/system/node/node{n}/hugepages")),
        };
        let folder = root.join(format!("hugepages-{}kB", size.bytes() >> 10));
        let total = number(&folder.join("nr_hugepages"))?;
        let free = number(&folder.join("free_hugepages"))?;
        // Promises are counted for the machine, not by node.
        let promised = number(&folder.join("resv_hugepages")).unwrap_or(0);
        Some(Self { folder, total, available: free.saturating_sub(promised) })
    }

    /// The command after which `pages` are available.
    pub(super) fn command(&self, pages: usize) -> String {
        let target = self.total + pages.saturating_sub(self.available);
        format!("echo {target} | sudo tee {}", self.folder.join("nr_hugepages").display())
    }
}

fn number(path: &Path) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes that the kernel can give as small pages without swapping, as /proc/meminfo estimates it.
pub(super) fn small_available() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigabyte_page_is_not_wasted_on_less() {
        assert_eq!(PageSize::Auto.candidates((1 << 30) - 1)[0], PageSize::Huge2M);
        assert_eq!(PageSize::Auto.candidates(1 << 30)[0], PageSize::Huge1G);
        assert_eq!(PageSize::Huge1G.candidates(1), [PageSize::Huge1G]);
    }

    #[test]
    fn the_command_adds_what_is_missing_to_what_is_there() {
        let pool = HugePool { folder: "/x".into(), total: 10, available: 3 };
        assert_eq!(pool.command(5), "echo 12 | sudo tee /x/nr_hugepages");
        assert_eq!(pool.command(2), "echo 10 | sudo tee /x/nr_hugepages");
    }
}
