//! Cycles per mbuf, alloc plus free, in the pattern of `mempool_perf_autotest` of DPDK's `dpdk-test`: 128 mbufs are
//! taken in bulks and given back in bulks.
//!
//! `cargo bench -p polder-mbuf` prints Polder's rows; with `-- --peer` also DPDK's, from benches/rte_mempool.c, which is
//! compiled with `cc` and run in turns with ours (needs libdpdk's headers). `rte_mempool` moves pointers only;
//! `rte_mbuf` also makes each mbuf a fresh one, as an alloc of ours does. Cycles are those of the time stamp counter
//! (nanoseconds where there is none): the least of all samples, and the median. `-- --cpu N` pins to CPU N (1).
#![expect(unsafe_code, reason = "reads the time stamp counter")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use mbuf::{Burst, LcoreId, MAX_BURST, Mempool, MempoolConfig, PageSize, ZoneConfig};

/// As one of dpdk-test's values of n_keep.
const KEEP: usize = 128;
const TURNS: usize = 200;
const SAMPLES: usize = 101;
const ROUNDS: usize = 3;
const BULKS: [usize; 3] = [1, 4, 32];

/// Least and median cycles of each row and bulk.
type Figures = BTreeMap<(String, usize), Vec<(f64, f64)>>;

fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: neither instruction needs anything.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

#[inline(always)]
fn turn(pool: &'static Mempool, n: usize) {
    let mut kept = [const { Burst::new() }; KEEP / MAX_BURST];
    for burst in &mut kept {
        for _ in 0..MAX_BURST / n {
            pool.alloc_bulk(burst, n, 1).expect("the pool is large enough");
        }
    }
    for burst in &mut kept {
        for left in (0..MAX_BURST / n).rev() {
            burst.truncate(left * n);
        }
    }
}

fn sample(turn: impl Fn()) -> (f64, f64) {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = now();
            (0..TURNS).for_each(|_| turn());
            (now() - start) as f64 / (TURNS * KEEP) as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    (samples[0], samples[SAMPLES / 2])
}

fn measure(figures: &mut Figures, row: &str, pool: &'static Mempool) {
    let mut note = |n: usize, figure| figures.entry((row.to_owned(), n)).or_default().push(figure);
    // The bulk is a constant to each loop, as it is in DPDK's test.
    note(1, sample(|| turn(pool, 1)));
    note(4, sample(|| turn(pool, 4)));
    note(32, sample(|| turn(pool, 32)));
}

/// The same for the pool alone, which is all that `rte_mempool` is.
fn measure_bare(figures: &mut Figures, row: &str, pool: &'static Mempool) {
    let mut note = |n: usize, figure| figures.entry((row.to_owned(), n)).or_default().push(figure);
    note(1, sample(|| pool.turn_over::<1, KEEP>()));
    note(4, sample(|| pool.turn_over::<4, KEEP>()));
    note(32, sample(|| pool.turn_over::<32, KEEP>()));
}

fn peer(figures: &mut Figures, cpu: &str) -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rte_mempool.c");
    let program = std::env::temp_dir().join(format!("polder-rte-mempool-{}", std::process::id()));
    let build = format!(
        "cc -O3 -march=native -o {} {} $(pkg-config --cflags --libs libdpdk)",
        program.display(),
        source.display()
    );
    let built = Command::new("sh").args(["-c", &build]).status().map_err(|e| e.to_string())?;
    let arguments =
        format!("--no-huge -m 256 --no-pci --no-telemetry --no-shconf --log-level=error --lcores=0@{cpu}");
    let run = built.success().then(|| Command::new(&program).args(arguments.split(' ')).output());
    let _ = std::fs::remove_file(&program);
    let output =
        run.ok_or("rte_mempool.c does not compile: is dpdk-dev installed?")?.map_err(|e| e.to_string())?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let ["row", row, n, least, median] = *line.split(' ').collect::<Vec<_>>() {
            let number = |s: &str| s.parse::<f64>().map_err(|e| e.to_string());
            figures
                .entry((format!("DPDK {row}"), number(n)? as usize))
                .or_default()
                .push((number(least)?, number(median)?));
        }
    }
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(e) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("not pinned to CPU {cpu}: {e}");
    }
}

fn print(figures: &Figures) {
    println!("{:<24}{}", "cycles an mbuf", BULKS.map(|n| format!("{:>16}", format!("bulk {n}"))).concat());
    let rows: std::collections::BTreeSet<_> = figures.keys().map(|(row, _)| row).collect();
    for row in rows {
        let cell = |n| {
            let all = &figures[&(row.clone(), n)];
            let least = all.iter().map(|f| f.0).fold(f64::INFINITY, f64::min);
            let mut medians: Vec<_> = all.iter().map(|f| f.1).collect();
            medians.sort_by(f64::total_cmp);
            format!("{:>16}", format!("{least:.2} ({:.2})", medians[medians.len() / 2]))
        };
        println!("{row:<24}{}", BULKS.map(cell).concat());
    }
    println!("least (median of {ROUNDS} rounds' medians)");
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let cpu =
        arguments.iter().position(|a| a == "--cpu").and_then(|i| arguments.get(i + 1)).map_or("1", |s| s);
    pin(cpu.parse().unwrap_or(0));
    let lcore = LcoreId::claim().expect("the first thread to ask");
    let pool = |cache| {
        let zone = ZoneConfig { name: "bench".into(), pages: PageSize::Small4K, ..ZoneConfig::default() };
        Mempool::new(&MempoolConfig { mbufs: 8191, cache, zone, ..MempoolConfig::default() }).expect("36 MB")
    };
    let (cached, bare) = (pool(512), pool(0));
    let mut figures = Figures::new();
    for _ in 0..ROUNDS {
        measure(&mut figures, "Polder mbuf-cached", cached);
        measure(&mut figures, "Polder mbuf-bare", bare);
        measure_bare(&mut figures, "Polder mempool-cached", cached);
        measure_bare(&mut figures, "Polder mempool-bare", bare);
        if arguments.iter().any(|a| a == "--peer")
            && let Err(e) = peer(&mut figures, cpu)
        {
            eprintln!("no figures of DPDK: {e}");
        }
    }
    cached.flush_cache(&lcore);
    assert_eq!(cached.balance().free, cached.total(), "all mbufs are back");
    print(&figures);
}
