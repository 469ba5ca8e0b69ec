//! SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG, GET_MAX_MEM_SLOTS.
//!
//! A new table is checked and mapped whole before anything changes; if it is refused, all goes on as before. Then all
//! rings stop, the snapshot is exchanged, and the rings that are set up start again, their addresses translated anew. One
//! whose memory is no longer there stays stopped, under a name. A region that is in both tables stays mapped.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::Session;
use super::message::{Message, Reply};
use super::received::Received;
use super::trouble::{Malformed, Trouble};
use crate::memory::{FrontendVa, Gpa, GuestMemory, MAX_REGIONS, RegionRequest};
use crate::wire::message::{MAX_TABLE_REGIONS, MemoryRegion, MemoryTableHead, SingleRegion, protocol};

impl Session {
    pub(super) fn set_mem_table(&mut self, m: &mut Message) -> Result<Reply, Trouble> {
        let requests = table_requests(m)?;
        self.replace_memory(self.memory.replaced_by(&requests)?);
        Ok(Reply::Done)
    }

    pub(super) fn add_mem_reg(&mut self, m: &mut Message) -> Result<Reply, Trouble> {
        let single: SingleRegion = m.payload_beside_fds()?;
        let fd = m.one_fd()?;
        self.require(protocol::F_CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS")?;
        self.replace_memory(self.memory.with(&request(&single.region, fd)?)?);
        Ok(Reply::Done)
    }

    /// A descriptor may come along, says the specification, and is closed.
    pub(super) fn rem_mem_reg(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let MemoryRegion { gpa, size, va, .. } = m.payload_beside_fds::<SingleRegion>()?.region;
        if m.fds.len() > 1 {
            return Err(Malformed::Descriptors { got: m.fds.len(), want: 0 }.into());
        }
        self.require(protocol::F_CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS")?;
        self.replace_memory(self.memory.without(Gpa(gpa), FrontendVa(va), size)?);
        Ok(Reply::Done)
    }

    pub(super) fn get_max_mem_slots(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        Ok(Reply::U64(MAX_REGIONS as u64))
    }

    fn replace_memory(&mut self, memory: GuestMemory) {
        self.stop_rings();
        self.memory = Arc::new(memory);
        self.start_rings();
    }
}

/// A table's regions, each with its descriptor: as many as the head says, and no byte or descriptor more.
fn table_requests(m: &mut Message) -> Result<Vec<RegionRequest>, Trouble> {
    let (head, rest) = m.payload_head::<MemoryTableHead>()?;
    let count = head.regions as usize;
    // Compared before it is multiplied: it may be anything.
    let got = rest.len();
    if count > MAX_TABLE_REGIONS || got != count * size_of::<MemoryRegion>() {
        return Err(
            Malformed::PayloadSize { got, want: count.saturating_mul(size_of::<MemoryRegion>()) }.into()
        );
    }
    if m.fds.len() != count {
        return Err(Malformed::Descriptors { got: m.fds.len(), want: count }.into());
    }
    let regions = rest.chunks_exact(size_of::<MemoryRegion>()).map(MemoryRegion::read_from_bytes);
    let regions: Vec<_> = regions.filter_map(Result::ok).collect();
    let fds = std::mem::take(&mut m.fds);
    regions.iter().zip(fds).map(|(region, fd)| request(region, fd)).collect()
}

/// Not checked yet, but for the kind of the file: what asks more of it may wait for a file that is not in memory.
fn request(region: &MemoryRegion, fd: Received) -> Result<RegionRequest, Trouble> {
    let MemoryRegion { gpa, size, va, mmap_offset } = *region;
    let fd = fd.into_memory_file(gpa)?;
    Ok(RegionRequest { gpa: Gpa(gpa), size, va: FrontendVa(va), mmap_offset, fd })
}
