//! Which zones devices reach, and at which addresses: one table for all devices behind one container.
//!
//! A zone is mapped whole, by one call, so that a mapping is there or not and never half. Its address for devices (IOVA) is
//! its own virtual address if the IOMMU takes that. Where it does not (an IOMMU of 39 bits, below the 47 of a process;
//! addresses that the platform keeps, like the interrupts' at 0xfee00000) a free place in the ranges that it does take is
//! found, and [`DmaMapping::offset`](crate::bus::DmaMapping::offset) says how far away that is.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mbuf::{Iova, Zone};

use super::answer::IommuInfo;
use super::memlock::Memlock;
use crate::bus::BusError;

/// Translates devices' addresses. Behind it is the kernel, or a test.
pub(super) trait Iommu: Send + Sync {
    fn info(&self) -> io::Result<IommuInfo>;
    /// All of the zone, or an error and none of it.
    fn map(&self, zone: &Zone, iova: Iova) -> io::Result<()>;
    fn unmap(&self, iova: Iova, len: usize) -> io::Result<()>;
}

/// The zones that are mapped.
#[derive(Debug)]
pub(super) struct Mappings<I> {
    iommu: I,
    table: Mutex<Vec<Mapped>>,
}

#[derive(Debug)]
struct Mapped {
    /// The zone's own address.
    base: usize,
    len: usize,
    iova: u64,
    users: usize,
}

impl Mapped {
    fn iovas(&self) -> Range<u64> {
        self.iova..self.iova + self.len as u64
    }

    fn is(&self, base: usize, len: usize) -> bool {
        (self.base, self.len) == (base, len)
    }
}

impl<I: Iommu> Mappings<I> {
    pub(super) fn new(iommu: I) -> Self {
        Self { iommu, table: Mutex::new(Vec::new()) }
    }

    pub(super) fn iommu(&self) -> &I {
        &self.iommu
    }

    /// Maps the zone, or counts one more user if it is mapped, and says at which address. To be undone by
    /// [`unmap`](Self::unmap), before the zone is dropped.
    pub(super) fn map(&self, zone: &Zone, memlock: Memlock) -> Result<Iova, BusError> {
        let (base, len) = (zone.base().addr().get(), zone.len());
        let mut table = self.table();
        if let Some(mapped) = table.iter_mut().find(|m| m.is(base, len)) {
            mapped.users += 1;
            return Ok(Iova(mapped.iova));
        }
        let info = self.iommu.info().map_err(BusError::os("cannot ask the IOMMU what it can"))?;
        check_pages(base, len, &info)?;
        check_entries(table.len(), &info)?;
        memlock.check(len as u64)?;
        let iova = place(zone, &info.ranges, &table)?;
        self.iommu.map(zone, iova).map_err(|e| refused(zone, iova, e, memlock))?;
        table.push(Mapped { base, len, iova: iova.0, users: 1 });
        Ok(iova)
    }

    /// One user less; the last one takes the mapping with it.
    pub(super) fn unmap(&self, base: usize, len: usize) {
        let mut table = self.table();
        let Some(at) = table.iter().position(|m| m.is(base, len)) else { return };
        table[at].users -= 1;
        if table[at].users > 0 {
            return;
        }
        let mapped = table.swap_remove(at);
        // The kernel keeps what devices reach for as long as they do: if this fails, memory is lost, not given away twice.
        if let Err(error) = self.iommu.unmap(Iova(mapped.iova), len) {
            tracing::warn!(%error, iova = format_args!("{:#x}", mapped.iova), len, "VFIO_IOMMU_UNMAP_DMA");
        }
    }

    fn table(&self) -> MutexGuard<'_, Vec<Mapped>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The smallest page that the IOMMU knows must divide the zone.
fn check_pages(base: usize, len: usize, info: &IommuInfo) -> Result<(), BusError> {
    let smallest = 1u64 << info.page_sizes.trailing_zeros().min(63);
    if ((base | len) as u64).is_multiple_of(smallest) {
        return Ok(());
    }
    Err(BusError::Missing(format!(
        "the IOMMU's smallest page has {smallest} bytes, larger than those of {len} bytes of packet memory: \
         use hugepages (`--hugepages 2m`)"
    )))
}

fn check_entries(used: usize, info: &IommuInfo) -> Result<(), BusError> {
    if info.entries_left == Some(0) { Err(no_entries(used)) } else { Ok(()) }
}

fn no_entries(used: usize) -> BusError {
    BusError::Missing(format!(
        "the kernel takes no more DMA mappings (1 is needed, 0 of its limit are left, {used} are Polder's): \
         raise the limit with `echo 131072 | sudo tee /sys/module/vfio_iommu_type1/parameters/dma_entry_limit` and \
         start again"
    ))
}

/// Where the zone goes: its own address, or the lowest free one.
fn place(zone: &Zone, ranges: &[RangeInclusive<u64>], table: &[Mapped]) -> Result<Iova, BusError> {
    let (own, len) = (zone.base().addr().get() as u64, zone.len() as u64);
    let free = |iova: &u64| is_allowed(*iova, len, ranges) && blocking(*iova, len, table).is_none();
    let elsewhere = || lowest(len, zone.page_size().bytes() as u64, ranges, table);
    Some(own).filter(free).or_else(elsewhere).map(Iova).ok_or_else(|| {
        let listed: Vec<_> = ranges.iter().map(|r| format!("{:#x}-{:#x}", r.start(), r.end())).collect();
        BusError::Missing(format!(
            "no room for {len} bytes of packet memory in the addresses that the IOMMU takes ({}): use less memory",
            listed.join(", ")
        ))
    })
}

fn is_allowed(iova: u64, len: u64, ranges: &[RangeInclusive<u64>]) -> bool {
    iova.checked_add(len - 1)
        .is_some_and(|last| ranges.iter().any(|r| r.contains(&iova) && r.contains(&last)))
}

/// A mapping that lies in the way.
fn blocking(iova: u64, len: u64, table: &[Mapped]) -> Option<&Mapped> {
    table.iter().find(|m| m.iovas().start < iova + len && iova < m.iovas().end)
}

/// The lowest free address, aligned to the zone's pages so that the IOMMU may use large ones. Never 0, which drivers and
/// people take for none.
fn lowest(len: u64, page: u64, ranges: &[RangeInclusive<u64>], table: &[Mapped]) -> Option<u64> {
    ranges.iter().find_map(|range| {
        let mut iova = (*range.start()).max(1).checked_next_multiple_of(page)?;
        loop {
            if !is_allowed(iova, len, core::slice::from_ref(range)) {
                return None;
            }
            match blocking(iova, len, table) {
                None => return Some(iova),
                Some(mapped) => iova = mapped.iovas().end.checked_next_multiple_of(page)?,
            }
        }
    })
}

/// What the kernel's refusal means.
fn refused(zone: &Zone, iova: Iova, source: io::Error, memlock: Memlock) -> BusError {
    let len = zone.len();
    match source.raw_os_error() {
        Some(libc::ENOSPC) => no_entries(0),
        Some(libc::ENOMEM) => memlock.too_small(len as u64),
        Some(libc::EEXIST) => BusError::Os {
            what: format!("{len} bytes at {:#x} overlap a DMA mapping that Polder did not make", iova.0),
            source,
        },
        _ => BusError::Os {
            what: format!(
                "the kernel does not map {len} bytes for DMA at {:#x} (VFIO_IOMMU_MAP_DMA)",
                iova.0
            ),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use mbuf::{PageSize, ZoneConfig};

    use super::*;

    /// An IOMMU that keeps a list, and refuses with an error number if told to.
    struct Model {
        info: IommuInfo,
        error: AtomicI32,
        mapped: Mutex<Vec<(u64, usize)>>,
    }

    impl Iommu for Model {
        fn info(&self) -> io::Result<IommuInfo> {
            Ok(self.info.clone())
        }

        fn map(&self, zone: &Zone, iova: Iova) -> io::Result<()> {
            match self.error.load(Ordering::Relaxed) {
                0 => self.mapped.lock().unwrap().push((iova.0, zone.len())),
                error => return Err(io::Error::from_raw_os_error(error)),
            }
            Ok(())
        }

        fn unmap(&self, iova: Iova, len: usize) -> io::Result<()> {
            self.mapped.lock().unwrap().retain(|m| *m != (iova.0, len));
            Ok(())
        }
    }

    const EVERYTHING: RangeInclusive<u64> = 0..=u64::MAX;

    fn mappings(ranges: &[RangeInclusive<u64>]) -> Mappings<Model> {
        let info = IommuInfo { page_sizes: 0x4020_1000, ranges: ranges.to_vec(), entries_left: Some(65_535) };
        Mappings::new(Model { info, error: AtomicI32::new(0), mapped: Mutex::default() })
    }

    fn zone(bytes: usize) -> Zone {
        let config = ZoneConfig { name: "test".into(), bytes, pages: PageSize::Small4K, numa_node: None };
        Zone::new(&config).unwrap()
    }

    fn mapped(mappings: &Mappings<Model>) -> Vec<(u64, usize)> {
        mappings.iommu().mapped.lock().unwrap().clone()
    }

    fn own(zone: &Zone) -> u64 {
        zone.base().addr().get() as u64
    }

    fn unmap(mappings: &Mappings<Model>, zone: &Zone) {
        mappings.unmap(zone.base().addr().get(), zone.len());
    }

    #[test]
    fn a_zone_is_mapped_once_at_its_own_address_for_all_its_users() {
        let (mappings, zone) = (mappings(&[EVERYTHING]), zone(8192));
        for _ in 0..2 {
            assert_eq!(mappings.map(&zone, Memlock::NONE).unwrap(), Iova(own(&zone)));
        }
        assert_eq!(mapped(&mappings), [(own(&zone), 8192)]);
        unmap(&mappings, &zone);
        assert_eq!(mapped(&mappings).len(), 1, "one user left");
        unmap(&mappings, &zone);
        assert_eq!(mapped(&mappings), []);
    }

    #[test]
    fn below_39_bits_zones_lie_side_by_side_and_not_where_interrupts_do() {
        let mappings = mappings(&[0..=0x1fff, 0xfedf_f000..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1]);
        let zones = [zone(4096), zone(8192), zone(4096)];
        let iovas: Vec<_> = zones.iter().map(|z| mappings.map(z, Memlock::NONE).unwrap().0).collect();
        assert_eq!(iovas, [0x1000, 0xfef0_0000, 0xfedf_f000], "never 0, and whole in one range");
        unmap(&mappings, &zones[1]);
        assert_eq!(mappings.map(&zone(4096), Memlock::NONE).unwrap().0, 0xfef0_0000, "free again");
    }

    #[test]
    fn no_room_is_said_with_what_there_is() {
        let error = mappings(&[0..=0xfff]).map(&zone(4096), Memlock::NONE).unwrap_err().to_string();
        assert!(error.contains("4096 bytes") && error.contains("0x0-0xfff"), "{error}");
    }

    #[test]
    fn n10_what_the_kernel_refuses_is_named_and_nothing_stays() {
        let memlock = Memlock { limit: Some(1 << 30), locked: 4096 };
        for (number, words) in [
            (libc::ENOSPC, "dma_entry_limit"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EEXIST, "overlap"),
            (libc::EFAULT, "VFIO_IOMMU_MAP_DMA"),
        ] {
            let (mappings, zone) = (mappings(&[EVERYTHING]), zone(4096));
            mappings.iommu().error.store(number, Ordering::Relaxed);
            let error = mappings.map(&zone, memlock).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(mapped(&mappings).is_empty() && mappings.table().is_empty());
            mappings.iommu().error.store(0, Ordering::Relaxed);
            assert!(mappings.map(&zone, memlock).is_ok(), "the next try starts afresh");
        }
    }

    #[test]
    fn n10_limits_are_looked_at_first() {
        let mut full = mappings(&[EVERYTHING]);
        full.iommu.info.entries_left = Some(0);
        let error = full.map(&zone(4096), Memlock::NONE).unwrap_err().to_string();
        assert!(error.contains("dma_entry_limit"), "{error}");
        let memlock = Memlock { limit: Some(8192), locked: 4096 };
        let locked = mappings(&[EVERYTHING]);
        let error = locked.map(&zone(8192), memlock).unwrap_err().to_string();
        assert!(error.contains("ulimit -l 12"), "4 KiB locked and 8 wanted: {error}");
        assert!(mapped(&full).is_empty() && mapped(&locked).is_empty(), "the kernel was not even asked");
    }

    #[test]
    fn pages_smaller_than_the_iommus_are_refused() {
        let mut mappings = mappings(&[EVERYTHING]);
        mappings.iommu.info.page_sizes = 1 << 24;
        let error = mappings.map(&zone(4096), Memlock::NONE).unwrap_err().to_string();
        assert!(error.contains("16777216") && error.contains("--hugepages"), "{error}");
    }
}
