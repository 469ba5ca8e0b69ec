//! The house's rules that a compiler does not check, as ordinary tests over the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FOLDERS: [&str; 10] =
    ["ring", "mbuf", "pmd", "vhost", "vswitch", "examples", "perf", "fuzz", "src", "tests"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "base", "helper", "helpers"];

struct Source {
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    fn contains(&self, word: &str) -> bool {
        self.lines.iter().any(|l| l.contains(word))
    }

    /// Line `i` and the run of comments and attributes above it, or the one behind it.
    fn is_explained(&self, i: usize, word: &str) -> bool {
        let above = self.lines[..i].iter().rev().take(12);
        self.lines[i].contains(word) || above.into_iter().any(|l| l.contains(word))
    }
}

fn collect(dir: &Path, into: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let lines = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            into.push(Source { path, lines });
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut all);
    }
    assert!(all.len() > 50, "the sources were not found");
    // This file names the words that it looks for.
    all.retain(|s| !s.path.ends_with("tests/tidy.rs"));
    all
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn fault(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{}: {what}", source.path.display(), line + 1)
}

/// Not a test and not a benchmark.
fn is_product(path: &Path) -> bool {
    !path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn modules_that_opt_in_to_unsafe_say_why() {
    let faults: Vec<_> = sources()
        .iter()
        .filter(|s| s.contains("#![expect(unsafe_code") && !s.contains("UNSAFETY:") && is_product(&s.path))
        .map(|s| fault(s, 0, "opts in to unsafe code without an UNSAFETY note at its head"))
        .collect();
    report(&faults);
}

#[test]
fn orderings_name_their_partners() {
    let strong = ["Ordering::Acquire", "Ordering::Release", "Ordering::AcqRel", "Ordering::SeqCst"];
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| is_product(&s.path)) {
        let tests_from =
            source.lines.iter().position(|l| l.trim() == "#[cfg(test)]").unwrap_or(source.lines.len());
        for (i, line) in source.lines[..tests_from].iter().enumerate() {
            if !is_comment(line)
                && strong.iter().any(|o| line.contains(o))
                && !source.is_explained(i, "ORDERING")
            {
                faults.push(fault(source, i, "an ordering without a label that names its partner"));
            }
        }
    }
    report(&faults);
}

#[test]
fn each_todo_has_a_reason() {
    let mut faults = Vec::new();
    for source in &sources() {
        for (i, line) in source.lines.iter().enumerate() {
            if line.contains("TODO") && !line.contains("TODO(") {
                faults.push(fault(source, i, "a TODO without a reason: write TODO(why it is not done)"));
            }
        }
    }
    report(&faults);
}

#[test]
fn names_say_what_is_inside() {
    let faults: Vec<_> = sources()
        .iter()
        .filter(|s| s.path.file_stem().is_some_and(|n| EMPTY_NAMES.iter().any(|e| n == *e)))
        .map(|s| fault(s, 0, "a name that says nothing"))
        .collect();
    report(&faults);
}

#[test]
fn every_file_is_reachable() {
    let all = sources();
    let known: BTreeSet<_> = all.iter().map(|s| s.path.clone()).collect();
    let mut reached: BTreeSet<PathBuf> =
        all.iter().filter(|s| is_root(&s.path)).map(|s| s.path.clone()).collect();
    let mut open: Vec<_> = reached.iter().cloned().collect();
    while let Some(path) = open.pop() {
        let source = all.iter().find(|s| s.path == path).unwrap();
        for child in children(source).into_iter().filter(|c| known.contains(c)) {
            if reached.insert(child.clone()) {
                open.push(child);
            }
        }
    }
    let faults: Vec<_> =
        known.difference(&reached).map(|p| format!("{}: no module declares it", p.display())).collect();
    report(&faults);
}

/// Files that Cargo names: crate roots, and targets of their own.
fn is_root(path: &Path) -> bool {
    let name = path.file_name().unwrap();
    let parent = path.parent().unwrap();
    let folder = parent.file_name().unwrap();
    name == "lib.rs"
        || name == "build.rs"
        || name == "main.rs"
        || ["tests", "benches", "bin", "fuzz_targets"].iter().any(|f| folder == *f)
}

/// Where the modules that a file declares may lie.
fn children(source: &Source) -> Vec<PathBuf> {
    let dir = source.path.parent().unwrap();
    let stem = source.path.file_stem().unwrap();
    let own = if is_root(&source.path) || stem == "mod" { dir.to_owned() } else { dir.join(stem) };
    let mut found = Vec::new();
    for line in &source.lines {
        let line = line.trim();
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|l| l.strip_suffix("\"]")) {
            found.push(dir.join(path));
        }
        let name = line.strip_suffix(';').and_then(|l| l.split("mod ").nth(1)).filter(|n| !n.contains(' '));
        if let Some(name) = name {
            found.push(own.join(format!("{name}.rs")));
            found.push(own.join(name).join("mod.rs"));
        }
    }
    found
}
