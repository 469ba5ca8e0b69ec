//! Connecting under libFuzzer's timer, whose signal interrupts who waits for room in a listener's backlog.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects to who listens at `path`.
#[must_use]
pub fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            connected => return connected.expect("it listens"),
        }
    }
}
