//! CPU time that processes and the kernel's threads took, from `/proc`.

use std::fs;

/// Ticks of `/proc/PID/stat` a second (USER_HZ, the same everywhere on x86).
const TICKS_PER_S: f64 = 100.0;
/// The parent of all kernel threads.
const KTHREADD: u32 = 2;

/// CPU time of this process with all its threads, ended ones too, user and system, in seconds.
pub(crate) fn of_process(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read the process's times");
    Stat::parse(&text).seconds
}

/// CPU time of all threads of the kernel that there are, in seconds.
pub(crate) fn of_kernel_threads() -> f64 {
    let processes = fs::read_dir("/proc").expect("read /proc").filter_map(Result::ok);
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    // What ends meanwhile has no `stat` any more; /proc/stat, which is no process's, is not in a folder.
    stats.map(|text| Stat::parse(&text)).filter(|stat| stat.parent == KTHREADD).map(|stat| stat.seconds).sum()
}

/// What is read of a `stat` file (man 5 proc).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stat {
    parent: u32,
    seconds: f64,
}

impl Stat {
    fn parse(text: &str) -> Self {
        // The name stands in brackets and may hold anything, brackets too: fields are counted from the last one.
        let (_, fields) = text.rsplit_once(')').unwrap_or_else(|| panic!("no process's stat: {text:?}"));
        let fields: Vec<_> = fields.split_whitespace().collect();
        let number = |at: usize| fields[at].parse::<u32>().unwrap_or_else(|e| panic!("{text:?}: {e}"));
        Self { parent: number(1), seconds: f64::from(number(11) + number(12)) / TICKS_PER_S }
    }
}

#[test]
fn a_stat_file_is_read_whatever_the_name() {
    let text = "12 (a) (b c) S 2 0 0 0 -1 69238880 0 0 0 0 150 30 7 9 20 0 1 0 44 0 0";
    assert_eq!(Stat::parse(text), Stat { parent: 2, seconds: 1.8 });
}
