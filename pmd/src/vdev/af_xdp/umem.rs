//! UMEM: the packet memory as the kernel is told of it.
//!
//! The pool's whole zone is registered, in *unaligned chunk* mode: mbufs lie a number of bytes apart that is no power of
//! two. A chunk is then whatever address we put into the fill ring, and the bytes behind it. Ours begins where an mbuf's
//! buffer does (behind its head, at the headroom's first byte) and is as long as the buffer, at most a page:
//!
//! ```text
//!   head │ headroom 128 │ data room ...                                  │ head of the next
//!        ├─ chunk ───────────────────────────────────────────────────────┤
//!        │ XDP_PACKET_HEADROOM 256     │ frame, at most `frame_room()`    │
//! ```
//!
//! So nothing that the kernel, its drivers or a device writes into a chunk (a frame, metadata in front of it) leaves the
//! buffer, and the mbuf's head is never within reach. Received data simply has a headroom of 256 bytes.
//!
//! A chunk may cross from one page to the next. In copy mode the kernel copies through its own mapping of the zone, which is
//! contiguous, and any chunk will do. In zero-copy mode the device sees each page by itself, and the kernel
//! (`xp_check_unaligned`, `xp_desc_crosses_non_contig_pg`) silently discards chunks over pages that are not neighbours
//! for the device. Hence zero copy is only done on hugepages, and mbufs across the end of one are not lent ([`Umem::fits`]).

use mbuf::{HEADROOM, Mbuf, Mempool};
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};

/// What the kernel leaves free in front of each frame that it receives (XDP_PACKET_HEADROOM).
const XDP_HEADROOM: usize = 256;
/// Smallest chunk that the kernel takes (XDP_UMEM_MIN_CHUNK_SIZE).
const MIN_CHUNK: usize = 2048;
/// Bits of an address in unaligned mode (XSK_UNALIGNED_BUF_ADDR_MASK); an offset into the chunk stands above them.
const ADDRESS_BITS: u32 = 48;

/// A pool whose zone is a UMEM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Umem {
    pool: &'static Mempool,
    chunk: usize,
    /// The end of no chunk may lie behind a multiple of this: 0 if anywhere.
    page: usize,
}

impl Umem {
    /// `None` if the pool's mbufs are too small; [`needed_data_room`] then says what would do.
    pub(crate) fn of(pool: &'static Mempool) -> Option<Self> {
        let chunk = pool.buffer_len().min(rustix::param::page_size());
        (chunk >= MIN_CHUNK).then_some(Self { pool, chunk, page: 0 })
    }

    /// The same for a device that reads and writes the memory itself. `None` if it is not on hugepages.
    pub(crate) fn for_zero_copy(self) -> Option<Self> {
        let page = self.pool.zone().page_size().bytes();
        (page > rustix::param::page_size()).then_some(Self { page, ..self })
    }

    pub(crate) fn pool(&self) -> &'static Mempool {
        self.pool
    }

    /// What XDP_UMEM_REG is told.
    pub(crate) fn registration(&self) -> XdpUmemReg {
        XdpUmemReg {
            addr: self.pool.zone().base().addr().get() as u64,
            len: self.pool.zone().len() as u64,
            chunk_size: self.chunk as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::XDP_UMEM_UNALIGNED_CHUNK_FLAG,
            tx_metadata_len: 0,
        }
    }

    /// Bytes of a received frame that one mbuf takes.
    pub(crate) fn frame_room(&self) -> usize {
        self.chunk - XDP_HEADROOM
    }

    /// Bytes of a received frame that one mbuf takes under any driver: some count the room in whole KiB (igb was seen to lose
    /// longer frames).
    pub(crate) fn sure_frame_room(&self) -> usize {
        self.frame_room() & !1023
    }

    /// Most bytes of one transmit descriptor.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Whether the first segment of `mbuf` lies in this memory, where the kernel can use it.
    #[inline]
    pub(crate) fn fits(&self, mbuf: &Mbuf<'_>) -> bool {
        core::ptr::eq(mbuf.pool(), self.pool) && (self.page == 0 || self.is_on_one_page(mbuf))
    }

    fn is_on_one_page(&self, mbuf: &Mbuf<'_>) -> bool {
        let start = self.chunk_of(mbuf);
        start / self.page == (start + self.chunk - 1) / self.page
    }

    /// The address of the chunk that is an mbuf's buffer: an offset in the zone.
    #[inline]
    pub(crate) fn chunk_of(&self, mbuf: &Mbuf<'_>) -> usize {
        self.data_of(mbuf) - mbuf.headroom()
    }

    /// The address of an mbuf's data.
    #[inline]
    pub(crate) fn data_of(&self, mbuf: &Mbuf<'_>) -> usize {
        mbuf.data_start().addr().get().wrapping_sub(self.pool.zone().base().addr().get())
    }

    /// The number of the mbuf that an address of the kernel's lies in.
    #[inline]
    pub(crate) fn number_of(&self, address: u64) -> Option<usize> {
        self.pool.number_at(whole(address))
    }

    /// Where in the buffer of a fresh `mbuf` the frame starts that the kernel put at `address`, counted from where data starts by
    /// itself; `None` if those `len` bytes are not in there.
    #[inline]
    pub(crate) fn place_in(&self, mbuf: &Mbuf<'_>, address: u64, len: usize) -> Option<usize> {
        debug_assert_eq!(mbuf.headroom(), HEADROOM);
        let skip = whole(address).checked_sub(self.data_of(mbuf))?;
        (skip + len <= mbuf.tailroom()).then_some(skip)
    }
}

/// The data room that the mbufs of a pool must have at least.
pub(crate) const fn needed_data_room() -> usize {
    MIN_CHUNK - HEADROOM
}

/// An address with its offset added (`xp_unaligned_add_offset_to_addr`).
#[inline]
fn whole(address: u64) -> usize {
    ((address & ((1 << ADDRESS_BITS) - 1)) + (address >> ADDRESS_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use mbuf::{MempoolConfig, PageSize, ZoneConfig};

    use super::*;

    fn umem(data_room: usize) -> Option<Umem> {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let pool = Mempool::new(&MempoolConfig { mbufs: 40, data_room, cache: 0, zone }).unwrap();
        Umem::of(pool)
    }

    #[test]
    fn a_chunk_is_an_mbufs_buffer_and_never_its_head() {
        for data_room in [needed_data_room(), 2048, 3000, 9000] {
            let umem = umem(data_room).unwrap();
            let registration = umem.registration();
            let chunk = registration.chunk_size as usize;
            assert!((MIN_CHUNK..=4096).contains(&chunk), "{data_room}");
            let all: Vec<_> = (0..40).map(|_| umem.pool().alloc(0).unwrap()).collect();
            for mbuf in &all {
                let start = umem.chunk_of(mbuf);
                assert_eq!(start, umem.data_of(mbuf) - HEADROOM);
                let number = umem.number_of(start as u64).unwrap();
                assert_eq!(umem.number_of((start + chunk - 1) as u64), Some(number), "one mbuf's, all of it");
                assert_eq!(umem.number_of(start as u64 - 1), None, "in front of it lies the head");
                assert!(start + chunk <= registration.len as usize);
            }
        }
        assert!(umem(needed_data_room() - 200).is_none());
    }

    #[test]
    fn where_a_frame_is_in_its_mbuf() {
        let umem = umem(2048).unwrap();
        let mbuf = umem.pool().alloc(0).unwrap();
        let chunk = umem.chunk_of(&mbuf) as u64;
        let at = chunk | (XDP_HEADROOM as u64) << ADDRESS_BITS;
        assert_eq!(umem.place_in(&mbuf, at, umem.frame_room()), Some(XDP_HEADROOM - HEADROOM));
        assert_eq!(umem.place_in(&mbuf, at, umem.frame_room() + 1), None, "longer than the buffer");
        assert_eq!(umem.place_in(&mbuf, chunk, 60), None, "in the headroom that nobody gave away");
        assert_eq!(umem.number_of(at), umem.number_of(chunk));
        assert_eq!(umem.number_of(u64::MAX), None);
    }

    #[test]
    fn zero_copy_wants_hugepages_and_chunks_within_one() {
        let small = umem(2048).unwrap();
        assert!(small.for_zero_copy().is_none());
        let paged = Umem { page: 4096, ..small };
        let all: Vec<_> = (0..40).map(|_| small.pool().alloc(0).unwrap()).collect();
        assert!(all.iter().all(|m| small.fits(m)));
        let fitting = all.iter().filter(|m| paged.fits(m)).count();
        assert!((10..30).contains(&fitting), "about half lie across a page's end: {fitting}");
    }
}
