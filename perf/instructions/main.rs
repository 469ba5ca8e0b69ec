//! instructions: small loops over the data path's pieces, to be counted by callgrind.
//!
//! ```text
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*measured*' instructions switch_split 200
//! ```
//! What is inside [`measured`] counts, and nothing else: no set-up, no guest's work. Instruction counts are the same again
//! whatever else the machine does, so they can be a gate where times cannot (`perf/tests/instructions.rs`).

mod guests;
mod pieces;

use std::process::ExitCode;

/// A loop over a piece of the data path, made ready.
trait Workload {
    /// What comes between two measured steps: a guest's work.
    fn prepare(&mut self) {}

    /// The step that counts; returns how many packets or elements it moved.
    fn step(&mut self) -> usize;
}

/// The one function whose instructions count.
#[inline(never)]
fn measured(workload: &mut dyn Workload) -> usize {
    workload.step()
}

/// Steps that are made before anything counts: caches are filled, addresses learned.
const WARM_UP: usize = 20;

fn make(name: &str) -> Option<Box<dyn Workload>> {
    Some(match name {
        "ring_spsc" => Box::new(pieces::Spsc::new()),
        "ring_mpmc" => Box::new(pieces::Mpmc::new()),
        "mempool" => Box::new(pieces::Pool::new()),
        "fdb" => Box::new(pieces::Lookup::<1000>::new()),
        "fdb_64k" => Box::new(pieces::Lookup::<64_000>::new()),
        "vring_split" => Box::new(guests::Vring::new(0, 60)),
        "vring_packed" => Box::new(guests::Vring::new(vhost::wire::net::F_RING_PACKED, 60)),
        "switch_split" => Box::new(guests::Turn::new(0, 60)),
        "switch_packed" => Box::new(guests::Turn::new(vhost::wire::net::F_RING_PACKED, 60)),
        "switch_split_1514" => Box::new(guests::Turn::new(0, 1514)),
        _ => return None,
    })
}

fn run(name: &str, steps: usize) -> Result<(), String> {
    let mut workload = make(name).ok_or_else(|| format!("no workload {name}"))?;
    for _ in 0..WARM_UP {
        workload.prepare();
        workload.step();
    }
    let mut moved = 0;
    for _ in 0..steps {
        workload.prepare();
        moved += measured(workload.as_mut());
    }
    println!("moved {moved}");
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args[..] {
        [name, steps] => steps.parse().map_err(|_| "STEPS is a number".to_owned()).and_then(|n| run(name, n)),
        _ => Err("usage: instructions WORKLOAD STEPS".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
