//! The list of faults of history (faults.toml), and which test found each of them (found.toml).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One fault: a place in the sources, and what stood there in somebody's history.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) name: String,
    /// Numbers of the cases that it breaks.
    pub(crate) cases: Vec<String>,
    /// What is wrong when it is there.
    pub(crate) what: String,
    /// Arguments of `cargo test`: the suite that must find it.
    pub(crate) run: String,
    /// Seconds after which a suite that still runs counts as hung, where it takes much less than [`LIMIT`].
    pub(crate) limit: Option<u64>,
    pub(crate) edit: Vec<Edit>,
}

/// A suite that has not failed after so many seconds has not found the fault, unless it hangs.
pub(crate) const LIMIT: u64 = 600;

/// One change of one file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    pub(crate) file: PathBuf,
    /// Occurs exactly once in the file.
    pub(crate) old: String,
    pub(crate) new: String,
}

impl Edit {
    /// The file's text with the fault in it.
    pub(crate) fn apply(&self, text: &str) -> Result<String, String> {
        let file = self.file.display();
        match text.matches(&self.old).count() {
            1 if self.old != self.new => Ok(text.replacen(&self.old, &self.new, 1)),
            1 => Err(format!("{file}: `new` is what `old` is")),
            n => Err(format!("{file}: `old` occurs {n} times, not once:\n{}", self.old)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultList {
    fault: Vec<Fault>,
}

/// How a fault was found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Found {
    /// The first test that failed.
    pub(crate) by: String,
    /// From the start of the suite (built already) to that failure.
    pub(crate) seconds: u64,
}

/// By the name of the fault.
pub(crate) type AllFound = BTreeMap<String, Found>;

pub(crate) fn faults(root: &Path) -> Vec<Fault> {
    let text = fs::read_to_string(root.join("tests/cases/faults.toml")).expect("faults.toml");
    toml::from_str::<FaultList>(&text).expect("faults.toml").fault
}

pub(crate) fn found(root: &Path) -> AllFound {
    let text = fs::read_to_string(found_file(root)).unwrap_or_default();
    toml::from_str(&text).expect("found.toml")
}

pub(crate) fn write_found(root: &Path, found: &AllFound) {
    let text = toml::to_string(found).expect("names and numbers");
    fs::write(found_file(root), format!("# Written by `./test faults`.\n\n{text}")).expect("found.toml");
}

fn found_file(root: &Path) -> PathBuf {
    root.join("tests/cases/found.toml")
}
