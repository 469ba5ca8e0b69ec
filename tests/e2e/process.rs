//! A child process with a log, which ends with its owner.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::{secs, wait_for};
use crate::undo::{Undo, next_number, run_dir};

/// Of each log, when a test fails: with more, what the test itself said drowns in them.
const LAST_LINES: usize = 15;

#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Printed when a test fails; the first one takes the process's own output.
    logs: Vec<PathBuf>,
    _undo: Undo,
}

impl Process {
    /// Starts `command` with both its outputs in a log file.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let log = run_dir().join(format!("{name}-{}.log", next_number()));
        let out = File::create(&log).expect("make a log file");
        let err = out.try_clone().expect("share a log file");
        let child = command
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let undo = Undo::with(&format!("kill -9 {}", child.id()));
        Self { name: name.to_owned(), child, logs: vec![log], _undo: undo }
    }

    /// Another file to print when a test fails.
    pub(crate) fn add_log(&mut self, log: PathBuf) {
        self.logs.push(log);
    }

    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("standard input is a pipe")
    }

    /// All that the process has written.
    pub(crate) fn output(&self) -> String {
        read_lossy(&self.logs[0])
    }

    /// Waits for a line in the output that holds `text`.
    pub(crate) fn wait_for_output(&mut self, text: &str, limit: Duration) {
        let what = format!("{} to say {text:?}", self.name);
        wait_for(&what, limit, || {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                panic!("{} ended ({status}) before it said {text:?}", self.name);
            }
            self.output().contains(text).then_some(())
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_none()
    }

    pub(crate) fn kill9(&mut self) {
        self.child.kill().expect("kill a child");
        self.child.wait().expect("wait for a child");
    }

    /// SIGTERM, then the exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signal a child");
        self.wait(secs(10))
    }

    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        wait_for(&what, limit, || self.child.try_wait().expect("wait for a child"))
    }

    fn print_logs(&self) {
        for log in &self.logs {
            let text = read_lossy(log);
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- {} ({}), last lines:", self.name, log.display());
            eprintln!("{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Time that a closure took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

fn read_lossy(file: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}
