//! docs/hostile.md, made of the lists and the sources.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::faults::{faults, found};
use crate::list::{Case, Family, families};
use crate::sources::{Test, numbered_tests};

const HEAD: &str = include_str!("head.md");
const FAULTS: &str = include_str!("faults.md");

/// Where the page stands.
pub(crate) fn file(root: &Path) -> PathBuf {
    root.join("docs/hostile.md")
}

/// The page as it should be.
pub(crate) fn render(root: &Path) -> String {
    let families = families(root);
    let letters: Vec<_> = families.iter().map(|f| f.letter).collect();
    let tests = numbered_tests(root, &letters);
    let mut page = HEAD.to_owned();
    add_summary(&mut page, &families, &tests);
    for family in &families {
        add_family(&mut page, family, &tests);
    }
    add_faults(&mut page, root);
    page
}

/// The tests of a case.
pub(crate) fn tests_of<'t>(case: &Case, tests: &'t [Test]) -> Vec<&'t Test> {
    tests.iter().filter(|test| test.cases.contains(&case.id)).collect()
}

fn add_summary(page: &mut String, families: &[Family], tests: &[Test]) {
    let all: Vec<_> = families.iter().flat_map(|f| &f.case).collect();
    let shown = all.iter().filter(|case| !tests_of(case, tests).is_empty()).count();
    let not = all.iter().filter(|case| case.not_applicable.is_some()).count();
    let (count, open, tests) = (all.len(), all.len() - shown - not, tests.len());
    let _ = writeln!(
        page,
        "{count} cases: {shown} shown by {tests} tests, {not} that do not apply, {open} open.\n"
    );
}

fn add_family(page: &mut String, family: &Family, tests: &[Test]) {
    let _ = writeln!(page, "## {}: {}\n", family.letter, family.title);
    page.push_str("| case | tried | must hold | result | tests |\n|---|---|---|---|---|\n");
    for case in &family.case {
        let tests = tests_of(case, tests);
        let result = match (&tests[..], &case.not_applicable, &case.pending) {
            ([], Some(why), _) => format!("does not apply: {why}"),
            ([], None, Some(why)) => format!("open: {why}"),
            ([], None, None) => "open".to_owned(),
            _ => "holds".to_owned(),
        };
        let (tried, holds) = (cell(&case.tried), cell(&case.holds));
        let _ = writeln!(page, "| {} | {tried} | {holds} | {result} | {} |", case.id, names(&tests));
    }
    page.push('\n');
}

/// The tests' names, those of one file behind the file's.
fn names(tests: &[&Test]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for of_one_file in tests.chunk_by(|a, b| a.file == b.file) {
        let names: Vec<_> = of_one_file.iter().map(|test| format!("`{}`", test.name)).collect();
        lines.push(format!("{}: {}", of_one_file[0].file.display(), names.join(", ")));
    }
    lines.join("<br>")
}

fn add_faults(page: &mut String, root: &Path) {
    page.push_str(FAULTS);
    let found = found(root);
    for fault in faults(root) {
        let (by, seconds) = match found.get(&fault.name) {
            Some(it) => (format!("`{}`", it.by), it.seconds.to_string()),
            None => ("not run yet".to_owned(), String::new()),
        };
        let (cases, what) = (fault.cases.join(", "), cell(&fault.what));
        let _ = writeln!(page, "| {} | {cases} | {what} | {by} | {seconds} |", fault.name);
    }
}

/// Text inside of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
