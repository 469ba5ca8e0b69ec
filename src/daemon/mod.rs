//! `polder run`: joins ports and switch, serves the control socket, and takes everything down again.

mod confine;
mod cpus;
mod descriptors;
mod end;
mod make;
mod memory;
mod methods;
mod plane;
mod snapshot;
mod stages;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) use make::check_spec;
pub(crate) use plane::{Plane, PlaneError};
pub(crate) use snapshot::stats;

use crate::control::{ControlSocket, SocketError, control_path, make_default_dir, serve};
use crate::failure::Failure;
use crate::settings::Settings;
use end::End;
use methods::DaemonMethods;

/// Runs until SIGTERM or SIGINT, or until an lcore dies.
///
/// The control socket comes first, since it tells whether another daemon is in charge; nobody is answered before
/// everything stands.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    descriptors::raise_limit();
    let path = control_path(settings.control.clone());
    make_default_dir(&path)?;
    let socket = ControlSocket::listen(&path).map_err(socket_failure)?;
    // Before the first thread starts: rights belong to threads. Until here a signal ends the process at once.
    confine::begin(settings, &path)?;
    let end = End::watch(&settings.cpus)?;
    let plane = Arc::new(Plane::start(settings, settings.hugepages, end.on_death())?);
    // The lcores have their CPUs. All threads from here on are this one's, or its threads'.
    if !cpus::keep_off(&settings.cpus) {
        tracing::info!("no CPU is left beside those of lcores: control threads run there, too");
    }
    let _down = TakeDown(&plane);
    for port in &settings.ports {
        if let Some(ended) = end.has_come() {
            return ended;
        }
        plane.add(port).map_err(PlaneError::into_failure)?;
    }
    confine::settled(settings.sandbox)?;
    let listener = socket.listener().try_clone().map_err(Failure::runtime)?;
    serve(listener, Arc::new(DaemonMethods::new(Arc::clone(&plane)))).map_err(Failure::runtime)?;
    say_ready()?;
    end.wait()
}

/// Removes all ports, and with them their sockets, however `run` ends, and whatever their peers hold.
struct TakeDown<'p>(&'p Plane);

impl Drop for TakeDown<'_> {
    fn drop(&mut self) {
        self.0.remove_all(end::TAKE_DOWN);
    }
}

fn socket_failure(error: SocketError) -> Failure {
    match error {
        SocketError::TooLong(_) => Failure::usage(error),
        _ => Failure::runtime(error),
    }
}

/// Says `ready` to whoever started us: on standard output, and to systemd if it is systemd.
fn say_ready() -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "ready")
        .and_then(|()| out.flush())
        .map_err(|e| Failure::runtime(format!("standard output: {e}")))?;
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd was not told that polder is ready");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use mbuf::Burst;
    use pmd::{PortCounters, Queues, RxQueue};

    use super::*;

    /// A receive queue with a mistake in it.
    struct Panics;

    impl RxQueue for Panics {
        fn rx_burst<'t>(&'t mut self, _: &mut Burst<'t>) -> usize {
            panic!("an injected\nmistake")
        }

        fn complete(&mut self) {}
    }

    /// Not a test of its own: what [`a12_a_dead_lcore_ends_the_program`] starts as a process.
    #[test]
    #[ignore = "a part of another test"]
    fn a_program_whose_lcore_panics() {
        let end = End::watch(&[]).unwrap();
        let plane = plane::tests::plane(end.on_death());
        let queues = Queues { rx: vec![Box::new(Panics)], ..Queues::default() };
        let id = plane.switch().reserve_port("faulty").unwrap();
        let _ = plane.switch().attach(id, queues, PortCounters::new(1, 0));
        let ended = end.wait();
        plane.remove_all(end::TAKE_DOWN);
        eprintln!("polder: {}", ended.unwrap_err());
    }

    #[test]
    fn a12_a_dead_lcore_ends_the_program() {
        let start = Instant::now();
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(["daemon::tests::a_program_whose_lcore_panics", "--exact", "--ignored", "--nocapture"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while program.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(5) {
                program.kill().unwrap();
                panic!("it lives on with a dead lcore");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = program.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = told.lines().collect();
        let [line] = lines[..] else { panic!("one clear line is wanted: {told}") };
        for part in ["lcore 0", "an injected mistake", "src/daemon/mod.rs:"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
