//! What `polder run` was asked for: configuration file and command line together, checked before anything starts.

mod cpus;
mod file;
mod memory;
mod name;
mod port;
mod sandbox;
mod switch;

use std::path::PathBuf;

pub(crate) use cpus::{CpuList, allowed as allowed_cpus, as_list};
pub(crate) use memory::{Hugepages, MemorySize};
pub(crate) use name::PortName;
pub(crate) use port::{PortSetting, PortSpec};
pub(crate) use sandbox::Sandbox;
pub(crate) use switch::{Poll, SwitchSetting};

use crate::cli::RunArgs;
use crate::failure::Failure;
use file::{FileForm, LcoreForm, PortForm, Source};

/// Most ports, from file and command line together.
pub(crate) const MAX_PORTS: usize = 1024;

/// All that `polder run` needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Ports in the order in which they are set up: the file's, then the command line's. Names are unique.
    pub(crate) ports: Vec<PortSetting>,
    /// CPUs to poll on: distinct, allowed, at least one.
    pub(crate) cpus: Vec<usize>,
    /// What the switch is to do.
    pub(crate) switch: SwitchSetting,
    /// Packet memory.
    pub(crate) memory: MemorySize,
    /// Its pages.
    pub(crate) hugepages: Hugepages,
    /// What of its rights the process keeps.
    pub(crate) sandbox: Sandbox,
    /// The control socket, if one was named.
    pub(crate) control: Option<PathBuf>,
}

impl Settings {
    /// Reads the file, if there is one, and lays the command line over it.
    pub(crate) fn gather(args: RunArgs, control: Option<PathBuf>) -> Result<Self, Failure> {
        let (form, cpus, mut ports) = match &args.config {
            Some(path) => from_file(&Source::read(path)?)?,
            None => (FileForm::default(), Vec::new(), Vec::new()),
        };
        lay_over(&mut ports, args.ports)?;
        Ok(Self {
            ports,
            cpus: cpus_or_default(args.lcores.map_or(cpus, |list| list.cpus().to_vec()))?,
            switch: form.switch,
            memory: args.memory.or(form.memory.size).unwrap_or_default(),
            hugepages: args.hugepages.or(form.memory.hugepages).unwrap_or_default(),
            sandbox: args.sandbox.or(form.sandbox).unwrap_or_default(),
            control: control.or(form.control),
        })
    }
}

/// The file's form, and those parts of it that must agree with each other and with the machine.
fn from_file(source: &Source) -> Result<(FileForm, Vec<usize>, Vec<PortSetting>), Failure> {
    let mut form = source.parse()?;
    let cpus = file_cpus(source, &form.lcore)?;
    let ports = file_ports(source, std::mem::take(&mut form.port))?;
    Ok((form, cpus, ports))
}

fn file_cpus(source: &Source, lcores: &[LcoreForm]) -> Result<Vec<usize>, Failure> {
    let allowed = allowed_cpus();
    let mut cpus = Vec::new();
    for LcoreForm { cpu } in lcores {
        let (at, cpu) = (cpu.span().start, *cpu.get_ref());
        if cpus.contains(&cpu) {
            return Err(source
                .wrong_at(at, format!("CPU {cpu} has an lcore already; an lcore needs a CPU of its own")));
        }
        if !allowed.contains(&cpu) {
            return Err(source.wrong_at(at, not_allowed(cpu, &allowed)));
        }
        cpus.push(cpu);
    }
    Ok(cpus)
}

fn file_ports(source: &Source, forms: Vec<PortForm>) -> Result<Vec<PortSetting>, Failure> {
    let mut ports: Vec<PortSetting> = Vec::new();
    for form in forms {
        let (at, name, spec) = (form.name.span().start, form.name.into_inner(), form.spec);
        if ports.iter().any(|p| p.name == name) {
            return Err(
                source.wrong_at(at, format!("there is a port {name} already; give this one another name"))
            );
        }
        crate::daemon::check_spec(spec.get_ref()).map_err(|e| source.wrong_at(spec.span().start, e))?;
        ports.push(PortSetting { name, spec: spec.into_inner() });
    }
    Ok(ports)
}

/// Ports of the command line replace the file's of the same name, but not each other.
fn lay_over(ports: &mut Vec<PortSetting>, asked: Vec<PortSetting>) -> Result<(), Failure> {
    for (i, port) in asked.iter().enumerate() {
        if asked[..i].iter().any(|p| p.name == port.name) {
            return Err(Failure::usage(format!(
                "--port {0} is given twice; give each port a name of its own",
                port.name
            )));
        }
        crate::daemon::check_spec(&port.spec)
            .map_err(|e| Failure::usage(format!("--port {}: {e}", port.name)))?;
    }
    ports.retain(|p| !asked.iter().any(|a| a.name == p.name));
    ports.extend(asked);
    if ports.len() > MAX_PORTS {
        return Err(Failure::usage(format!("{} ports; at most {MAX_PORTS} are possible", ports.len())));
    }
    Ok(())
}

/// Those asked for, if they are allowed, or one that is.
fn cpus_or_default(asked: Vec<usize>) -> Result<Vec<usize>, Failure> {
    let allowed = allowed_cpus();
    if let Some(cpu) = asked.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(Failure::usage(not_allowed(*cpu, &allowed)));
    }
    if asked.is_empty() {
        // Interrupts and other people's work gather on the first CPUs: poll on the last.
        return Ok(allowed.last().copied().into_iter().collect());
    }
    Ok(asked)
}

fn not_allowed(cpu: usize, allowed: &[usize]) -> String {
    format!("CPU {cpu} is not one that polder may run on here; these are: {}", as_list(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> PortSetting {
        text.parse().unwrap()
    }

    #[test]
    fn command_line_replaces_the_file() {
        let mut ports = vec![port("a=null"), port("b=null")];
        lay_over(&mut ports, vec![port("c=null"), port("a=loopback")]).unwrap();
        let names: Vec<_> = ports.iter().map(|p| format!("{}={}", p.name, p.spec)).collect();
        assert_eq!(names, ["b=null", "c=null", "a=loopback"]);
        assert!(lay_over(&mut ports, vec![port("x=null"), port("x=null")]).is_err());
    }

    #[test]
    fn cpus_must_be_allowed() {
        let allowed = allowed_cpus();
        assert_eq!(cpus_or_default(Vec::new()).unwrap().len(), 1);
        assert_eq!(cpus_or_default(allowed.clone()).unwrap(), allowed);
        assert!(cpus_or_default(vec![1023]).unwrap_err().to_string().contains("1023"));
    }
}
