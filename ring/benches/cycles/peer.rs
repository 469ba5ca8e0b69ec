//! DPDK's `rte_ring`, measured in turns with ours: builds rte_ring.c, starts it, asks it for one figure at a time.
//! The compiled program stays in Cargo's target folder.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Row;

/// The peer's process: idle, but for the answers to [`cycles`](Self::cycles).
pub(crate) struct Peer {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peer on `cpus`.
    pub(crate) fn start(cpus: &[usize]) -> Result<Self, String> {
        let program = build()?;
        let lcores: Vec<_> = cpus.iter().enumerate().map(|(n, cpu)| format!("{n}@{cpu}")).collect();
        let started = Command::new(&program)
            .args("--no-huge -m 64 --no-pci --no-telemetry --no-shconf --log-level=error".split(' '))
            .arg(format!("--lcores={}", lcores.join(",")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = started.map_err(|e| e.to_string())?;
        let (questions, answers) = (process.stdin.take(), process.stdout.take().expect("piped"));
        let mut peer = Self { process, questions, answers: BufReader::new(answers) };
        // A first answer shows that it runs.
        peer.cycles(&Row { cores: 1, bytes: 8, shared: false, bulk: 0 }).map(|_| peer)
    }

    /// Cycles per element of one repetition.
    pub(crate) fn cycles(&mut self, row: &Row) -> Result<f64, String> {
        let stdin = self.questions.as_mut().expect("open until the drop");
        let asked = writeln!(stdin, "{} {} {} {}", row.cores, row.bytes, u8::from(row.shared), row.bulk);
        asked.map_err(|e| format!("rte_ring.c has ended: {e}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| e.to_string())?;
        line.trim().parse().map_err(|_| format!("rte_ring.c said {line:?}"))
    }
}

/// Compiles the peer for this machine's CPU, unless that was done since its source changed.
fn build() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cycles/rte_ring.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rte_ring");
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
        Err("rte_ring.c does not compile: is libdpdk-dev installed?".into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.questions = None;
        let _ = self.process.wait();
    }
}
