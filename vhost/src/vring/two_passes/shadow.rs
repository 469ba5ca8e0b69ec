//! What the guest's RAM may look like after a burst.

use core::ops::Range;

use crate::driver::Span;
use crate::vring::hook::Trace;
use crate::vring::two_passes::rig::{GPA, Rig};
use crate::wire::ring::{AVAIL_IDX_OFFSET, DESC_F_WRITE};

/// The RAM as the guest left it, and what it made available.
pub(super) struct Shadow {
    ram: Vec<u8>,
    receives: bool,
    /// Split: where avail.idx stands, and used.idx stood when the burst began.
    avail_idx: usize,
    used: u16,
    /// The most buffers that the guest has said, at any time, are available beyond `used`.
    limit: u16,
    size: u16,
}

impl Shadow {
    pub(super) fn new(rig: &Rig, receives: bool) -> Self {
        let avail_idx = rig.shape.avail() + AVAIL_IDX_OFFSET;
        Self { ram: Vec::new(), receives, avail_idx, used: 0, limit: 0, size: rig.shape.size }
    }

    /// A burst begins.
    pub(super) fn begin(&mut self, rig: &Rig) {
        self.ram.resize(rig.ram.len(), 0);
        rig.ram.read(0, &mut self.ram);
        let used = rig.used() as u16;
        // What was available before and did not come back still is.
        self.limit = self.limit.saturating_sub(used.wrapping_sub(self.used));
        if rig.shape.is_packed() || used == 0 {
            self.limit = 0;
        }
        self.used = used;
        self.count();
    }

    /// The guest writes in the middle of a burst.
    pub(super) fn rewrite(&mut self, ram: &Span, at: usize, bytes: &[u8]) {
        ram.write(at, bytes);
        self.ram[at..at + bytes.len()].copy_from_slice(bytes);
        self.count();
    }

    fn count(&mut self) {
        let idx = u16::from_le_bytes([self.ram[self.avail_idx], self.ram[self.avail_idx + 1]]);
        let ahead = idx.wrapping_sub(self.used);
        if ahead <= self.size {
            self.limit = self.limit.max(ahead);
        }
    }

    /// The burst is over.
    pub(super) fn judge(&self, rig: &Rig, trace: &Trace) {
        for published in &trace.published {
            assert!(published.buffers <= published.size.into(), "{published:?}");
            assert!(published.slots <= published.size.into(), "{published:?}");
        }
        if !rig.shape.is_packed() {
            let back = (rig.used() as u16).wrapping_sub(self.used);
            assert!(back <= self.limit, "{back} back, {} were available", self.limit);
        }
        self.judge_writes(rig, trace);
    }

    fn judge_writes(&self, rig: &Rig, trace: &Trace) {
        let mut allowed = self.rings(rig);
        if self.receives {
            let writable = trace.reads.iter().filter(|desc| desc.flags & DESC_F_WRITE != 0);
            allowed.extend(writable.filter_map(|desc| {
                let start = usize::try_from(desc.addr.checked_sub(GPA)?).ok()?;
                Some(start..start.saturating_add(desc.len as usize))
            }));
        }
        let mut now = vec![0; self.ram.len()];
        rig.ram.read(0, &mut now);
        let lines =
            now.chunks(64).zip(self.ram.chunks(64)).enumerate().filter(|(_, (now, before))| now != before);
        for (at, (now, before)) in lines.flat_map(|(i, (now, before))| (64 * i..).zip(now.iter().zip(before)))
        {
            let fine = now == before || allowed.iter().any(|range| range.contains(&at));
            assert!(fine, "the byte at {at:#x} changed, which no descriptor allowed: {:?}", rig.shape);
        }
    }

    /// What the device may always write.
    fn rings(&self, rig: &Rig) -> Vec<Range<usize>> {
        let shape = &rig.shape;
        let device = shape.used()..shape.data();
        if shape.is_packed() { vec![0..16 * usize::from(self.size), device] } else { vec![device] }
    }
}
