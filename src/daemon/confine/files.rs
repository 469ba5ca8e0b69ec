//! Which files the process may change, by Landlock where the kernel has it (5.13 and later, if it is switched on).
//!
//! Everything may be read. Sockets are made and removed, captures written, devices opened: that is all. Programs cannot be
//! executed and nothing else be created, by anybody in this process.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
};

use crate::settings::{PortSpec, Sandbox, Settings};

/// What is named; the kernel takes of it what it knows.
const KNOWN: ABI = ABI::V4;
/// Devices of ports, what the kernel tells and is told of them, and of ourselves.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Where `auto` lets a capture be written that somebody asks for while the switch runs.
pub(super) const CAPTURES: [&str; 2] = ["/tmp", "/var/tmp"];

/// Restricts the calling thread and those that it starts. `control` is the control socket. Whether the kernel does all of
/// it, some, or none.
pub(super) fn restrict(settings: &Settings, control: &Path) -> Result<RulesetStatus, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let sockets = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
    let write = make_bitflags!(AccessFs::{WriteFile | Truncate});
    let strict = settings.sandbox == Sandbox::Strict;
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.create()?;
    // Where a socket may come to be wanted, only the operator knows.
    rules = allow(rules, Path::new("/"), if strict { read } else { read | sockets })?;
    for path in KERNEL {
        rules = allow(rules, Path::new(path), read | write)?;
    }
    for path in settings.ports.iter().filter_map(|port| socket(&port.spec)).chain([control.to_owned()]) {
        rules = allow(rules, directory(&path), sockets)?;
    }
    let captures = settings.ports.iter().filter_map(|port| capture(&port.spec));
    let more = CAPTURES.iter().filter(|_| !strict).map(|path| Path::new(path).join("any"));
    for path in captures.chain(more) {
        rules = allow(rules, directory(&path), write | AccessFs::MakeReg)?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// A directory that is not there needs no rule: nothing can be done in it.
fn allow(
    rules: RulesetCreated,
    directory: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(directory) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, access)),
        Err(_) => Ok(rules),
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The socket that a port makes.
fn socket(spec: &PortSpec) -> Option<PathBuf> {
    let mut words = spec.rest().split(',');
    (spec.kind() == "vhost-user").then(|| words.next().unwrap_or_default().into())
}

/// The file that a port writes packets to.
fn capture(spec: &PortSpec) -> Option<PathBuf> {
    let mut words = spec.rest().split(',').filter(|_| spec.kind() == "pcap");
    words.find_map(|word| word.strip_prefix("tx=")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_ports() {
        let spec = |text: &str| text.parse::<PortSpec>().unwrap();
        assert_eq!(socket(&spec("vhost-user:/run/a,queues=2")), Some("/run/a".into()));
        assert_eq!(capture(&spec("pcap:rx=/a/b,tx=/c/d")), Some("/c/d".into()));
        assert_eq!((socket(&spec("tap:x")), capture(&spec("null"))), (None, None));
        assert_eq!(directory(Path::new("x.sock")), Path::new("."));
    }
}
