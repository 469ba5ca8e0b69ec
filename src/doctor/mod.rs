//! `polder doctor`: what this machine offers, and how to mend what it lacks. It changes nothing.

mod charge;
mod cpus;
mod files;
mod memory;
mod nic;
mod rights;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pmd::bus::pci::Bdf;
use serde::Serialize;
use serde_json::json;

use crate::cli::DoctorArgs;
use crate::control::{Client, control_path};
use crate::failure::Failure;
use crate::nic::Machine;
use crate::report::PortShow;
use crate::settings::PortSpec;
use nic::Nics;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Polder runs, but slower or without something.
    Warn,
    /// Polder does not run.
    Bad,
}

/// What was found of one thing.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found, in one line.
    found: String,
    /// What mends it: a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), mend: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, state: State::Warn, found: found.into(), mend: Some(mend.into()) }
    }

    fn bad(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, state: State::Bad, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Looks at everything; status 1 if Polder would not run.
pub(crate) fn run(args: DoctorArgs, control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let checks = examine(&Machine::new(args.machine), &control_path(control));
    let text = if args.json { format!("{}\n", json!({ "checks": checks })) } else { as_text(&checks) };
    crate::ask::print(&text)?;
    Ok(if checks.iter().any(|c| c.state == State::Bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(machine: &Machine, control: &Path) -> Vec<Check> {
    let nics = Nics::find(machine, ports_on_cards(control));
    let mut checks = vec![
        memory::hugepages_2m(),
        memory::hugepages_1g(),
        memory::memlock(nics.to_open()),
        memory::memfd(),
        cpus::allowed(),
        cpus::isolated(),
        cpus::numa(),
        files::tun(),
        files::control(control),
    ];
    checks.extend(charge::checks(control));
    if let Ok(mut client) = Client::connect(control.to_owned()) {
        checks.extend(rights::checks(&mut client));
    }
    checks.extend(nics.checks(machine));
    checks
}

/// Where the cards sit that a running switch has ports on; `None` if none answers.
fn ports_on_cards(control: &Path) -> Option<Vec<Bdf>> {
    let mut client = Client::connect(control.to_owned()).ok()?;
    let ports: Vec<PortShow> = client.call("port.list", &json!({})).ok()?;
    let card = |port: &PortShow| port.spec.parse::<PortSpec>().ok()?.card();
    Some(ports.iter().filter_map(card).collect())
}

fn as_text(checks: &[Check]) -> String {
    let line = |c: &Check| {
        let state = match c.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Bad => "BAD",
        };
        let mend = c.mend.as_ref().map_or_else(String::new, |m| format!("      mend: {m}\n"));
        format!("{state:<5} {:<15} {}\n{mend}", c.name, c.found)
    };
    checks.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::MachineArgs;

    #[test]
    fn every_check_that_is_not_ok_says_how_to_mend_it() {
        let checks = examine(&Machine::new(MachineArgs::default()), Path::new("/nowhere/at/all"));
        assert!(checks.iter().all(|c| (c.state == State::Ok) == c.mend.is_none()), "{checks:?}");
        let text = as_text(&checks);
        assert!(checks.iter().all(|c| text.contains(&c.found) && !c.found.contains('\n')));
    }
}
