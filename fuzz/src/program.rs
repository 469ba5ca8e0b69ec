//! The program's doors for text: the configuration, the command line, the control socket.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Cli, Command, RunArgs};
use crate::control::{Methods, Params, RpcError, code, serve};
use crate::daemon::check_spec;
use crate::failure::Failure;
use crate::settings::{MAX_PORTS, PortName, PortSetting, Settings};

/// `polder run --config FILE` with `text` as the file, up to where something would start.
pub fn read_file(text: &[u8]) {
    static FILE: OnceLock<Mutex<std::fs::File>> = OnceLock::new();
    let made = || memfd_create("fuzz-config", MemfdFlags::CLOEXEC).expect("a memfd").into();
    let mut file = FILE.get_or_init(|| Mutex::new(made())).lock().expect("no run before this one failed");
    ftruncate(&*file, 0).expect("it is our own");
    std::io::Seek::rewind(&mut *file).expect("it is our own");
    file.write_all(text).expect("it is our own");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let args = RunArgs {
        config: Some(path.into()),
        ports: Vec::new(),
        lcores: None,
        memory: None,
        hugepages: None,
        sandbox: None,
    };
    check(Settings::gather(args, None));
}

/// `polder LINE`, one argument a line, up to where something would start.
pub fn read_arguments(lines: &[u8]) {
    let words = lines.split(|b| *b == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    // Help goes to standard output, where nobody wants it now.
    if lines.split(|b| *b == b'\n').any(|w| {
        w.starts_with(b"-h")
            || w.starts_with(b"-V")
            || w.starts_with(b"--h")
            || w.starts_with(b"--v")
            || w == b"help"
    }) {
        return;
    }
    match Cli::read(std::iter::once(OsString::from("polder")).chain(words)) {
        Ok(Some(Cli { command: Command::Run(args), global })) if args.config.is_none() => {
            check(Settings::gather(args, global.control));
        }
        Ok(_) => {}
        Err(failure) => check_failure(&failure),
    }
}

/// What [`Settings`] promises.
fn check(gathered: Result<Settings, Failure>) {
    let settings = match gathered {
        Ok(settings) => settings,
        Err(failure) => return check_failure(&failure),
    };
    assert!(settings.ports.len() <= MAX_PORTS);
    assert!(!settings.cpus.is_empty());
    for (i, port) in settings.ports.iter().enumerate() {
        assert!(
            settings.ports[..i].iter().all(|other| other.name != port.name),
            "{} is there twice",
            port.name
        );
        let again: PortSetting = format!("{}={}", port.name, port.spec).parse().expect("what was accepted");
        assert_eq!(&again, port);
        assert!(check_spec(&again.spec).is_ok());
    }
}

fn check_failure(failure: &Failure) {
    let text = failure.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}

/// Reads parameters as the daemon's methods do, and does nothing.
struct Idle;

/// As in `daemon::methods`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: PortName,
}

impl Methods for Idle {
    fn call(&self, method: &str, params: Params) -> Result<Value, RpcError> {
        match method {
            "port.list" | "fdb.list" | "fdb.flush" | "stats" | "version" => params.none().map(|()| json!({})),
            "port.show" | "port.del" => params.read().map(|Named { name }| json!(name)),
            "port.add" => {
                let setting: PortSetting = params.read()?;
                let wrong = |e: pmd::PortError| RpcError::new(code::INVALID_PARAMS, e.to_string());
                check_spec(&setting.spec).map_err(wrong).map(|()| json!(setting))
            }
            _ => Err(RpcError::new(code::METHOD_NOT_FOUND, format!("there is no method {method:.64?}"))),
        }
    }
}

/// A client of the control socket that writes `bytes`, says that it is done, and reads. Panics unless each line that asks for an
/// answer gets exactly one, and each answer is a JSON-RPC response on a line of its own.
pub fn converse(bytes: &[u8]) {
    let mut stream = client();
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a duration");
    // It may hang up before it has read everything: a line may be too long.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the server neither answers nor hangs up: {e}"),
    }
    let lines: Vec<_> = answers.split_inclusive(|b| *b == b'\n').collect();
    let asked =
        bytes.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n") && !l.trim_ascii().is_empty());
    assert!(lines.len() <= asked.count() + 1, "more answers than lines");
    for line in lines {
        let answer: Value = serde_json::from_slice(line).expect("an answer is JSON, whole and on one line");
        assert_eq!(answer["jsonrpc"], "2.0");
        let [has_result, has_error] = ["result", "error"].map(|key| answer.get(key).is_some());
        assert!(has_result != has_error, "{answer}");
        let id = answer.get("id").expect("it names its request");
        assert!(id.is_null() || id.is_string() || id.is_number());
    }
}

fn client() -> UnixStream {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("s")).expect("a path of ours");
        serve(listener, Arc::new(Idle)).expect("a thread");
        folder
    });
    crate::connect::connect(&folder.path().join("s"))
}
