//! What VFIO answers: a fixed structure, and behind it a list of capabilities, each with an ID and the place of the next.
#![expect(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]

use core::mem::offset_of;
use core::ops::{Range, RangeInclusive};

use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS,
    VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_WRITE, vfio_info_cap_header, vfio_iommu_type1_info,
    vfio_iommu_type1_info_cap_iova_range, vfio_iommu_type1_info_dma_avail, vfio_region_info,
    vfio_region_info_cap_sparse_mmap,
};

/// More capabilities than the kernel has kinds of: a list that is longer runs in a circle.
const MOST_CAPABILITIES: usize = 64;

/// The bytes of an answer. What lies beyond their end reads as 0.
#[derive(Clone, Debug)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    /// From the words that the kernel filled in, `bytes` bytes of them.
    pub(super) fn new(words: &[u64], bytes: usize) -> Self {
        let mut all: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        all.truncate(bytes);
        Self(all)
    }

    /// Two neighbouring fields of 32 bits.
    pub(super) fn words(first: u32, second: u32) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// Bytes that the kernel wanted room for.
    pub(super) fn argsz(&self) -> usize {
        self.u32(0) as usize
    }

    pub(super) fn flags(&self) -> u32 {
        self.u32(4)
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    /// Where the capability `id` of the list that begins at `first` stands.
    fn capability(&self, first: u32, id: u32) -> Option<usize> {
        let mut at = first as usize;
        for _ in 0..MOST_CAPABILITIES {
            if at == 0 {
                return None;
            }
            let [low, high] = self.bytes(at + offset_of!(vfio_info_cap_header, id));
            if u32::from(u16::from_ne_bytes([low, high])) == id {
                return Some(at);
            }
            at = self.u32(at + offset_of!(vfio_info_cap_header, next)) as usize;
        }
        None
    }

    /// Pairs of 64-bit words from `at` on, as many as are there and at most `count`.
    fn pairs(&self, at: usize, count: u32) -> impl Iterator<Item = (u64, u64)> {
        let there = self.0.len().saturating_sub(at) / 16;
        (0..there.min(count as usize)).map(move |i| (self.u64(at + 16 * i), self.u64(at + 16 * i + 8)))
    }
}

/// A region of a device: a BAR, or configuration space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Its size in bytes; 0 if it is not there.
    pub(super) size: u64,
    /// Where it begins in the device's descriptor.
    pub(super) offset: u64,
    pub(super) writable: bool,
    /// What of it can be mapped.
    pub(super) mappable: Vec<Range<u64>>,
}

impl Region {
    /// From a `vfio_region_info`.
    pub(super) fn of(info: &Answer) -> Self {
        let size = info.u64(offset_of!(vfio_region_info, size));
        Self {
            size,
            offset: info.u64(offset_of!(vfio_region_info, offset)),
            writable: info.flags() & VFIO_REGION_INFO_FLAG_WRITE != 0,
            mappable: mappable(info, size),
        }
    }
}

/// All of it, or the areas that a sparse region lists. (A kernel that does not let the MSI-X table be mapped lists what
/// lies around it; one that does says so by another capability and lists nothing.)
fn mappable(info: &Answer, size: u64) -> Vec<Range<u64>> {
    if info.flags() & VFIO_REGION_INFO_FLAG_MMAP == 0 || size == 0 {
        return Vec::new();
    }
    let first = match info.flags() & VFIO_REGION_INFO_FLAG_CAPS {
        0 => 0,
        _ => info.u32(offset_of!(vfio_region_info, cap_offset)),
    };
    let Some(sparse) = info.capability(first, VFIO_REGION_INFO_CAP_SPARSE_MMAP) else {
        return vec![0..size];
    };
    let count = info.u32(sparse + offset_of!(vfio_region_info_cap_sparse_mmap, nr_areas));
    let areas = info.pairs(sparse + offset_of!(vfio_region_info_cap_sparse_mmap, areas), count);
    let inside = |(start, len): (u64, u64)| {
        let end = start.checked_add(len).filter(|end| *end <= size && len > 0)?;
        Some(start..end)
    };
    areas.filter_map(inside).collect()
}

/// What an IOMMU can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IommuInfo {
    /// Page sizes that it knows, one bit each.
    pub(super) page_sizes: u64,
    /// Addresses that devices may use; never empty.
    pub(super) ranges: Vec<RangeInclusive<u64>>,
    /// Mappings that may still be made, if the kernel tells.
    pub(super) entries_left: Option<u32>,
}

impl IommuInfo {
    /// From a `vfio_iommu_type1_info`.
    pub(super) fn of(info: &Answer) -> Self {
        let first = match info.flags() & VFIO_IOMMU_INFO_CAPS {
            0 => 0,
            _ => info.u32(offset_of!(vfio_iommu_type1_info, cap_offset)),
        };
        let page_sizes = match info.flags() & VFIO_IOMMU_INFO_PGSIZES {
            0 => 4096,
            _ => info.u64(offset_of!(vfio_iommu_type1_info, iova_pgsizes)),
        };
        let entries = info.capability(first, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
        let avail = offset_of!(vfio_iommu_type1_info_dma_avail, avail);
        Self { page_sizes, ranges: ranges(info, first), entries_left: entries.map(|at| info.u32(at + avail)) }
    }
}

/// The ranges that the kernel lists; everything, if it is too old to (Linux before 5.4).
fn ranges(info: &Answer, first: u32) -> Vec<RangeInclusive<u64>> {
    let Some(at) = info.capability(first, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) else {
        return vec![0..=u64::MAX];
    };
    let count = info.u32(at + offset_of!(vfio_iommu_type1_info_cap_iova_range, nr_iovas));
    let list = info.pairs(at + offset_of!(vfio_iommu_type1_info_cap_iova_range, iova_ranges), count);
    list.map(|(start, end)| start..=end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `vfio_region_info` of a region of 16 KiB with these capabilities' bytes behind it.
    fn region(flags: u32, capabilities: &[u64]) -> Answer {
        let mut words = vec![Answer::words(0, flags), Answer::words(2, 32), 0x4000, 2 << 40];
        words.extend(capabilities);
        Answer::new(&words, words.len() * 8)
    }

    /// A capability's header: ID, version 1, the next one's place.
    fn header(id: u32, next: u32) -> u64 {
        Answer::words(id | 1 << 16, next)
    }

    #[test]
    fn a_region_is_mapped_whole_or_in_areas_or_not() {
        let whole = Region::of(&region(7, &[]));
        assert_eq!((whole.size, whole.offset, whole.writable), (0x4000, 2 << 40, true));
        assert_eq!(whole.mappable, [0..0x4000]);
        assert_eq!(Region::of(&region(3, &[])).mappable, [], "no MMAP flag");
        let msix_mappable = region(15, &[header(3, 0)]);
        assert_eq!(Region::of(&msix_mappable).mappable, [0..0x4000]);
        let sparse = [header(3, 40), header(1, 0), Answer::words(2, 0), 0, 0x1000, 0x2000, 0x2000];
        assert_eq!(Region::of(&region(15, &sparse)).mappable, [0..0x1000, 0x2000..0x4000]);
        let none = [header(1, 0), Answer::words(0, 0)];
        assert_eq!(Region::of(&region(15, &none)).mappable, [], "a list without areas");
    }

    #[test]
    fn areas_that_make_no_sense_are_left_out() {
        let sparse = [header(1, 0), Answer::words(9, 0), 0x3000, 0x1001, u64::MAX, 2, 0x1000, 0, 0, 0x1000];
        assert_eq!(Region::of(&region(15, &sparse)).mappable, [0..0x1000]);
    }

    #[test]
    fn a_list_in_a_circle_or_beyond_the_end_ends() {
        assert_eq!(Region::of(&region(15, &[header(9, 32)])).mappable, [0..0x4000]);
        assert_eq!(Region::of(&region(15, &[header(9, 4000)])).mappable, [0..0x4000]);
    }

    #[test]
    fn an_iommu_tells_its_ranges_and_what_is_left() {
        let words = [
            Answer::words(0, 3),
            0x4020_1000,
            Answer::words(24, 0),
            header(1, 72),
            Answer::words(2, 0),
            0,
            0xfedf_ffff,
            0xfef0_0000,
            (1 << 39) - 1,
            header(3, 0),
            Answer::words(65_535, 0),
        ];
        let info = IommuInfo::of(&Answer::new(&words, words.len() * 8));
        assert_eq!(info.page_sizes, 0x4020_1000);
        assert_eq!(info.ranges, [0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1]);
        assert_eq!(info.entries_left, Some(65_535));
    }

    #[test]
    fn an_old_kernel_tells_neither() {
        let info = IommuInfo::of(&Answer::new(&[Answer::words(0, 0), 0, 0], 24));
        assert_eq!(info, IommuInfo { page_sizes: 4096, ranges: vec![0..=u64::MAX], entries_left: None });
    }
}
