//! The address spaces, kept apart by type.

/// A guest-physical address: what descriptors name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Gpa(pub(crate) u64);

/// An address in the front end's (the VMM's) own space: what SET_VRING_ADDR names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FrontendVa(pub(crate) u64);
