//! docs/hostile.md is made here: of the list of hostile cases, of the tests that carry their numbers, and of the faults of history
//! that the tests must find.
//!
//! | | |
//! |---|---|
//! | `cargo test --test cases` | the page is up to date, every case has a test or a reason, every fault its place |
//! | `POLDER_WRITE=1 cargo test --test cases` | writes the page |
//! | `./test faults [NAME]` | puts faults back, one at a time, and writes who found them |
//! | `POLDER_TEST_LOG=FILE cargo test --test cases -- --ignored every_test` | in this log of `./test` every test of the page was ok |

mod faults;
mod list;
mod log;
mod page;
mod runner;
mod sources;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use faults::{Fault, faults, found, write_found};
use list::{by_id, families};
use sources::{Test, numbered_tests};
use tree::Tree;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tests() -> Vec<Test> {
    let letters: Vec<_> = families(root()).iter().map(|f| f.letter).collect();
    numbered_tests(root(), &letters)
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_page_is_up_to_date() {
    let (file, due) = (page::file(root()), page::render(root()));
    if std::env::var_os("POLDER_WRITE").is_some() {
        fs::write(&file, &due).expect("docs/hostile.md");
    }
    let is = fs::read_to_string(&file).unwrap_or_default();
    let line = is.lines().zip(due.lines()).take_while(|(is, due)| is == due).count() + 1;
    assert!(is == due, "docs/hostile.md:{line}: not up to date: run POLDER_WRITE=1 cargo test --test cases");
}

#[test]
fn every_case_has_a_test_or_a_reason() {
    let (families, tests, mut wrong) = (families(root()), tests(), Vec::new());
    for (id, case) in by_id(&families) {
        let has_tests = !page::tests_of(case, &tests).is_empty();
        match (has_tests, &case.not_applicable, &case.pending) {
            (false, None, None) => wrong.push(format!("{id} has neither a test nor a reason in cases.toml")),
            (true, Some(why), _) => wrong.push(format!("{id} has a test: strike its reason ({why})")),
            _ => {}
        }
    }
    report(&wrong);
}

#[test]
fn every_number_in_a_tests_name_is_a_cases() {
    let families = families(root());
    let (known, mut wrong) = (by_id(&families), Vec::new());
    for test in tests() {
        for case in test.cases.iter().filter(|case| !known.contains_key(case.as_str())) {
            let file = test.file.display();
            wrong.push(format!("{file}: {}: {case} is no case of cases.toml (two digits each)", test.name));
        }
    }
    report(&wrong);
}

#[test]
fn each_fault_can_be_put_back() {
    let families = families(root());
    let (cases, found, mut wrong, mut names) = (by_id(&families), found(root()), Vec::new(), BTreeSet::new());
    for fault in faults(root()) {
        let name = &fault.name;
        for edit in &fault.edit {
            let text = fs::read_to_string(root().join(&edit.file)).unwrap_or_default();
            wrong.extend(edit.apply(&text).err().map(|why| format!("{name}: {why}")));
        }
        for case in fault.cases.iter().filter(|case| !cases.contains_key(case.as_str())) {
            wrong.push(format!("{name}: {case} is no case of cases.toml"));
        }
        if !names.insert(name.clone()) {
            wrong.push(format!("{name}: comes twice"));
        }
    }
    let gone = found.keys().filter(|name| !names.contains(*name));
    wrong.extend(gone.map(|name| format!("{name}: found.toml has it, faults.toml does not")));
    report(&wrong);
}

/// The last step of `./test`.
#[test]
#[ignore = "needs the log of ./test: run ./test"]
fn every_test_of_the_page_was_ok() {
    let file = std::env::var("POLDER_TEST_LOG").expect("POLDER_TEST_LOG: the log of ./test");
    let log = log::outcomes(&String::from_utf8_lossy(&fs::read(&file).expect("the log")));
    let mut due: BTreeMap<_, usize> = BTreeMap::new();
    for test in tests() {
        *due.entry((test.binary(), test.name)).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for ((binary, name), definitions) in due {
        let outcome = log.get(&(binary.clone(), name.clone())).copied().unwrap_or_default();
        if outcome.failed > 0 || outcome.ok < definitions {
            let log::Outcome { ok, failed } = outcome;
            wrong.push(format!(
                "{name} (of {binary}): {definitions} in the sources, {ok} ok, {failed} failed"
            ));
        }
    }
    report(&wrong);
}

/// Puts the faults back one at a time, in a copy of the sources.
#[test]
#[ignore = "an hour: run ./test faults"]
fn every_fault_is_found() {
    let only = std::env::var("POLDER_FAULT").unwrap_or_default();
    let mut chosen = faults(root());
    chosen.retain(|fault| only.is_empty() || only.split(',').any(|name| name == fault.name));
    assert!(!chosen.is_empty(), "no fault is named {only}: see tests/cases/faults.toml");
    let tree = Tree::copy_of(root());
    let missed: Vec<_> = chosen.iter().filter(|fault| !is_found(fault, &tree)).collect();
    fs::write(page::file(root()), page::render(root())).expect("docs/hostile.md");
    report(&missed.iter().map(|fault| format!("{}: not found", fault.name)).collect::<Vec<_>>());
}

fn is_found(fault: &Fault, tree: &Tree) -> bool {
    let target = root().join("target/faults/build");
    let mut all = found(root());
    all.remove(&fault.name);
    match tree.with(fault, || runner::first_failure(tree.root(), &target, fault)) {
        Ok(Some(it)) => {
            println!("{:<32} {:>4} s  {}", fault.name, it.seconds, it.by);
            all.insert(fault.name.clone(), it);
            write_found(root(), &all);
            true
        }
        Ok(None) => {
            write_found(root(), &all);
            println!("{:<32} NOT FOUND by cargo test {}", fault.name, fault.run);
            false
        }
        Err(why) => {
            println!("{:<32} DOES NOT BUILD:\n{why}", fault.name);
            false
        }
    }
}
