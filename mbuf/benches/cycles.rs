//! Cycles per mbuf, alloc plus free, in the pattern of `mempool_perf_autotest` of DPDK's `dpdk-test`: 128 mbufs are
//! taken in bulks and given back in bulks.
//!
//! `cargo bench -p polder-mbuf` prints Polder's rows; with `-- --peer` also DPDK's, from benches/rte_mempool.c, which is
//! compiled with `cc` (into Cargo's target folder) and run in turns with ours (needs libdpdk's headers), and the ratio of the
//! medians. `mempool` moves pointers only; `mbuf` also makes each mbuf a fresh one. Cycles are those of the time stamp
//! counter (nanoseconds where there is none): the median of the rounds' medians, and the least and the most of these.
//! `-- --cpu N` pins to CPU N (1).
#![expect(unsafe_code, reason = "reads the time stamp counter")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mbuf::{Burst, LcoreId, MAX_BURST, Mempool, MempoolConfig, PageSize, ZoneConfig};

/// As one of dpdk-test's values of n_keep.
const KEEP: usize = 128;
const TURNS: usize = 200;
const SAMPLES: usize = 101;
const ROUNDS: usize = 7;

/// Whose, which row, how many at once: each round's median cycles.
type Figures = BTreeMap<(&'static str, String, usize), Vec<f64>>;

const OURS: &str = "Polder";
const PEERS: &str = "DPDK";

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

fn sample(turn: impl Fn()) -> f64 {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = now();
            (0..TURNS).for_each(|_| turn());
            (now() - start) as f64 / (TURNS * KEEP) as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

fn measure(figures: &mut Figures, row: &str, pool: &'static Mempool) {
    let mut note = |n: usize, figure| figures.entry((OURS, row.to_owned(), n)).or_default().push(figure);
    // The bulk is a constant to each loop, as it is in DPDK's test.
    note(1, sample(|| turn(pool, 1)));
    note(4, sample(|| turn(pool, 4)));
    note(32, sample(|| turn(pool, 32)));
}

/// The same for the pool alone, which is all that `rte_mempool` is.
fn measure_bare(figures: &mut Figures, row: &str, pool: &'static Mempool) {
    let mut note = |n: usize, figure| figures.entry((OURS, row.to_owned(), n)).or_default().push(figure);
    note(1, sample(|| pool.turn_over::<1, KEEP>()));
    note(4, sample(|| pool.turn_over::<4, KEEP>()));
    note(32, sample(|| pool.turn_over::<32, KEEP>()));
}

/// Compiles the peer for this machine's CPU, unless that was done since its source changed.
fn build_peer() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rte_mempool.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rte_mempool");
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if changed(&program) > changed(&source) {
        return Ok(program);
    }
    let (into, from) = (program.display(), source.display());
    let build = format!("cc -O3 -march=native -o '{into}' '{from}' $(pkg-config --cflags --libs libdpdk)");
    let built = Command::new("sh").args(["-c", &build]).status().map_err(|e| e.to_string())?;
    if built.success() {
        Ok(program)
    } else {
        Err("rte_mempool.c does not compile: is libdpdk-dev there?".into())
    }
}

/// One round of the peer's rows.
fn measure_peer(figures: &mut Figures, program: &Path, cpu: &str) -> Result<(), String> {
    let arguments =
        format!("--no-huge -m 256 --no-pci --no-telemetry --no-shconf --log-level=error --lcores=0@{cpu}");
    let output = Command::new(program).args(arguments.split(' ')).output().map_err(|e| e.to_string())?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let ["row", row, n, median] = *line.split(' ').collect::<Vec<_>>() {
            let number = |s: &str| s.parse::<f64>().map_err(|e| e.to_string());
            let key = (PEERS, row.to_owned(), number(n)? as usize);
            figures.entry(key).or_default().push(number(median)?);
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

/// Median of a row's rounds, and as text with the least and the most of them.
fn figure(figures: &Figures, whose: &'static str, row: &str, n: usize) -> Option<(f64, String)> {
    let mut rounds = figures.get(&(whose, row.to_owned(), n))?.clone();
    rounds.sort_by(f64::total_cmp);
    let (least, median, most) = (rounds[0], rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    Some((median, format!("{median:>8.2} {:<18}", format!("({least:.2} to {most:.2})"))))
}

fn print(figures: &Figures) {
    println!("cycles an mbuf (alloc + free), median (least to most) of {ROUNDS} rounds");
    println!("{:<32}{:<27}{:<27} ratio", "", "  Polder", "  DPDK");
    let mut above = Vec::new();
    for (_, row, n) in figures.keys().filter(|(whose, ..)| *whose == OURS) {
        let name = format!("{row}, bulk {n}");
        let (ours, text) = figure(figures, OURS, row, *n).expect("ours are all measured");
        let Some((theirs, their_text)) = figure(figures, PEERS, row, *n) else {
            println!("{name:<32}{text}");
            continue;
        };
        println!("{name:<32}{text}{their_text}{:>6.2}", ours / theirs);
        if ours > theirs {
            above.push(name);
        }
    }
    if figures.keys().any(|(whose, ..)| *whose == PEERS) {
        println!("above DPDK: {}", if above.is_empty() { "none".into() } else { above.join("; ") });
    }
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
    let peer = arguments.iter().any(|a| a == "--peer").then(build_peer);
    for _ in 0..ROUNDS {
        measure(&mut figures, "mbuf-cached", cached);
        measure(&mut figures, "mbuf-bare", bare);
        measure_bare(&mut figures, "mempool-cached", cached);
        measure_bare(&mut figures, "mempool-bare", bare);
        let measured = peer.clone().map(|peer| measure_peer(&mut figures, &peer?, cpu));
        if let Some(Err(e)) = measured {
            eprintln!("no figures of DPDK: {e}");
        }
    }
    cached.flush_cache(&lcore);
    assert_eq!(cached.balance().free, cached.total(), "all mbufs are back");
    print(&figures);
}
