//! How much memory the process may lock: VFIO locks what devices reach, and counts it (setrlimit(2), RLIMIT_MEMLOCK).

use crate::bus::BusError;

/// The limit, and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memlock {
    /// Bytes; `None`: no limit, or a process that is above it.
    pub(super) limit: Option<u64>,
    /// Bytes that are locked now.
    pub(super) locked: u64,
}

/// capabilities(7): its holder may lock any amount.
const CAP_IPC_LOCK: u32 = 14;

impl Memlock {
    /// No limit.
    #[cfg(test)]
    pub(super) const NONE: Self = Self { limit: None, locked: 0 };

    /// This process's, now.
    pub(super) fn now() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::from_status(&status, limit)
    }

    fn from_status(status: &str, limit: Option<u64>) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let locked = field("VmLck:").and_then(|size| size.trim_end_matches("kB").trim().parse::<u64>().ok());
        let limit = limit.filter(|_| capabilities & 1 << CAP_IPC_LOCK == 0);
        Self { limit, locked: locked.unwrap_or(0) << 10 }
    }

    /// Whether so many bytes more can be locked.
    pub(super) fn check(self, bytes: u64) -> Result<(), BusError> {
        match self.limit {
            Some(limit) if self.locked.saturating_add(bytes) > limit => Err(self.too_small(bytes)),
            _ => Ok(()),
        }
    }

    /// That they cannot.
    pub(super) fn too_small(self, bytes: u64) -> BusError {
        let needed = self.locked.saturating_add(bytes).div_ceil(1 << 10);
        let Some(limit) = self.limit else {
            return BusError::Missing(format!(
                "the kernel has no memory left to map {bytes} bytes for DMA: stop something, or use less packet memory"
            ));
        };
        BusError::Missing(format!(
            "the limit of locked memory (RLIMIT_MEMLOCK) is {} KiB, a NIC needs {needed} KiB: `ulimit -l {needed}` in the \
             shell, or LimitMEMLOCK=infinity in the service, or run with CAP_IPC_LOCK",
            limit >> 10
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpolder\nVmLck:\t    2048 kB\nCapEff:\t0000000000000000\n";

    #[test]
    fn read_from_the_kernels_words() {
        let limited = Memlock::from_status(STATUS, Some(8 << 20));
        assert_eq!(limited, Memlock { limit: Some(8 << 20), locked: 2 << 20 });
        let root = STATUS.replace("0000000000000000", "000001ffffffffff");
        assert_eq!(Memlock::from_status(&root, Some(8 << 20)).limit, None);
        assert_eq!(Memlock::from_status(STATUS, None).limit, None);
        assert_eq!(Memlock::from_status("", None), Memlock::NONE);
    }

    #[test]
    fn what_fits_fits_to_the_byte() {
        let memlock = Memlock { limit: Some(12 << 10), locked: 4 << 10 };
        assert!(memlock.check(8 << 10).is_ok());
        let error = memlock.check((8 << 10) + 1).unwrap_err().to_string();
        assert!(error.contains("is 12 KiB") && error.contains("needs 13 KiB"), "{error}");
    }
}
