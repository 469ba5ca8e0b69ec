//! Where the control socket is.

use std::fs::{DirBuilder, symlink_metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::failure::Failure;

const FILE: &str = "control.sock";

/// The socket named, or the default: `/run/polder/control.sock` for root, else `$XDG_RUNTIME_DIR/polder/control.sock`,
/// else `/tmp/polder-UID/control.sock`.
pub(crate) fn control_path(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| default_dir().join(FILE))
}

fn default_dir() -> PathBuf {
    let uid = geteuid();
    if uid.is_root() {
        return "/run/polder".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => dir.join("polder"),
        _ => format!("/tmp/polder-{}", uid.as_raw()).into(),
    }
}

/// Makes the default directory, for nobody else; does nothing for a socket in any other.
pub(crate) fn make_default_dir(socket: &Path) -> Result<(), Failure> {
    let dir = default_dir();
    if socket.parent() != Some(&dir) {
        return Ok(());
    }
    let failed = |e| {
        Failure::runtime(format!("cannot make {}: {e}; name another socket with --control", dir.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
    // In /tmp somebody else may have been there first.
    let found = symlink_metadata(&dir).map_err(failed)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(Failure::runtime(format!(
            "{} is not a directory of ours that only we can write; remove it, or name another socket with --control",
            dir.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_or_default() {
        assert_eq!(control_path(Some("/x/y".into())), PathBuf::from("/x/y"));
        assert!(control_path(None).ends_with(FILE));
        assert!(make_default_dir(Path::new("/nowhere/at/all")).is_ok());
    }
}
