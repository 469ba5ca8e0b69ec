//! `polder run`: joins ports and switch, serves the control socket, and takes everything down again.

mod make;
mod memory;
mod methods;
mod plane;
mod snapshot;
mod stages;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub(crate) use make::check_spec;
pub(crate) use plane::{Plane, PlaneError};
pub(crate) use snapshot::stats;

use crate::control::{ControlSocket, SocketError, control_path, make_default_dir, serve};
use crate::failure::Failure;
use crate::settings::Settings;
use methods::DaemonMethods;

/// Runs until SIGTERM or SIGINT.
///
/// The control socket comes first, since it tells whether another daemon is in charge; nobody is answered before
/// everything stands.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Failure::runtime)?;
    let path = control_path(settings.control.clone());
    make_default_dir(&path)?;
    let socket = ControlSocket::listen(&path).map_err(socket_failure)?;
    let plane = Arc::new(Plane::start(settings, settings.hugepages)?);
    let _down = TakeDown(&plane);
    for port in &settings.ports {
        plane.add(port).map_err(PlaneError::into_failure)?;
    }
    let listener = socket.listener().try_clone().map_err(Failure::runtime)?;
    serve(listener, Arc::new(DaemonMethods::new(Arc::clone(&plane)))).map_err(Failure::runtime)?;
    say_ready()?;
    let signal = signals.forever().next();
    tracing::info!(?signal, "ending");
    Ok(ExitCode::SUCCESS)
}

/// Removes all ports, and with them their sockets, however `run` ends.
struct TakeDown<'p>(&'p Plane);

impl Drop for TakeDown<'_> {
    fn drop(&mut self) {
        self.0.remove_all();
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
