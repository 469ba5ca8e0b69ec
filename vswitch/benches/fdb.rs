//! Benchmark of the switch by itself (to come).

fn main() {}
