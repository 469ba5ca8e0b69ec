//! Lockless rings: SPSC and MPMC, bulk and burst.
