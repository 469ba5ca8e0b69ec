//! Physical addresses: what a device without an IOMMU uses.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mbuf::Zone;

use crate::bus::BusError;

/// /proc/PID/pagemap (the kernel's admin-guide/mm/pagemap): a word for each small page; bits 0 to 54 are its frame's number,
/// bit 63 says that it is there.
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// What must be added (wrapping) to the zone's addresses to make them physical: there is one such number only if its pages
/// lie in memory as they lie in the zone.
pub(super) fn offset(zone: &Zone) -> Result<u64, BusError> {
    let page = rustix::param::page_size() as u64;
    let (base, len) = (zone.base().addr().get() as u64, zone.len() as u64);
    let mut bytes = vec![0; (len / page * 8) as usize];
    let read = File::open("/proc/self/pagemap").and_then(|f| f.read_exact_at(&mut bytes, base / page * 8));
    read.map_err(BusError::os("cannot read physical addresses from /proc/self/pagemap"))?;
    let (entries, _) = bytes.as_chunks();
    let first = start(entries.iter().map(|entry| u64::from_ne_bytes(*entry)), len)?;
    Ok((first * page).wrapping_sub(base))
}

/// The first page's frame, if the others are its neighbours in order.
fn start(entries: impl Iterator<Item = u64>, len: u64) -> Result<u64, BusError> {
    let mut first = None;
    for (i, entry) in (0..).zip(entries) {
        let frame = entry & FRAME;
        if entry & PRESENT == 0 || frame == 0 {
            return Err(BusError::Missing(
                "the kernel does not tell physical addresses: run this as root (CAP_SYS_ADMIN)".into(),
            ));
        }
        if *first.get_or_insert(frame) + i != frame {
            return Err(BusError::Missing(format!(
                "without an IOMMU {len} bytes for a NIC must lie in one piece of physical memory, and these do not: use \
                 hugepages that hold them whole (`--hugepages 1g` for packet memory)"
            )));
        }
    }
    first.ok_or_else(|| BusError::Missing("an empty zone".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[u64]) -> Result<u64, String> {
        start(frames.iter().map(|f| f | PRESENT | 1 << 61), 4096 * frames.len() as u64)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn only_neighbours_are_one_piece() {
        assert_eq!(of(&[7]), Ok(7));
        assert_eq!(of(&[0x1234, 0x1235, 0x1236]), Ok(0x1234));
        assert!(of(&[7, 9]).unwrap_err().contains("8192 bytes"));
        assert!(of(&[7, 6]).unwrap_err().contains("--hugepages 1g"));
    }

    #[test]
    fn what_is_hidden_is_said() {
        assert!(of(&[0]).unwrap_err().contains("as root"));
        assert!(start([7u64].into_iter(), 4096).unwrap_err().to_string().contains("as root"), "not present");
    }
}
