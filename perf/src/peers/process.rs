//! Programs of others, started and ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program that runs until this is dropped; what it writes goes into a file.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self, String> {
        let file = |e: std::io::Error| format!("{}: {e}", log.display());
        let out = File::create(log).map_err(file)?;
        let err = out.try_clone().map_err(file)?;
        command.stdin(Stdio::piped()).stdout(out).stderr(err);
        let name = command.get_program().display().to_string();
        let child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, with its last words, if it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        Some(format!("{status}; {}", last.into_iter().rev().collect::<Vec<_>>().join(" | ")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line that a program writes.
pub(super) fn first_line(program: &Path, args: &[&str]) -> Result<String, String> {
    let out = run(Command::new(program).args(args))?;
    Ok(out.lines().next().unwrap_or_default().trim().to_owned())
}
