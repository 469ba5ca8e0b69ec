//! Commands that ask a running daemon and print what it says.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::{FdbCommand, PortCommand, StatsArgs};
use crate::control::{Client, control_path};
use crate::failure::Failure;
use crate::report::{fdb_table, port_show, port_table, rates_table, stages_table, stats_table};
use crate::settings::PortSetting;

/// `polder port`
pub(crate) fn port(command: PortCommand, control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    match command {
        PortCommand::List { json } => {
            show(control, "port.list", &json!({}), json, |ports: Vec<_>| port_table(&ports))
        }
        PortCommand::Show { name, json } => {
            show(control, "port.show", &json!({"name": name}), json, |port| port_show(&port))
        }
        PortCommand::Add { port } => order(control, "port.add", &json!(port_for_daemon(port)?)),
        PortCommand::Del { name } => order(control, "port.del", &json!({"name": name})),
    }
}

/// `polder fdb`
pub(crate) fn fdb(command: &FdbCommand, control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    match command {
        FdbCommand::List { json } => {
            show(control, "fdb.list", &json!({}), *json, |list: Vec<_>| fdb_table(&list))
        }
        FdbCommand::Flush => order(control, "fdb.flush", &json!({})),
    }
}

/// `polder stats`
pub(crate) fn stats(args: &StatsArgs, control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    if let Some(seconds) = args.stages {
        return stages(seconds, args.json, control);
    }
    match (args.watch, args.json) {
        (false, json) => show(control, "stats", &json!({}), json, |stats| stats_table(&stats)),
        (true, true) => watch_json(control),
        (true, false) => watch(control),
    }
}

/// The daemon measures, however long it takes, and answers then.
fn stages(seconds: u32, json: bool, control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let mut client = connect(control)?;
    client.wait_longer(Duration::from_secs(seconds.into()))?;
    show_from(client, "stages", &json!({"seconds": seconds}), json, |stages| stages_table(&stages))
}

fn connect(control: Option<PathBuf>) -> Result<Client, Failure> {
    Client::connect(control_path(control))
}

/// Asks once; prints the JSON as it came, or what `table` makes of it.
fn show<T: DeserializeOwned>(
    control: Option<PathBuf>,
    method: &str,
    params: &Value,
    as_json: bool,
    table: impl FnOnce(T) -> String,
) -> Result<ExitCode, Failure> {
    show_from(connect(control)?, method, params, as_json, table)
}

/// The same over this connection.
fn show_from<T: DeserializeOwned>(
    mut client: Client,
    method: &str,
    params: &Value,
    as_json: bool,
    table: impl FnOnce(T) -> String,
) -> Result<ExitCode, Failure> {
    if as_json {
        let result = client.call_raw(method, params)?;
        return print(&format!("{result}\n"));
    }
    print(&table(client.call(method, params)?))
}

/// Has something done; prints nothing.
fn order(control: Option<PathBuf>, method: &str, params: &Value) -> Result<ExitCode, Failure> {
    connect(control)?.call_raw(method, params)?;
    Ok(ExitCode::SUCCESS)
}

/// A line of JSON each second.
fn watch_json(control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let mut client = connect(control)?;
    loop {
        print(&format!("{}\n", client.call_raw("stats", &json!({}))?))?;
        thread::sleep(Duration::from_secs(1));
    }
}

/// A table of rates each second, in place on a terminal.
fn watch(control: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let mut client = connect(control)?;
    let home = if io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
    let (mut earlier, mut at) = (client.call("stats", &json!({}))?, Instant::now());
    loop {
        thread::sleep(Duration::from_secs(1));
        let (now, taken) = (client.call("stats", &json!({}))?, Instant::now());
        print(&format!("{home}{}\n", rates_table(&earlier, &now, taken - at)))?;
        (earlier, at) = (now, taken);
    }
}

/// Writes to standard output. A reader that went away (`| head`) ends the program quietly.
pub(crate) fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::runtime(format!("standard output: {e}"))),
    }
}

/// Checks a port here, and makes its path whole: the daemon stands in another directory.
fn port_for_daemon(port: PortSetting) -> Result<PortSetting, Failure> {
    crate::daemon::check_spec(&port.spec).map_err(Failure::usage)?;
    let here = || std::env::current_dir().map_err(|e| Failure::runtime(format!("current directory: {e}")));
    match port.spec.rest() {
        rest if port.spec.kind() == "vhost-user" && !rest.starts_with('/') => {
            let spec = format!("vhost-user:{}/{rest}", here()?.display()).parse().map_err(Failure::usage)?;
            Ok(PortSetting { spec, ..port })
        }
        _ => Ok(port),
    }
}
