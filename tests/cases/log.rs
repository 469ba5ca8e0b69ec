//! The log of a whole `./test`, and which tests were ok in it.

use std::collections::HashMap;

/// How often a test of this binary and name was ok, and how often it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ok: usize,
    pub(crate) failed: usize,
}

/// By binary and name, without the modules that a name stands in.
pub(crate) type Outcomes = HashMap<(String, String), Outcome>;

/// Reads what `cargo test` printed. A test that runs alone has its name in front of what it prints itself, and its outcome behind.
pub(crate) fn outcomes(log: &str) -> Outcomes {
    let mut all = Outcomes::new();
    let (mut binary, mut running) = (String::new(), None);
    for line in log.lines() {
        if let Some(name) = binary_of(line) {
            (binary, running) = (name, None);
            continue;
        }
        if let Some((name, _)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let name = name.split(" - ").next().unwrap_or(name);
            running = Some(name.rsplit("::").next().unwrap_or(name).to_owned());
        }
        let Some(name) = &running else { continue };
        let (ok, failed) = (line.ends_with("ok"), line.ends_with("FAILED"));
        if ok || failed {
            let outcome = all.entry((binary.clone(), name.clone())).or_default();
            outcome.ok += usize::from(ok);
            outcome.failed += usize::from(failed);
            running = None;
        } else if line.contains(" ... ignored") {
            running = None;
        }
    }
    all
}

/// The `cli` of `Running tests/cli/main.rs (target/debug/deps/cli-0123456789abcdef)`.
fn binary_of(line: &str) -> Option<String> {
    let (_, path) = line.trim_start().strip_prefix("Running ")?.rsplit_once('(')?;
    let (name, _) = path.strip_suffix(')')?.rsplit('/').next()?.rsplit_once('-')?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_prints() {
        let log = "     Running tests/hostile/main.rs (target/debug/deps/hostile-0123)\n\
                   test chains::v08_chain_cycle ... ok\ntest rings::v01_head ... FAILED\n\
                   test load::v06_full ... ignored, slow\n\
                   Running unittests src/lib.rs (target/deps/vhost-4)\n\
                   test chain::v08_chain_cycle ... something that it says\nand more\nok\n\
                   test two::s17_twice - should panic ... ok\ntest one::s17_twice ... ok\n";
        let all = outcomes(log);
        let of = |binary: &str, name: &str| all.get(&(binary.to_owned(), name.to_owned())).copied();
        assert_eq!(of("hostile", "v08_chain_cycle"), Some(Outcome { ok: 1, failed: 0 }));
        assert_eq!(of("hostile", "v01_head"), Some(Outcome { ok: 0, failed: 1 }));
        assert_eq!(of("hostile", "v06_full"), None);
        assert_eq!(of("vhost", "v08_chain_cycle"), Some(Outcome { ok: 1, failed: 0 }));
        assert_eq!(of("vhost", "s17_twice"), Some(Outcome { ok: 2, failed: 0 }));
    }
}
