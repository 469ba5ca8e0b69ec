//! Hugepage memory, mempools with per-lcore caches, mbufs and bursts.
