//! Cycles of the Internet checksum, by length and by how many bytes are summed at once.
//!
//! `cargo bench -p polder-pmd`. The bytes are in the nearest cache, as those of a frame are that was copied just now; the last
//! row is a frame of 64 KiB that is to be segmented. Cycles are those of the time stamp counter (nanoseconds where there is none);
//! the median of many repetitions, and how many times the plain loop's.

use std::hint::black_box;

use pmd::offload::Width;
use pmd::tsc::now;

const REPETITIONS: usize = 2_001;
/// Sums in one repetition: the counter's own twenty cycles are not to count.
const SUMS: usize = 16;
/// Headers' worth; payloads of frames of 256, 1,514 and 9,014 bytes; one of 64 KiB.
const LENGTHS: [usize; 5] = [64, 222, 1_480, 8_980, 65_480];

/// The median of `REPETITIONS`, in cycles of one sum over `bytes`.
fn cycles(width: Width, bytes: &[u8]) -> f64 {
    let mut all: Vec<u64> = (0..REPETITIONS)
        .map(|_| {
            let start = now();
            for _ in 0..SUMS {
                black_box(width.sum(black_box(bytes)));
            }
            now() - start
        })
        .collect();
    all.sort_unstable();
    all[REPETITIONS / 2] as f64 / SUMS as f64
}

fn main() {
    let widths: Vec<_> = Width::ALL.into_iter().filter(|width| width.is_here()).collect();
    print!("{:>10}", "bytes");
    widths.iter().for_each(|width| print!("{:>18}", format!("{width:?}")));
    println!();
    for length in LENGTHS {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
        print!("{length:>10}");
        let mut plain = 0.0;
        for width in &widths {
            let took = cycles(*width, &bytes);
            if *width == Width::Plain {
                plain = took;
            }
            print!("{:>18}", format!("{took:.1} ({:.2}x)", plain / took));
        }
        println!();
    }
}
