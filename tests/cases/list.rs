//! The list of hostile cases (cases.toml).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Cases whose numbers begin with the same letter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Family {
    pub(crate) letter: char,
    pub(crate) title: String,
    pub(crate) case: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// A letter and a number, as in `V8`.
    pub(crate) id: String,
    /// What the hostile side does.
    pub(crate) tried: String,
    /// What must hold.
    pub(crate) holds: String,
    /// Why there is no test.
    pub(crate) not_applicable: Option<String>,
    /// Why there is no test yet.
    pub(crate) pending: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    family: Vec<Family>,
}

pub(crate) fn families(root: &Path) -> Vec<Family> {
    let text = fs::read_to_string(root.join("tests/cases/cases.toml")).expect("cases.toml");
    toml::from_str::<List>(&text).unwrap_or_else(|e| panic!("cases.toml: {e}")).family
}

/// All cases by number, each once.
pub(crate) fn by_id(families: &[Family]) -> BTreeMap<&str, &Case> {
    let mut all = BTreeMap::new();
    for family in families {
        for case in &family.case {
            assert!(case.id.starts_with(family.letter), "{} is in family {}", case.id, family.letter);
            assert!(all.insert(case.id.as_str(), case).is_none(), "{} is in cases.toml twice", case.id);
        }
    }
    all
}
