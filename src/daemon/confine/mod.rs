//! What the process keeps once it runs, and what it gives up: docs/decisions/0019.
//!
//! | thread | capabilities | system calls |
//! |---|---|---|
//! | lcores | none | those of moving packets; another kills the process |
//! | sessions of front ends | none (client mode as root: CAP_DAC_OVERRIDE, to reach the front end's socket) | those of a session; another kills |
//! | NICs' threads | [`PORTS`], as far as they were there | the process's; another fails with EPERM |
//! | signals | none | the process's |
//! | main, control socket | the same; `strict`: none once the configured ports are there | the same |
//!
//! Files: [`files`]. All of it happens before the first thread starts, or at a thread's own start; no_new_privs is for all.

mod files;
mod filter;
mod lists;

use std::io;
use std::path::Path;
use std::sync::Arc;

use landlock::RulesetStatus;
use pmd::PortError;
use pmd::threads::Role;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::failure::Failure;
use crate::settings::{PortSpec, Sandbox, Settings};
use filter::{Filters, apply};

/// What ports of some kind need when they are added, and NICs when they are opened again.
pub(crate) const PORTS: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Gives up what no port can need, and has each thread that begins from now on give up more. Before any thread starts.
pub(super) fn begin(settings: &Settings, control: &Path) -> Result<(), Failure> {
    let sandbox = settings.sandbox;
    if sandbox == Sandbox::Off {
        return Ok(());
    }
    let confined = keep_bounded(PORTS).and_then(|()| {
        set_no_new_privs(true)?;
        let landlock = files::restrict(settings, control).map_err(io::Error::other)?;
        if sandbox == Sandbox::Strict && landlock == RulesetStatus::NotEnforced {
            tracing::warn!("this kernel has no Landlock: files are protected by their modes alone");
        }
        tracing::info!(?landlock, "rights are given up");
        let filters = Filters::compile()?;
        apply(&filters.process)?;
        Ok(Arc::new(filters))
    });
    match confined {
        Ok(filters) => {
            pmd::threads::set_confine(Box::new(move |role| enter(role, &filters)));
            Ok(())
        }
        Err(error) if sandbox == Sandbox::Auto => {
            tracing::warn!(%error, "this system lets polder give up no rights: it goes on with those it has");
            Ok(())
        }
        Err(error) => {
            let why =
                format!("sandbox = \"strict\", but rights cannot be given up here: {error}; use \"auto\"");
            Err(Failure::runtime(why))
        }
    }
}

/// All configured ports are there: `strict` keeps nothing for others.
pub(super) fn settled(sandbox: Sandbox) -> Result<(), Failure> {
    if sandbox != Sandbox::Strict {
        return Ok(());
    }
    keep_bounded(CapabilitySet::empty())
        .map_err(|e| Failure::runtime(format!("sandbox = \"strict\": capabilities: {e}")))
}

/// Names the setting to who is refused what was given up by it.
pub(super) fn explain(error: PortError, spec: &PortSpec, sandbox: Sandbox) -> PortError {
    let why = match sandbox {
        _ if !is_denied(&error) => return error,
        Sandbox::Strict => {
            "sandbox = \"strict\" gave up that right when the configured ports were there: put this port into the \
             configuration, or use sandbox = \"auto\"; then restart"
        }
        Sandbox::Auto if spec.kind() == "pcap" => {
            "sandbox = \"auto\" lets files be written below /tmp, /var/tmp and where the configuration has pcap ports: \
             choose such a place"
        }
        _ => return error,
    };
    PortError::Os { what: error.to_string(), source: io::Error::new(io::ErrorKind::PermissionDenied, why) }
}

/// Whether the system said EPERM or EACCES. A NIC's error has that in its text alone.
fn is_denied(error: &PortError) -> bool {
    match error {
        PortError::Os { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        PortError::Nic(e) => [Errno::PERM, Errno::ACCESS]
            .iter()
            .any(|denied| e.to_string().contains(&io::Error::from(*denied).to_string())),
        _ => false,
    }
}

/// What a thread gives up before its work begins.
fn enter(role: Role, filters: &Filters) -> io::Result<()> {
    let (capabilities, list) = match role {
        Role::Lcore => (CapabilitySet::empty(), &filters.lcore),
        Role::Session => (CapabilitySet::empty(), &filters.session),
        Role::ClientSession => (CapabilitySet::DAC_OVERRIDE, &filters.client_session),
        Role::Nic => return Ok(()),
        Role::Signals => return keep(CapabilitySet::empty()),
    };
    keep(capabilities)?;
    // The stricter one last: it forbids to add more.
    apply(&filters.polite)?;
    apply(list)
}

/// The calling thread keeps these capabilities, as far as it has them.
fn keep(wanted: CapabilitySet) -> io::Result<()> {
    let kept = capabilities(None)?.permitted & wanted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// The same, and no program that it might start can have others.
fn keep_bounded(wanted: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if wanted.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The last one was the last; or we have no CAP_SETPCAP, and no_new_privs has to do.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(e) => return Err(e.into()),
        }
    }
    clear_ambient_capability_set()?;
    keep(wanted)
}

#[cfg(test)]
mod tests;
