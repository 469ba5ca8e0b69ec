//! The command line's side of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::rpc::{RpcError, code};
use crate::failure::Failure;

/// Longest wait for a response. Adding and removing ports waits for lcores.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<UnixStream>,
    path: PathBuf,
    next_id: u64,
}

impl Client {
    /// Connects to the daemon at `path`.
    pub(crate) fn connect(path: PathBuf) -> Result<Self, Failure> {
        let stream = UnixStream::connect(&path).map_err(|e| nobody_there(&path, &e))?;
        let timeouts = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        timeouts.map_err(Failure::runtime)?;
        Ok(Self { reader: BufReader::new(stream), path, next_id: 1 })
    }

    /// Waits for each response that much longer than usual: it is asked for something that takes so long.
    pub(crate) fn wait_longer(&mut self, by: Duration) -> Result<(), Failure> {
        self.reader.get_ref().set_read_timeout(Some(PATIENCE + by)).map_err(Failure::runtime)
    }

    /// Calls a method and waits for what it returns.
    pub(crate) fn call<T: DeserializeOwned>(&mut self, method: &str, params: &Value) -> Result<T, Failure> {
        let result = self.call_raw(method, params)?;
        serde_json::from_value(result).map_err(|e| self.not_understood(&e))
    }

    /// The same, with the result as it came.
    pub(crate) fn call_raw(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id}).to_string();
        line.push('\n');
        let mut answer = String::new();
        let stream = self.reader.get_mut();
        stream.write_all(line.as_bytes()).and_then(|()| self.reader.read_line(&mut answer)).map_err(|e| {
            Failure::runtime(format!("the daemon at {} does not answer: {e}", self.path.display()))
        })?;
        if answer.is_empty() {
            return Err(Failure::runtime(format!("the daemon at {} hung up", self.path.display())));
        }
        let mut answer: Value = serde_json::from_str(&answer).map_err(|e| self.not_understood(&e))?;
        match answer.get_mut("error").map(Value::take) {
            None => Ok(answer.get_mut("result").map(Value::take).unwrap_or_default()),
            Some(error) => {
                Err(serde_json::from_value(error).map_or_else(|e| self.not_understood(&e), refused))
            }
        }
    }

    fn not_understood(&self, error: &serde_json::Error) -> Failure {
        Failure::runtime(format!(
            "what answers at {} is no polder of this version: {error}",
            self.path.display()
        ))
    }
}

fn refused(error: RpcError) -> Failure {
    match error.code {
        code::INVALID_PARAMS => Failure::usage(error),
        _ => Failure::runtime(error),
    }
}

fn nobody_there(path: &Path, error: &std::io::Error) -> Failure {
    Failure::runtime(format!(
        "no polder answers at {} ({error}); start one with 'polder run', or name its socket with --control",
        path.display()
    ))
}
