//! What programs tell: to a pipe that nobody reads any more they tell nothing, and go on.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Writes `text` and a line's end to standard output.
///
/// # Errors
/// What the system says; not that the reader has gone (`pktgen ... | head`).
pub fn out(text: &dyn Display) -> Result<(), String> {
    write(std::io::stdout().lock(), text).map_err(|e| format!("standard output: {e}"))
}

/// The same to standard error, where nothing is left to tell of errors.
pub fn err(text: &dyn Display) {
    drop(write(std::io::stderr().lock(), text));
}

/// Has the libraries' warnings and errors told on standard error, and no more: a device of ours tells of each guest that comes and
/// goes, hundreds in a run, between the lines of a progress bar.
pub fn warnings() {
    let level = tracing_subscriber::filter::LevelFilter::WARN;
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
}

fn write(mut to: impl Write, text: &dyn Display) -> std::io::Result<()> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_that_has_gone_is_no_error() {
        assert!(write(Broken(ErrorKind::BrokenPipe), &"x").is_ok());
        assert!(write(Broken(ErrorKind::StorageFull), &"x").is_err());
        let mut text = Vec::new();
        write(&mut text, &"x").unwrap();
        assert_eq!(text, b"x\n");
    }
}
