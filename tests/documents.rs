//! Documents that cannot lie: what they name exists.
//!
//! In every `*.md`, and in the UNSAFETY and ORDERING notes of the sources, these are looked up: links to files, paths and
//! file names in `code`, and `Type::function`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where sources and documents are.
const FOLDERS: [&str; 12] = [
    "ring", "mbuf", "pmd", "vhost", "vswitch", "examples", "perf", "fuzz", "src", "tests", "docs", "scripts",
];
/// Kinds of files of the tree that documents name.
const ENDINGS: [&str; 5] = [".rs", ".md", ".svg", ".toml", ".sh"];
/// Types of the standard library and of dependencies that documents name.
const FOREIGN_TYPES: [&str; 6] = ["Arc", "Box", "Instant", "Option", "Path", "Vec"];

struct Tree {
    files: BTreeMap<PathBuf, String>,
}

impl Tree {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tree = Self { files: BTreeMap::new() };
        for folder in FOLDERS {
            tree.collect(root, &root.join(folder));
        }
        for entry in fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
            tree.insert(root, &entry);
        }
        assert!(tree.files.len() > 100, "the tree was not found");
        tree
    }

    fn collect(&mut self, root: &Path, folder: &Path) {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            match path.is_dir() {
                true if !path.ends_with("target") => self.collect(root, &path),
                true => {}
                false => self.insert(root, &path),
            }
        }
    }

    /// Files that are not text have a name all the same.
    fn insert(&mut self, root: &Path, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        self.files.insert(path.strip_prefix(root).unwrap().to_owned(), text);
    }

    /// Those that are read where they lie: what the tests make a document of is looked at as part of that.
    fn documents(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.of("md").filter(|(path, _)| !path.starts_with("tests"))
    }

    fn sources(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.of("rs")
    }

    fn of(&self, ending: &'static str) -> impl Iterator<Item = (&Path, &str)> {
        let has_it = move |(path, _): &(&PathBuf, &String)| path.extension().is_some_and(|e| e == ending);
        self.files.iter().filter(has_it).map(|(path, text)| (path.as_path(), text.as_str()))
    }

    /// A file or folder of this name, as it is written or as the end of a path.
    fn has(&self, name: &str) -> bool {
        let name = Path::new(name.trim_end_matches('/'));
        self.files.keys().any(|file| file.ancestors().any(|part| part.ends_with(name)))
    }
}

/// Text between backquotes, outside of blocks of code.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut spans = Vec::new();
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number + 1, span)));
        }
    }
    spans
}

/// Targets of links, without those that lead elsewhere.
fn links(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .flat_map(|(number, line)| {
            let behind = line.split("](").skip(1);
            behind.filter_map(|rest| rest.split_once(')')).map(move |(target, _)| (number + 1, target))
        })
        .filter(|(_, target)| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

/// Lines of a source's UNSAFETY and ORDERING notes, whole notes each.
fn notes(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        inside =
            line.starts_with("//") && (inside || line.contains("UNSAFETY:") || line.contains("ORDERING:"));
        if inside {
            found.push((number + 1, line));
        }
    }
    found
}

/// Words that could be a file of the tree.
fn files_named(span: &str) -> impl Iterator<Item = &str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    span.split(move |c| !is_plain(c)).filter(|word| {
        let in_folder =
            FOLDERS.iter().any(|f| word.strip_prefix(f).is_some_and(|rest| rest.starts_with('/')));
        let named = ENDINGS.iter().any(|e| word.len() > e.len() && word.ends_with(e));
        (in_folder || named) && !word.starts_with('/') && !word.starts_with("..")
    })
}

/// `Type::member`s, as (type, member).
fn members_named(span: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    span.split(move |c| !is_name(c)).filter_map(|word| {
        let (before, member) = word.rsplit_once("::")?;
        let owner = before.rsplit("::").next()?;
        let is_type = owner.starts_with(|c: char| c.is_ascii_uppercase()) && owner.len() > 1;
        (is_type && !member.is_empty()).then_some((owner, member))
    })
}

/// Everything that is declared: types, and the names in files that speak of each.
struct Names<'t> {
    types: BTreeSet<&'t str>,
    sources: Vec<&'t str>,
}

impl<'t> Names<'t> {
    fn of(tree: &'t Tree) -> Self {
        let sources: Vec<_> = tree.sources().map(|(_, text)| text).collect();
        let declared = |line: &'t str| {
            let mut words =
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty());
            words.find(|w| ["struct", "enum", "trait", "type", "union"].contains(w))?;
            words.next()
        };
        let types = sources.iter().flat_map(|text| text.lines()).filter_map(declared).collect();
        Self { types, sources }
    }

    /// Whether some file that names the type declares such a function, constant, field or variant.
    fn has(&self, owner: &str, member: &str) -> bool {
        if FOREIGN_TYPES.contains(&owner) {
            return true;
        }
        let declares = |text: &str| {
            let function = [format!("fn {member}("), format!("fn {member}<"), format!("const {member}:")];
            function.iter().any(|f| text.contains(f.as_str()))
                || text.lines().map(str::trim_start).any(|line| {
                    let field = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                    field.strip_prefix(member).is_some_and(|rest| rest.starts_with([':', ',', ' ', '(', '{']))
                })
        };
        self.types.contains(owner) && self.sources.iter().any(|text| text.contains(owner) && declares(text))
    }
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Spans of documents and notes of sources, each with its file and line.
fn all_spans(tree: &Tree) -> Vec<(String, &str)> {
    let place = |path: &Path, line| format!("{}:{line}", path.display());
    let documents = tree.documents().flat_map(|(path, text)| {
        code_spans(text).into_iter().map(move |(line, span)| (place(path, line), span))
    });
    let notes = tree
        .sources()
        .flat_map(|(path, text)| notes(text).into_iter().map(move |(line, note)| (place(path, line), note)));
    documents.chain(notes).collect()
}

#[test]
fn links_lead_somewhere() {
    let tree = Tree::read();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for (path, text) in tree.documents() {
        for (line, target) in links(text) {
            let file = target.split('#').next().unwrap_or(target);
            let from = path.parent().unwrap_or(Path::new(""));
            if !root.join(from).join(file).exists() {
                faults.push(format!("{}:{line}: a link to {target}, which is not there", path.display()));
            }
        }
    }
    report(&faults);
}

#[test]
fn files_that_are_named_exist() {
    let tree = Tree::read();
    let faults: Vec<_> = all_spans(&tree)
        .iter()
        .flat_map(|(place, span)| files_named(span).map(move |name| (place, name)))
        .filter(|(_, name)| !tree.has(name))
        .map(|(place, name)| format!("{place}: {name} is not there"))
        .collect();
    report(&faults);
}

#[test]
fn members_that_are_named_exist() {
    let tree = Tree::read();
    let names = Names::of(&tree);
    let faults: Vec<_> = all_spans(&tree)
        .iter()
        .flat_map(|(place, span)| members_named(span).map(move |member| (place, member)))
        .filter(|(_, (owner, member))| !names.has(owner, member))
        .map(|(place, (owner, member))| format!("{place}: there is no {owner}::{member}"))
        .collect();
    report(&faults);
}
