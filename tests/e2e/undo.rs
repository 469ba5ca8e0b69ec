//! What must be taken back however the test ends: processes, files, network namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shell command that runs when this is dropped, or when the test process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Undo {
    file: PathBuf,
}

impl Undo {
    pub(crate) fn with(command: &str) -> Self {
        let file = undo_dir().join(next_number().to_string());
        fs::write(&file, command).expect("write an undo file");
        Self { file }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = Command::new("sh").arg(&self.file).stderr(Stdio::null()).status();
        let _ = fs::remove_file(&self.file);
    }
}

/// This run's folder for sockets and logs; its path is short, since a socket's path holds 107 bytes.
pub(crate) fn run_dir() -> &'static Path {
    &keeper().dir
}

/// A number no one else in this run has.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A shell that outlives this process: when its standard input ends, it undoes what is left.
///
/// Guests are shared by tests through a static, which is never dropped, and a panic or a signal may end us anywhere.
struct Keeper {
    dir: PathBuf,
    _shell: Child,
}

const KEEPER: &str = r#"trap '' INT TERM HUP
cat >/dev/null
for undo in "$1"/undo/*; do [ -e "$undo" ] && sh "$undo"; done
rm -rf "$1""#;

fn undo_dir() -> PathBuf {
    run_dir().join("undo")
}

fn keeper() -> &'static Keeper {
    static KEEPER_SHELL: OnceLock<Keeper> = OnceLock::new();
    KEEPER_SHELL.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("e2e-").tempdir().expect("make a folder").keep();
        fs::create_dir(dir.join("undo")).expect("make a folder");
        let shell = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start sh");
        Keeper { dir, _shell: shell }
    })
}
