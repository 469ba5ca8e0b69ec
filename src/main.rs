//! The `polder` binary: a poll-mode virtual switch, and the command line that talks to it.
//!
//! [`cli`] says what can be asked for. `polder run` gathers [`settings`], and [`daemon`] joins ports and switch and serves
//! the [`control`] socket. Most other commands are clients of that socket ([`ask`]) and print a [`report`].
//! [`demo`] has the whole in one process, guests included.

mod ask;
mod cli;
mod control;
mod daemon;
mod demo;
mod doctor;
mod failure;
mod nic;
mod report;
mod settings;

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let status = route().unwrap_or_else(|failure| {
        eprintln!("polder: {failure}");
        failure.status()
    });
    vhost::give_up_descriptors();
    status
}

fn route() -> Result<ExitCode, Failure> {
    let Some(cli) = Cli::read(std::env::args_os())? else { return Ok(ExitCode::SUCCESS) };
    log_to_stderr(cli.global.log.unwrap_or(default_level(&cli.command)));
    let control = cli.global.control;
    match cli.command {
        Command::Run(args) => daemon::run(&settings::Settings::gather(args, control)?),
        Command::Demo(args) => demo::run(&args),
        Command::Port(command) => ask::port(command, control),
        Command::Fdb(command) => ask::fdb(&command, control),
        Command::Stats(args) => ask::stats(&args, control),
        Command::Doctor(args) => doctor::run(args, control),
        Command::Nic(args) => nic::run(args),
    }
}

/// The demo's guests come and go in order, which is not worth a line among its own.
fn default_level(command: &Command) -> LevelFilter {
    if matches!(command, Command::Demo(_)) { LevelFilter::ERROR } else { LevelFilter::WARN }
}

fn log_to_stderr(level: LevelFilter) {
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init();
}
