//! Cycles per element, enqueue plus dequeue, as `ring_perf_autotest` of DPDK's `dpdk-test` counts them.
//!
//! `cargo bench -p polder-ring` prints all rows in a few seconds. One core: the thread enqueues and dequeues
//! in turn. Two cores: one enqueues, the other dequeues, each retries until it succeeds, and the figure is
//! the sum of both cores' cycles, so that idle waiting counts twice. Cycles are those of the time stamp
//! counter (nanoseconds where there is none). Each figure is the median of several repetitions, with the
//! least and the most behind it. Other load on the machine spoils the two-core rows first.
#![expect(unsafe_code, reason = "reads the time stamp counter and pins threads")]

use std::hint::{black_box, spin_loop};
use std::mem::MaybeUninit;
use std::sync::{Arc, Barrier};

use ring::{Capacity, Mpmc, spsc};

/// As `RING_SIZE` of dpdk-test.
const SLOTS: usize = 4096;
/// Elements that a one-core repetition moves.
const ALONE: usize = 1 << 18;
/// Elements that a two-core repetition moves.
const PAIRED: usize = 1 << 20;
const REPETITIONS: usize = 15;

type Element8 = u64;
type Element16 = [u64; 2];

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

/// Cycles per element with one element a call, one core.
fn alone_single<T: Copy + Default>((mut tx, mut rx): (impl Enqueue<T>, impl Dequeue<T>)) -> f64 {
    let v = black_box(T::default());
    let start = now();
    for _ in 0..ALONE {
        black_box(tx.one(v));
        black_box(rx.one());
    }
    (now() - start) as f64 / ALONE as f64
}

/// Cycles per element with `size` elements a call, one core.
fn alone<T: Copy + Default>((mut tx, mut rx): (impl Enqueue<T>, impl Dequeue<T>), size: usize) -> f64 {
    let src = black_box(vec![T::default(); size]);
    let mut dst = black_box(vec![MaybeUninit::uninit(); size]);
    let calls = ALONE / size;
    let start = now();
    for _ in 0..calls {
        black_box(tx.bulk(black_box(&src)));
        black_box(rx.bulk(black_box(&mut dst)));
    }
    (now() - start) as f64 / (calls * size) as f64
}

/// Cycles per element with `size` elements a call, the sum of two cores.
fn paired<T: Copy + Default + Send>(
    (mut tx, mut rx): (impl Enqueue<T>, impl Dequeue<T>),
    size: usize,
    cpus: [usize; 2],
) -> f64 {
    let calls = PAIRED / size;
    let start = Barrier::new(2);
    let start = &start;
    let per_element = |cycles: u64| cycles as f64 / (calls * size) as f64;
    std::thread::scope(|threads| {
        let producer = threads.spawn(move || {
            let src = black_box(vec![T::default(); size]);
            timed(cpus[0], start, calls, || tx.bulk(black_box(&src)))
        });
        let consumer = threads.spawn(move || {
            let mut dst = black_box(vec![MaybeUninit::uninit(); size]);
            timed(cpus[1], start, calls, || rx.bulk(black_box(&mut dst)))
        });
        per_element(producer.join().expect("producer")) + per_element(consumer.join().expect("consumer"))
    })
}

/// Cycles that `calls` successes take on `cpu`, from `start` on.
fn timed(cpu: usize, start: &Barrier, calls: usize, mut call: impl FnMut() -> bool) -> u64 {
    pin(cpu);
    start.wait();
    let start = now();
    for _ in 0..calls {
        while !call() {
            spin_loop();
        }
    }
    now() - start
}

/// Median, least and most of several runs; the first is thrown away.
fn row(name: &str, mut run: impl FnMut() -> f64) {
    run();
    let mut cycles: Vec<f64> = (0..REPETITIONS).map(|_| run()).collect();
    cycles.sort_by(f64::total_cmp);
    let (median, most) = (cycles[REPETITIONS / 2], cycles[REPETITIONS - 1]);
    println!("{name:<44}{median:>8.2}   ({:.2} to {most:.2})", cycles[0]);
}

fn one_core<T: Copy + Default + Send>() {
    let bytes = size_of::<T>();
    row(&format!("{bytes} B, one core, SP/SC, single"), || alone_single::<T>(sp_sc()));
    row(&format!("{bytes} B, one core, MP/MC, single"), || alone_single::<T>(mp_mc()));
    for size in [8, 32, 128] {
        row(&format!("{bytes} B, one core, SP/SC, bulk {size}"), || alone::<T>(sp_sc(), size));
        row(&format!("{bytes} B, one core, MP/MC, bulk {size}"), || alone::<T>(mp_mc(), size));
    }
}

fn two_cores<T: Copy + Default + Send>(cpus: [usize; 2]) {
    let bytes = size_of::<T>();
    for size in [8, 32, 128] {
        row(&format!("{bytes} B, two cores, SP/SC, bulk {size}"), || paired::<T>(sp_sc(), size, cpus));
        row(&format!("{bytes} B, two cores, MP/MC, bulk {size}"), || paired::<T>(mp_mc(), size, cpus));
    }
}

fn main() {
    let cpus = cpus();
    println!(
        "{UNIT} per element (enqueue + dequeue), median (least to most) of {REPETITIONS}, {SLOTS} slots"
    );
    if let [first, ..] = cpus[..] {
        pin(first);
    }
    one_core::<Element8>();
    one_core::<Element16>();
    if let [first, second, ..] = cpus[..] {
        two_cores::<Element8>([first, second]);
        two_cores::<Element16>([first, second]);
    } else {
        println!("two cores: not measured, this process may run on {} CPU only", cpus.len());
    }
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
