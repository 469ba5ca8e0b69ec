//! Lockless rings of fixed capacity, for handing elements between cores in bursts.
//!
//! # Goals
//! - [`spsc`]: one producer, one consumer; [`Mpmc`]: any number of each. The same verbs on both.
//! - **bulk** moves all or nothing, **burst** as many as fit; both say how many are [`Left`].
//! - Any element type; no allocation after creation; slots on the heap or in an arena that the caller gives.
//! - An element costs no more cycles than in DPDK's `rte_ring`: `cargo bench -p polder-ring` prints the rows.
//! - Every ordering edge is named at both ends (see below) and checked by loom.
//!
//! # Non-goals
//! - Blocking, waking or async: these rings are polled.
//! - Growing, or more than 2³¹ slots.
//! - Sharing between processes: the indices live in the ring's own struct, only the slots in the arena.
//! - Wait freedom. [`Mpmc`] is `rte_ring`'s algorithm: who has claimed slots and is then preempted holds up
//!   those who claimed after it, until it runs again. Give each lcore a CPU of its own.
//!
//! # Example
//! ```
//! use ring::{Capacity, Mpmc};
//!
//! let ring = Mpmc::new(Capacity::PowerOfTwo(8))?;
//! let left = ring.enqueue_bulk(&[1, 2, 3]).expect("room for three");
//! assert_eq!(left.0, 5); // free slots left
//!
//! let mut taken = Vec::with_capacity(32);
//! let (count, left) = ring.dequeue_burst_into(&mut taken, 32);
//! assert_eq!((count, left.0), (3, 0)); // elements left
//! assert_eq!(taken, [1, 2, 3]);
//!
//! let (mut tx, mut rx) = ring::spsc::channel(Capacity::Exact(3))?;
//! std::thread::spawn(move || tx.push("from another core")).join().unwrap().unwrap();
//! assert_eq!(rx.pop(), Some("from another core"));
//! # Ok::<(), ring::RingError>(())
//! ```
//!
//! # Orderings
//! | label | where | partner |
//! |---|---|---|
//! | S1 | SPSC producer stores `tail`, Release | S2 |
//! | S2 | SPSC consumer loads `tail`, Acquire: the elements below it are written | S1 |
//! | S3 | SPSC consumer stores `head`, Release | S4 |
//! | S4 | SPSC producer loads `head`, Acquire: the slots below it have been read | S3 |
//! | R1 | MPMC loads its own side's `claims`, Acquire (also when the CAS fails) | R2 |
//! | R2 | MPMC moves its own side's `claims` by CAS, Release | R1 |
//! | R3 | MPMC loads the opposite side's `tail`, Acquire | R5 |
//! | R4 | MPMC waits for its own side's `tail`, Acquire | R5 |
//! | R5 | MPMC stores its own side's `tail`, Release | R3, R4 |
//!
//! R1 with R2 is the edge that `rte_ring` lacked until November 2025: without it a thread may see a new
//! `head` together with an opposite `tail` older than the one that allowed that `head`, and count room that
//! isn't there. Here `head` and the opposite tail as last `seen` are one word, so nobody sees the two of different ages; the
//! edge passes the copies (R5 to R3) on to the other threads of a side, and keeps R3 from reading a tail older than `seen`.
//! R4 is stronger than `rte_ring`'s relaxed wait: R5 of the last in a row of producers must pass on what those before it
//! wrote, and in C11 a plain store passes on only what its thread has acquired.
//!
//! # Lines that cross cores
//! What one core writes the other reads, so a line of slots costs a round trip a lap on each side. Both prefetch the lines a
//! kilobyte ahead of where they work, the producer for writing, and only those that are their side's already. That is where
//! most of the distance to `rte_ring` between two cores comes from (docs/perf/0004-ring-mempool-fdb.md).
//!
//! # Why there is no MPSC
//! All it could save is the consumer's compare-and-swap, once a call. At a burst of 32 that is a fraction of
//! a cycle per element (the bench's `MP/MC` rows against its `SP/SC` rows bound it from above), so [`Mpmc`]
//! serves.
//!
//! # Checks
//! - `cargo test -p polder-ring`
//! - `RUSTFLAGS="--cfg loom" cargo test -p polder-ring --release --test loom`
//! - `MIRIFLAGS=-Zmiri-strict-provenance cargo +nightly miri test -p polder-ring`

mod capacity;
mod head_tail;
mod mpmc;
pub mod prefetch;
mod slots;
pub mod spsc;
mod sync;

pub use capacity::{Capacity, Left, RingError};
pub use mpmc::Mpmc;
