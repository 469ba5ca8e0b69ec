//! A `polder run` of a test's own, and ways to talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program, with nothing of the caller's environment that would change what it does.
pub(crate) fn polder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polder"));
    command.env_remove("POLDER_CONTROL").env_remove("POLDER_LOG").env_remove("NOTIFY_SOCKET");
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    polder().args(args).output().expect("start polder")
}

/// That it ended with `status`, said one line on standard error, and nothing else. Returns the line.
pub(crate) fn assert_refused(output: &Output, status: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(error.starts_with("polder: ") && error.ends_with('\n'), "{error:?}");
    assert_eq!(error.lines().count(), 1, "{error:?}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    error
}

/// A running daemon and its folder.
pub(crate) struct Daemon {
    child: Child,
    dir: TempDir,
}

impl Daemon {
    /// Starts it with small memory on 4 KiB pages, and waits for `ready`.
    pub(crate) fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start_in(dir, args)
    }

    /// The same in a folder that has things in it.
    pub(crate) fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let mut command = polder();
        command
            .arg("run")
            .args(["--memory", "8M", "--hugepages", "off", "--control"])
            .arg(dir.path().join("control"));
        let mut child =
            command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start polder");
        let out = child.stdout.take().expect("its output");
        let first = first_line(out);
        let this = Self { child, dir };
        match first.recv_timeout(PATIENCE) {
            Ok(line) if line == "ready\n" => this,
            other => panic!("{other:?} instead of ready; {}", this.stop().1),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// A command for this daemon.
    pub(crate) fn ask(&self, args: &[&str]) -> Output {
        polder().args(args).arg("--control").arg(self.control()).output().expect("start polder")
    }

    /// The same; it must succeed, and what it prints is JSON.
    pub(crate) fn ask_json(&self, args: &[&str]) -> Value {
        let out = self.ask(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    }

    /// The same; it must succeed and print nothing.
    pub(crate) fn order(&self, args: &[&str]) {
        let out = self.ask(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout.is_empty());
    }

    /// Whether a command succeeds within `limit`; it is killed if it takes longer.
    pub(crate) fn ask_within(&self, limit: Duration, args: &[&str]) -> bool {
        let mut child = polder()
            .args(args)
            .arg("--control")
            .arg(self.control())
            .stderr(Stdio::null())
            .spawn()
            .expect("start polder");
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = child.try_wait().expect("wait for a child") {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// Whether it has ended, however.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_some()
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.control()).expect("the control socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { reader: BufReader::new(stream) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal a child");
    }

    /// Waits for its end; the status and what it said on standard error.
    pub(crate) fn wait(mut self) -> (ExitStatus, String, TempDir) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("wait for a child") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("polder did not end within {PATIENCE:?}"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut error = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut error).expect("its errors");
        }
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a folder"));
        (status, error, dir)
    }

    /// Ends it by SIGTERM.
    pub(crate) fn stop(self) -> (ExitStatus, String, TempDir) {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_line(out: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = sender.send(line);
    });
    receiver
}

/// A raw connection to the control socket.
pub(crate) struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The next answer; `None` if the connection ended.
    pub(crate) fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))),
        }
    }

    pub(crate) fn call(&mut self, line: &str) -> Value {
        self.send(format!("{line}\n").as_bytes()).expect("send");
        self.answer().expect("an answer")
    }
}
