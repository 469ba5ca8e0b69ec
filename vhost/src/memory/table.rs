//! The memory table: regions sorted by guest-physical address, each one a mapping that survives its owner's tricks.
#![expect(unsafe_code, reason = "turns checked guest addresses into raw pointers")]
// UNSAFETY: a `Window` is made only by a translation that found all its bytes inside one region's mapping, and is used
// only while the snapshot that made it is alive (a vring holds an `Arc` of it beside its windows).

use core::ptr::NonNull;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mbuf::foreign::{ForeignMapping, Watch};

use super::budget::Charge;
use super::file::{FileId, Seal, prepare};
use super::{Allowance, FrontendVa, Gpa, MemoryError};

/// Most regions of one guest: what GET_MAX_MEM_SLOTS answers.
pub(crate) const MAX_REGIONS: usize = 509;

/// What a region's numbers must be multiples of.
const ALIGNMENT: u64 = 4096;

/// One region as a message asked for it. Not checked yet.
#[derive(Debug)]
pub(crate) struct RegionRequest {
    pub(crate) gpa: Gpa,
    pub(crate) size: u64,
    pub(crate) va: FrontendVa,
    pub(crate) mmap_offset: u64,
    pub(crate) fd: OwnedFd,
}

/// `len` bytes of guest memory inside one mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: usize,
}

// SAFETY: a pointer and a length. Whoever uses it holds the snapshot that made it, whose mapping any thread may touch.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

/// One region as the data plane keeps it at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionView {
    pub(crate) gpa: u64,
    pub(crate) len: u64,
    /// Host address of the region's first byte; all `len` are mapped.
    pub(crate) host: NonNull<u8>,
}

// SAFETY: as for `Window`.
unsafe impl Send for RegionView {}
// SAFETY: as for `Window`.
unsafe impl Sync for RegionView {}

#[derive(Clone, Debug)]
pub(crate) struct Region {
    gpa: u64,
    size: u64,
    va: u64,
    /// Host address of the region's first byte.
    host: NonNull<u8>,
    seal: Seal,
    /// The file behind it, and where in it the region starts.
    file: FileId,
    offset: u64,
    /// How often it was added and not removed.
    claims: u32,
    /// Keeps `size` bytes from `host` on mapped.
    mapped: Arc<Mapped>,
}

/// A mapping, and what it counts for. They go in this order.
#[derive(Debug)]
struct Mapped {
    mapping: ForeignMapping,
    charge: Charge,
}

// SAFETY: `host` points into `mapped`, which is Send and Sync and lives as long.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// A region that was asked for and checked, as far as that goes without mapping it.
struct Checked<'r> {
    request: &'r RegionRequest,
    len: usize,
    seal: Seal,
    file: FileId,
    /// Bytes that its mapping takes up.
    extent: u64,
}

impl<'r> Checked<'r> {
    fn new(request: &'r RegionRequest) -> Result<Self, MemoryError> {
        let (gpa, size, va, offset) = (request.gpa.0, request.size, request.va.0, request.mmap_offset);
        check_numbers(gpa, size, va, offset)?;
        let len = usize::try_from(size);
        let len = len.map_err(|_| MemoryError::Wraps { gpa, what: "guest address", start: gpa, size })?;
        let seal = prepare(request.fd.as_fd(), gpa)?;
        let file = FileId::of(request.fd.as_fd(), gpa)?;
        let extent = ForeignMapping::extent(request.fd.as_fd(), offset, len);
        let extent = extent.map_err(|source| MemoryError::Map { gpa, source })? as u64;
        Ok(Self { request, len, seal, file, extent })
    }

    /// Maps it. The mapping keeps the file; the descriptor is no longer needed.
    fn map(&self, allowance: &Arc<Allowance>, watch: &Watch) -> Result<Region, MemoryError> {
        let charge = allowance.charge(self.extent)?;
        let (fd, offset) = (self.request.fd.as_fd(), self.request.mmap_offset);
        let mapping = ForeignMapping::map_watched(fd, offset, self.len, true, watch)
            .map_err(|source| MemoryError::Map { gpa: self.request.gpa.0, source })?;
        Ok(self.region(self.seal, Arc::new(Mapped { mapping, charge })))
    }

    /// The same over a mapping that is there, if one of `regions` has just that.
    fn over(&self, regions: &[Region]) -> Option<Region> {
        let same = |r: &&Region| {
            (r.file, r.offset, r.size) == (self.file, self.request.mmap_offset, self.request.size)
        };
        regions.iter().find(same).map(|r| self.region(r.seal, Arc::clone(&r.mapped)))
    }

    fn region(&self, seal: Seal, mapped: Arc<Mapped>) -> Region {
        let RegionRequest { gpa, size, va, mmap_offset, .. } = *self.request;
        let (host, file) = (mapped.mapping.base(), self.file);
        Region { gpa: gpa.0, size, va: va.0, host, seal, file, offset: mmap_offset, claims: 1, mapped }
    }

    /// Whether this is the very same region.
    fn is(&self, region: &Region) -> bool {
        let RegionRequest { gpa, size, va, mmap_offset, .. } = *self.request;
        (region.gpa, region.size, region.va, region.offset) == (gpa.0, size, va.0, mmap_offset)
            && region.file == self.file
    }
}

impl Region {
    /// The window of `len` bytes, `at` bytes into the region, if all of them are inside.
    #[inline(always)]
    fn window(&self, at: u64, len: u64) -> Option<Window> {
        if at > self.size || len > self.size - at {
            return None;
        }
        // SAFETY: at <= size, and `size` bytes from `host` on are mapped.
        let start = unsafe { self.host.add(at as usize) };
        Some(Window { start, len: len as usize })
    }
}

/// The numbers alone: nothing empty, unaligned or wrapping.
fn check_numbers(gpa: u64, size: u64, va: u64, offset: u64) -> Result<(), MemoryError> {
    if size == 0 {
        return Err(MemoryError::Empty { gpa });
    }
    let numbers = [("guest address", gpa), ("front end address", va), ("offset", offset), ("size", size)];
    if let Some(&(what, value)) = numbers.iter().find(|(_, value)| !value.is_multiple_of(ALIGNMENT)) {
        return Err(MemoryError::Unaligned { gpa, what, value });
    }
    match numbers[..3].iter().find(|(_, start)| start.checked_add(size).is_none()) {
        Some(&(what, start)) => Err(MemoryError::Wraps { gpa, what, start, size }),
        None => Ok(()),
    }
}

/// A guest's memory as one table described it. Never changes; a new table makes a new one, in which regions that stayed
/// share their mappings with the old one.
#[derive(Debug, Default)]
pub(crate) struct GuestMemory {
    /// By guest-physical address.
    regions: Box<[Region]>,
    /// Tells if any of them, now or in a snapshot that shares some of them, lost a page.
    watch: Watch,
    /// What may be mapped.
    allowance: Arc<Allowance>,
}

impl GuestMemory {
    /// None yet.
    pub(crate) fn empty(allowance: Arc<Allowance>) -> Self {
        Self { allowance, ..Self::default() }
    }

    /// All of `requests`, or an error, in this memory's place. What is in both stays mapped.
    pub(crate) fn replaced_by(&self, requests: &[RegionRequest]) -> Result<Self, MemoryError> {
        let checked = requests.iter().map(Checked::new).collect::<Result<Vec<_>, _>>()?;
        self.check_limit(checked.iter().map(|region| region.extent))?;
        let map = |region: &Checked<'_>| {
            region.over(&self.regions).map_or_else(|| region.map(&self.allowance, &self.watch), Ok)
        };
        let regions = checked.iter().map(map).collect::<Result<_, _>>()?;
        self.with_regions(regions)
    }

    /// This memory and one region more. The same region again counts as one claim more on it: QEMU adds each region once
    /// for each queue pair, and removes it as often.
    pub(crate) fn with(&self, request: &RegionRequest) -> Result<Self, MemoryError> {
        let checked = Checked::new(request)?;
        let mut regions = self.regions.to_vec();
        if let Some(region) = regions.iter_mut().find(|region| checked.is(region)) {
            region.claims = region.claims.saturating_add(1);
            return Ok(self.of(regions));
        }
        if regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany(MAX_REGIONS));
        }
        self.check_limit(regions.iter().map(|r| r.mapped.charge.bytes()).chain([checked.extent]))?;
        regions.push(checked.map(&self.allowance, &self.watch)?);
        self.with_regions(regions)
    }

    /// Before anything is mapped.
    fn check_limit(&self, extents: impl Iterator<Item = u64>) -> Result<(), MemoryError> {
        let (asked, limit) = (extents.fold(0, u64::saturating_add), self.allowance.limit());
        if asked > limit { Err(MemoryError::Limit { asked, limit }) } else { Ok(()) }
    }

    /// Of these regions, which are in order, as this memory is otherwise.
    fn of(&self, regions: Vec<Region>) -> Self {
        Self { regions: regions.into(), watch: self.watch.clone(), allowance: Arc::clone(&self.allowance) }
    }

    /// This memory with one claim less on the region that these three name; without it, if it was the last one.
    pub(crate) fn without(&self, gpa: Gpa, va: FrontendVa, size: u64) -> Result<Self, MemoryError> {
        let mut regions = self.regions.to_vec();
        let found = regions.iter().position(|r| r.gpa == gpa.0 && r.va == va.0 && r.size == size);
        let found = found.ok_or(MemoryError::NoSuchRegion { gpa: gpa.0, va: va.0, size })?;
        regions[found].claims -= 1;
        if regions[found].claims == 0 {
            regions.remove(found);
        }
        Ok(self.of(regions))
    }

    /// Of these regions, if they don't overlap.
    fn with_regions(&self, mut regions: Vec<Region>) -> Result<Self, MemoryError> {
        regions.sort_unstable_by_key(|r| r.va);
        if let Some(pair) = regions.windows(2).find(|pair| pair[1].va - pair[0].va < pair[0].size) {
            return Err(MemoryError::OverlapVa(pair[0].va, pair[1].va));
        }
        regions.sort_unstable_by_key(|r| r.gpa);
        if let Some(pair) = regions.windows(2).find(|pair| pair[1].gpa - pair[0].gpa < pair[0].size) {
            return Err(MemoryError::OverlapGpa(pair[0].gpa, pair[1].gpa));
        }
        Ok(self.of(regions))
    }

    /// The region that `gpa` lies in: what the data plane translates by, one region at hand for as long as it fits.
    #[inline]
    pub(crate) fn region_at(&self, gpa: Gpa) -> Option<RegionView> {
        let behind = self.regions.partition_point(|r| r.gpa <= gpa.0);
        let region = self.regions.get(behind.checked_sub(1)?)?;
        let inside = gpa.0 - region.gpa < region.size;
        inside.then_some(RegionView { gpa: region.gpa, len: region.size, host: region.host })
    }

    /// The `len` bytes at `va`, if all of them lie in one region. Control plane.
    pub(crate) fn translate_va(&self, va: FrontendVa, len: u64) -> Option<Window> {
        let region = self.regions.iter().find(|r| va.0.checked_sub(r.va).is_some_and(|at| at < r.size))?;
        region.window(va.0 - region.va, len)
    }

    /// Whether there is no memory at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Whether a page of it was taken away. Once true, always true.
    #[inline(always)]
    pub(crate) fn is_gone(&self) -> bool {
        self.watch.is_gone()
    }

    /// Number of regions, their bytes, and how many of them can still shrink.
    pub(crate) fn summary(&self) -> MemorySummary {
        MemorySummary {
            regions: self.regions.len(),
            bytes: self.regions.iter().map(|r| r.size).fold(0, u64::saturating_add),
            unsealed: self.regions.iter().filter(|r| r.seal == Seal::Open).count(),
        }
    }
}

/// What `port show` tells of a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemorySummary {
    pub(crate) regions: usize,
    pub(crate) bytes: u64,
    pub(crate) unsealed: usize,
}

impl core::fmt::Display for MemorySummary {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} regions, {} MiB, ", self.regions, self.bytes >> 20)?;
        match self.unsealed {
            0 => f.write_str("sealed against shrinking"),
            n => write!(f, "{n} not sealed against shrinking"),
        }
    }
}

#[cfg(test)]
mod tests;
