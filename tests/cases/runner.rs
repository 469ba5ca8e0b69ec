//! Runs the suite that must find a fault: builds it, starts it, and waits for the first test that fails.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::faults::{Fault, Found, LIMIT};

/// Runs the fault's suite in `tree`, in which it stands: what failed first, or `None` if all went well. An error if it does not
/// build.
pub(crate) fn first_failure(tree: &Path, target: &Path, fault: &Fault) -> Result<Option<Found>, String> {
    let arguments = fault.run.as_str();
    let limit = Duration::from_secs(fault.limit.unwrap_or(LIMIT));
    let built = cargo_test(tree, target, &format!("--no-run {arguments}")).output().expect("cargo");
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    let start = Instant::now();
    let mut suite = Suite::start(cargo_test(tree, target, arguments));
    let by = suite.wait(start + limit);
    suite.kill();
    Ok(by.map(|by| Found { by, seconds: start.elapsed().as_secs_f64().ceil() as u64 }))
}

fn cargo_test(tree: &Path, target: &Path, arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("test").args(arguments.split_whitespace()).current_dir(tree);
    command.env("CARGO_TARGET_DIR", target).env("CARGO_TERM_COLOR", "never");
    // Races last longer than in an ordinary run: they end with the first failure.
    command.env("POLDER_SOAK", "20");
    // Nobody looks at symbols here, and they are half of the time that building takes.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    command
}

/// A suite that runs, in a process group of its own.
struct Suite {
    child: Child,
    lines: Receiver<String>,
}

impl Suite {
    fn start(mut command: Command) -> Self {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cargo");
        let (to, lines) = channel();
        forward(child.stdout.take().expect("piped"), to.clone());
        forward(child.stderr.take().expect("piped"), to);
        Self { child, lines }
    }

    /// The first test that fails, the signal that ended the suite, or the test that did not end.
    fn wait(&mut self, until: Instant) -> Option<String> {
        let (mut slow, mut signal) = (None, None);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(test) = between(&line, "test ", " ... FAILED") {
                        return Some(test.to_owned());
                    }
                    slow = between(&line, "test ", " has been running").map(str::to_owned).or(slow);
                    signal = between(&line, "(signal: ", ")").map(str::to_owned).or(signal);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Some(format!("{} does not end", slow.as_deref().unwrap_or("the suite")));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let failed = !self.child.wait().expect("our child").success();
        failed.then(|| signal.map_or("the suite".to_owned(), |s| format!("the suite, ended by signal {s}")))
    }

    fn kill(mut self) {
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Sends what comes in, line by line, on a thread of its own.
fn forward(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

/// What stands between the first `from` and the first `to` behind it.
fn between<'l>(line: &'l str, from: &str, to: &str) -> Option<&'l str> {
    let (_, behind) = line.split_once(from)?;
    behind.split_once(to).map(|(within, _)| within)
}
