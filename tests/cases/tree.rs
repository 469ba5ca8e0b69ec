//! A copy of the sources in which a fault can stand while its suite runs, under target/faults.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::faults::Fault;

/// What is not copied, by name, wherever it is.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// The copy.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Brings the copy up to date. Files that are right stay as they are, so that Cargo does not build them anew; what the
    /// sources no longer have goes.
    pub(crate) fn copy_of(root: &Path) -> Self {
        let copy = root.join("target/faults/tree");
        copy_dir(root, &copy);
        Self { root: copy }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Does `work` while the fault is in the copy.
    pub(crate) fn with<T>(&self, fault: &Fault, work: impl FnOnce() -> T) -> T {
        let files: BTreeSet<_> = fault.edit.iter().map(|edit| self.root.join(&edit.file)).collect();
        let sound: Vec<_> = files.iter().map(|file| (file, read(file))).collect();
        for edit in &fault.edit {
            let file = self.root.join(&edit.file);
            let faulty = edit.apply(&read(&file)).unwrap_or_else(|why| panic!("{}: {why}", fault.name));
            fs::write(&file, faulty).expect("the copy is ours");
        }
        let done = work();
        for (file, text) in sound {
            fs::write(file, text).expect("the copy is ours");
        }
        done
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory of the copy");
    for (path, name) in entries(from) {
        if LEFT_OUT.iter().any(|n| name == *n) {
            continue;
        }
        let copy = to.join(&name);
        if path.is_dir() {
            copy_dir(&path, &copy);
        } else if fs::read(&path).ok() != fs::read(&copy).ok() {
            fs::copy(&path, &copy).expect("a file of the copy");
        }
    }
    for (path, _) in entries(to).into_iter().filter(|(_, name)| !from.join(name).exists()) {
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.expect("the copy is ours");
    }
}

/// What is in a directory, with its names.
fn entries(dir: &Path) -> Vec<(PathBuf, OsString)> {
    let all = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    all.map(|entry| entry.expect("an entry")).map(|entry| (entry.path(), entry.file_name())).collect()
}
