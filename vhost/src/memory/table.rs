//! The memory table: regions sorted by guest-physical address, each one a mapping that survives its owner's tricks.
#![expect(unsafe_code, reason = "turns checked guest addresses into raw pointers")]
// UNSAFETY: a `Window` is made only by a translation that found all its bytes inside one region's mapping, and is used
// only while the snapshot that made it is alive (a vring holds an `Arc` of it beside its windows).

use core::ptr::NonNull;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mbuf::foreign::ForeignMapping;

use super::{FrontendVa, Gpa};

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

#[derive(Debug)]
pub(crate) struct Region {
    gpa: u64,
    size: u64,
    va: u64,
    /// Host address of the region's first byte.
    host: NonNull<u8>,
    mapping: Arc<ForeignMapping>,
}

// SAFETY: `host` points into `mapping`, which is Send and Sync and lives as long.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}
