//! The packet memory.

use mbuf::{HEADROOM, Mempool, MempoolConfig, PageSize, ZoneConfig};

use crate::failure::Failure;
use crate::settings::{Hugepages, MemorySize};

/// Bytes of packet that an mbuf holds: a full frame of 1500 bytes of payload with room to spare; and with the headroom 2 KiB
/// behind the 256 bytes that AF_XDP keeps in front, since some cards count their buffers in whole KiB.
const DATA_ROOM: usize = 2048 + 128;
/// Bytes that an mbuf takes up, rounded up: its head, headroom and data room, and what sets it apart from the next.
const STRIDE: usize = 64 + HEADROOM + DATA_ROOM + 64;

/// Makes the pool that all ports share. Warns, once, if its pages are small though better ones were wanted.
pub(crate) fn make_pool(size: MemorySize, hugepages: Hugepages) -> Result<&'static Mempool, Failure> {
    let zone = ZoneConfig { pages: page_size(hugepages), ..ZoneConfig::default() };
    let mbufs = size.bytes() as usize / STRIDE;
    let config = MempoolConfig { mbufs, data_room: DATA_ROOM, zone, ..MempoolConfig::default() };
    let pool = Mempool::new(&config).map_err(Failure::runtime)?;
    if hugepages == Hugepages::Auto && pool.zone().page_size() == PageSize::Small4K {
        tracing::warn!("{}", small_pages(pool.zone().len()));
    }
    Ok(pool)
}

fn page_size(hugepages: Hugepages) -> PageSize {
    match hugepages {
        Hugepages::Auto => PageSize::Auto,
        Hugepages::Gib => PageSize::Huge1G,
        Hugepages::Mib => PageSize::Huge2M,
        Hugepages::Off => PageSize::Small4K,
    }
}

fn small_pages(bytes: usize) -> String {
    let pages = bytes.div_ceil(PageSize::Huge2M.bytes());
    format!(
        "packet memory is on 4 KiB pages; to reserve {pages} hugepages of 2 MiB for it, run \
         `echo {pages} | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`, then start polder again \
         (--hugepages off silences this)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_memory_than_was_asked_for() {
        let size: MemorySize = "4M".parse().unwrap();
        let pool = make_pool(size, Hugepages::Off).unwrap();
        assert!(pool.total() > 1000 && pool.zone().len() as u64 <= size.bytes(), "{pool:?}");
    }

    #[test]
    fn the_warning_names_the_command() {
        assert!(small_pages(64 << 20).contains("echo 32 | sudo tee"));
    }
}
