//! A virtio-serial port into the guest: command lines in, output and exit status back (protocol: `guest/init`).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::deadline::{secs, wait_for};

/// What a command in a guest wrote and returned.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) text: String,
}

pub(crate) struct Console {
    stream: UnixStream,
    received: Vec<u8>,
    last_id: u32,
}

impl Console {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = wait_for("QEMU's console socket", secs(10), || UnixStream::connect(path).ok());
        Self { stream, received: Vec::new(), last_id: 0 }
    }

    /// Waits until the guest's init says that it is ready; what came before is forgotten.
    pub(crate) fn wait_boot(&mut self, limit: Duration) -> Result<(), String> {
        self.read_past("\x02boot\n", limit).map(drop)
    }

    /// Runs one shell command; the guest itself ends it at `limit` (status 143).
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> Result<Output, String> {
        assert!(!command.contains('\n'), "a command is one line");
        self.last_id += 1;
        let id = self.last_id;
        let line = format!("{id} {} {command}\n", limit.as_secs());
        self.stream.write_all(line.as_bytes()).map_err(|e| format!("write to the guest: {e}"))?;
        // The guest's clock runs slower than ours when the host is busy.
        let end = Instant::now() + limit * 2 + secs(10);
        self.read_past(&format!("\x02{id}\n"), end - Instant::now())?;
        let text = self.read_past(&format!("\x01{id} "), end - Instant::now())?;
        let status = self.read_past("\n", end - Instant::now())?;
        let status = status.parse().map_err(|e| format!("exit status {status:?}: {e}"))?;
        Ok(Output { status, text })
    }

    /// Takes what comes up to `mark`, and the mark itself.
    fn read_past(&mut self, mark: &str, limit: Duration) -> Result<String, String> {
        let end = Instant::now() + limit;
        let mark = mark.as_bytes();
        loop {
            if let Some(at) = self.received.windows(mark.len()).position(|w| w == mark) {
                let text = String::from_utf8_lossy(&self.received[..at]).into_owned();
                self.received.drain(..at + mark.len());
                return Ok(text);
            }
            self.read_some(end).map_err(|e| {
                let so_far = String::from_utf8_lossy(&self.received);
                format!("{e}; waited for {:?}; came so far: {so_far:?}", String::from_utf8_lossy(mark))
            })?;
        }
    }

    fn read_some(&mut self, end: Instant) -> Result<(), String> {
        let left = end.checked_duration_since(Instant::now()).ok_or("the guest is silent")?;
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).map_err(|e| e.to_string())?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err("QEMU closed the console".to_owned()),
            Ok(n) => {
                self.received.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(format!("read from the guest: {e}")),
        }
    }
}
