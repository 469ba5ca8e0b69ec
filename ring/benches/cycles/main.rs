//! Cycles per element, enqueue plus dequeue, as `ring_perf_autotest` of DPDK's `dpdk-test` counts them.
//!
//! `cargo bench -p polder-ring` prints all rows in a few seconds; with `-- --peer` also those of DPDK's `rte_ring`, from
//! rte_ring.c, which is compiled with `cc` for this very CPU and asked in turns with ours (needs libdpdk's headers), and
//! the ratio of the medians. Further words pick the rows whose name contains them all.
//!
//! One core: the thread enqueues and dequeues in turn. Two cores: one enqueues, the other dequeues, each retries until
//! it succeeds, and the figure is the sum of both cores' cycles, so that idle waiting counts twice. Cycles are those of
//! the time stamp counter (nanoseconds where there is none). Each figure is the median of several repetitions, with the
//! least and the most behind it. Other load on the machine spoils the two-core rows first.
#![expect(unsafe_code, reason = "reads the time stamp counter and pins threads")]

mod peer;

use std::fmt;
use std::hint::{black_box, spin_loop};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ring::{Capacity, Mpmc, spsc};

use peer::Peer;

/// As `RING_SIZE` of dpdk-test.
const SLOTS: usize = 4096;
/// Elements that a one-core repetition moves.
const ALONE: usize = 1 << 18;
/// Elements that a two-core repetition moves.
const PAIRED: usize = 1 << 20;
const REPETITIONS: usize = 15;

type Element8 = u64;
type Element16 = (u64, u64);

/// One side of a ring, as the timed loops see it.
trait Enqueue<T>: Send {
    fn one(&mut self, v: T) -> bool;
    fn bulk(&mut self, src: &[T]) -> bool;
}

trait Dequeue<T>: Send {
    fn one(&mut self) -> Option<T>;
    fn bulk(&mut self, dst: &mut [MaybeUninit<T>]) -> bool;
}

impl<T: Copy + Send> Enqueue<T> for spsc::Producer<T> {
    fn one(&mut self, v: T) -> bool {
        self.push(v).is_ok()
    }
    fn bulk(&mut self, src: &[T]) -> bool {
        self.enqueue_bulk(src).is_some()
    }
}

impl<T: Copy + Send> Dequeue<T> for spsc::Consumer<T> {
    fn one(&mut self) -> Option<T> {
        self.pop()
    }
    fn bulk(&mut self, dst: &mut [MaybeUninit<T>]) -> bool {
        self.dequeue_bulk(dst).is_some()
    }
}

impl<T: Copy + Send> Enqueue<T> for Arc<Mpmc<T>> {
    fn one(&mut self, v: T) -> bool {
        self.push(v).is_ok()
    }
    fn bulk(&mut self, src: &[T]) -> bool {
        self.enqueue_bulk(src).is_some()
    }
}

impl<T: Copy + Send> Dequeue<T> for Arc<Mpmc<T>> {
    fn one(&mut self) -> Option<T> {
        self.pop()
    }
    fn bulk(&mut self, dst: &mut [MaybeUninit<T>]) -> bool {
        self.dequeue_bulk(dst).is_some()
    }
}

fn sp_sc<T: Copy + Send>() -> (spsc::Producer<T>, spsc::Consumer<T>) {
    spsc::channel(Capacity::PowerOfTwo(SLOTS)).expect("memory for the ring")
}

fn mp_mc<T: Copy + Send>() -> (Arc<Mpmc<T>>, Arc<Mpmc<T>>) {
    let ring = Arc::new(Mpmc::new(Capacity::PowerOfTwo(SLOTS)).expect("memory for the ring"));
    (ring.clone(), ring)
}

/// What is measured: a row of the table.
#[derive(Clone, Copy)]
struct Row {
    cores: usize,
    /// Bytes of an element.
    bytes: usize,
    /// Whether there may be many producers and consumers.
    shared: bool,
    /// Elements a call; 0: the calls for one element.
    bulk: usize,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = if self.cores == 1 { "one core" } else { "two cores" };
        let sync = if self.shared { "MP/MC" } else { "SP/SC" };
        let bulk = if self.bulk == 0 { "single".into() } else { format!("bulk {}", self.bulk) };
        f.pad(&format!("{} B, {cores}, {sync}, {bulk}", self.bytes))
    }
}

impl Row {
    /// Cycles per element of one repetition.
    fn cycles(&self, cpus: &[usize]) -> f64 {
        if self.bytes == 8 { self.cycles_of::<Element8>(cpus) } else { self.cycles_of::<Element16>(cpus) }
    }

    fn cycles_of<T: Copy + Default + Send>(&self, cpus: &[usize]) -> f64 {
        if self.shared { self.run::<T>(mp_mc(), cpus) } else { self.run::<T>(sp_sc(), cpus) }
    }

    fn run<T: Copy + Default + Send>(
        &self,
        (mut tx, mut rx): (impl Enqueue<T>, impl Dequeue<T>),
        cpus: &[usize],
    ) -> f64 {
        match (self.cores, self.bulk) {
            (1, 0) => {
                alone_single(&mut tx, &mut rx, SLOTS);
                alone_single(&mut tx, &mut rx, ALONE)
            }
            (1, bulk) => {
                alone(&mut tx, &mut rx, bulk, SLOTS);
                alone(&mut tx, &mut rx, bulk, ALONE)
            }
            (_, bulk) => paired(tx, rx, bulk, [cpus[0], cpus[1]]),
        }
    }
}

/// What lies at `p`, or anywhere else, may have been read and written here, as far as the compiler knows. Unlike
/// [`black_box`] of a slice this leaves address and length in their registers.
#[inline(always)]
fn opaque<T>(p: *const T) {
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {} */", in(reg) p, options(nostack, preserves_flags)) };
}

/// Cycles per element with one element a call, one core.
fn alone_single<T: Copy + Default>(tx: &mut impl Enqueue<T>, rx: &mut impl Dequeue<T>, count: usize) -> f64 {
    let (src, mut dst) = (T::default(), T::default());
    let start = now();
    for _ in 0..count {
        opaque(&src);
        tx.one(src);
        if let Some(v) = rx.one() {
            dst = v;
        }
        opaque(&dst);
    }
    (now() - start) as f64 / count as f64
}

/// Cycles per element with `size` elements a call, one core.
fn alone<T: Copy + Default>(
    tx: &mut impl Enqueue<T>,
    rx: &mut impl Dequeue<T>,
    size: usize,
    count: usize,
) -> f64 {
    let src = black_box(vec![T::default(); size]);
    let mut dst = black_box(vec![MaybeUninit::uninit(); size]);
    let calls = count / size;
    let start = now();
    for _ in 0..calls {
        opaque(src.as_ptr());
        tx.bulk(&src);
        rx.bulk(&mut dst);
        opaque(dst.as_ptr());
    }
    (now() - start) as f64 / (calls * size) as f64
}

/// Cycles per element with `size` elements a call, the sum of two cores.
fn paired<T: Copy + Default + Send>(
    mut tx: impl Enqueue<T>,
    mut rx: impl Dequeue<T>,
    size: usize,
    cpus: [usize; 2],
) -> f64 {
    let calls = PAIRED / size;
    let ready = &AtomicU32::new(0);
    let per_element = |cycles: u64| cycles as f64 / (calls * size) as f64;
    std::thread::scope(|threads| {
        let producer = threads.spawn(move || {
            let src = black_box(vec![T::default(); size]);
            timed(cpus[0], ready, calls, || tx.bulk(black_box(&src)))
        });
        let consumer = threads.spawn(move || {
            let mut dst = black_box(vec![MaybeUninit::uninit(); size]);
            timed(cpus[1], ready, calls, || rx.bulk(black_box(&mut dst)))
        });
        per_element(producer.join().expect("producer")) + per_element(consumer.join().expect("consumer"))
    })
}

/// Cycles that `calls` successes take on `cpu`, from when both threads are `ready`.
fn timed(cpu: usize, ready: &AtomicU32, calls: usize, mut call: impl FnMut() -> bool) -> u64 {
    pin(cpu);
    ready.fetch_add(1, Ordering::AcqRel);
    while ready.load(Ordering::Acquire) < 2 {
        spin_loop();
    }
    let start = now();
    for _ in 0..calls {
        while !call() {
            spin_loop();
        }
    }
    now() - start
}

/// All rows of the table, or the one-core ones.
fn rows(cores: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for cores in 1..=cores {
        for bytes in [8, 16] {
            for bulk in [0, 8, 32, 128] {
                rows.extend([false, true].map(|shared| Row { cores, bytes, shared, bulk }));
            }
        }
    }
    // One element a call from core to core is what bulks are for; dpdk-test has no such row either.
    rows.retain(|row| row.cores == 1 || row.bulk > 0);
    rows
}

/// Median, least and most.
struct Figure {
    sorted: Vec<f64>,
}

impl Figure {
    fn of(mut cycles: Vec<f64>) -> Self {
        cycles.sort_by(f64::total_cmp);
        Self { sorted: cycles }
    }

    fn median(&self) -> f64 {
        self.sorted[self.sorted.len() / 2]
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.sorted[0], self.sorted[self.sorted.len() - 1]);
        write!(f, "{:>8.2} {:<18}", self.median(), format!("({least:.2} to {most:.2})"))
    }
}

/// Measures a row and prints it; the first repetition is thrown away. Tells whether ours is above the peer's.
fn print_row(row: &Row, cpus: &[usize], peer: Option<&mut Peer>) -> Result<bool, String> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut peer = peer;
    for repetition in 0..=REPETITIONS {
        let cycles = row.cycles(cpus);
        let peers = peer.as_mut().map(|peer| peer.cycles(row)).transpose()?;
        if repetition > 0 {
            ours.push(cycles);
            theirs.extend(peers);
        }
    }
    let ours = Figure::of(ours);
    if theirs.is_empty() {
        println!("{row:<32}{ours}");
        return Ok(false);
    }
    let theirs = Figure::of(theirs);
    let ratio = ours.median() / theirs.median();
    println!("{row:<32}{ours}{theirs}{ratio:>6.2}");
    Ok(ratio > 1.0)
}

fn main() -> Result<(), String> {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (options, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|a| a.starts_with("--"));
    let cpus: Vec<usize> = cpus().into_iter().take(2).collect();
    let mut peer = options.iter().any(|a| a == "--peer").then(|| Peer::start(&cpus)).transpose()?;
    println!(
        "{UNIT} per element (enqueue + dequeue), median (least to most) of {REPETITIONS}, {SLOTS} slots"
    );
    if peer.is_some() {
        println!("{:<32}{:<27}{:<27} ratio", "", "  Polder", "  DPDK");
    }
    pin(cpus[0]);
    let mut above = Vec::new();
    for row in rows(cpus.len()) {
        if words.iter().all(|word| row.to_string().contains(word)) && print_row(&row, &cpus, peer.as_mut())? {
            above.push(row.to_string());
        }
    }
    if cpus.len() < 2 {
        println!("two cores: not measured, this process may run on one CPU only");
    }
    if peer.is_some() {
        println!("above DPDK: {}", if above.is_empty() { "none".into() } else { above.join("; ") });
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
const UNIT: &str = "TSC cycles";
#[cfg(not(target_arch = "x86_64"))]
const UNIT: &str = "nanoseconds";

#[cfg(target_arch = "x86_64")]
fn now() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction, and Linux lets user space execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn now() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

/// The CPUs that this process may run on.
fn cpus() -> Vec<usize> {
    // SAFETY: a `cpu_set_t` is plain integers, and all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is valid for writing the size that is given with it.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0;
    assert!(!failed, "sched_getaffinity: {}", std::io::Error::last_os_error());
    // SAFETY: every number is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Binds the calling thread to `cpu`, one of [`cpus`].
fn pin(cpu: usize) {
    // SAFETY: a `cpu_set_t` is plain integers, and all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `cpu` came out of a set of the same size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is valid for reading the size that is given with it.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } != 0;
    assert!(!failed, "sched_setaffinity: {}", std::io::Error::last_os_error());
}
