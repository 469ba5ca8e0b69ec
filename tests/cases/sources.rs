//! Finds the tests that carry a case's number in their names.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders with tests.
const FOLDERS: [&str; 8] = ["ring", "mbuf", "pmd", "vhost", "vswitch", "perf", "src", "tests"];

/// A test, or a step that a macro makes a test of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// From the root.
    pub(crate) file: PathBuf,
    pub(crate) name: String,
    /// The cases in its name, as `V8`; a number that is not written with two digits as it stands.
    pub(crate) cases: Vec<String>,
}

impl Test {
    /// The name of the binary that has it, without the hash that Cargo puts behind it.
    pub(crate) fn binary(&self) -> String {
        let parts: Vec<_> = self.file.iter().map(|part| part.to_string_lossy()).collect();
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        match &parts[..] {
            ["src", ..] => "polder".to_owned(),
            ["tests", target, ..] | [_, "tests", target, ..] => target.trim_end_matches(".rs").to_owned(),
            [package, ..] => (*package).to_owned(),
            [] => String::new(),
        }
    }
}

/// All tests with a number of one of these families.
pub(crate) fn numbered_tests(root: &Path, letters: &[char]) -> Vec<Test> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files);
    }
    let mut tests = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a source");
        let file = path.strip_prefix(root).expect("below the root");
        for name in text.lines().filter_map(function) {
            let cases = cases_in(name, letters);
            if !cases.is_empty() {
                tests.push(Test { file: file.to_owned(), name: name.to_owned(), cases });
            }
        }
    }
    tests.sort();
    tests
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|e| e.expect("an entry").path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The name of the function that is defined in this line.
fn function(line: &str) -> Option<&str> {
    let (before, behind) = line.split_once("fn ")?;
    let is_definition = before.trim().is_empty() || before.trim() == "pub(crate)";
    let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    is_definition.then_some(&behind[..end])
}

/// The numbers that a name begins with: `h05_h07_sum` has H5 and H7. One that has not two digits stays as it is, so that no list
/// knows it.
fn cases_in(name: &str, letters: &[char]) -> Vec<String> {
    let is_number = |word: &str| {
        let mut chars = word.chars();
        let letter = chars.next().is_some_and(|c| letters.contains(&c.to_ascii_uppercase()));
        letter && word.len() > 1 && chars.all(|c| c.is_ascii_digit())
    };
    let words = name.split('_').count();
    let numbers = name.split('_').take(words - 1).take_while(|word| is_number(word));
    let case = |word: &str| match word.len() {
        3 => format!("{}{}", word[..1].to_uppercase(), word[1..].trim_start_matches('0')),
        _ => word.to_owned(),
    };
    numbers.map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names() {
        let cases = |name| cases_in(name, &['V', 'H']);
        assert_eq!(cases("v08_chain_cycle"), ["V8"]);
        assert_eq!(cases("h05_h20_checksum"), ["H5", "H20"]);
        assert_eq!(cases("v4_a_label_of_an_ordering"), ["v4"]);
        for name in ["u64_reply", "h1", "view", "a_v08"] {
            assert!(cases(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn binaries_of_files() {
        let binary = |file: &str| Test { file: file.into(), name: String::new(), cases: Vec::new() }.binary();
        assert_eq!(binary("vhost/src/vring/bell.rs"), "vhost");
        assert_eq!(binary("vhost/tests/late.rs"), "late");
        assert_eq!(binary("tests/hostile/rings.rs"), "hostile");
        assert_eq!(binary("src/main.rs"), "polder");
    }
}
