//! The daemon's side: a thread that accepts, a thread for each client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::rpc::{MAX_REQUEST, Params, Request, RpcError, code, response};

/// Most clients at a time.
const MAX_CLIENTS: usize = 64;
/// A client that says nothing for so long, or does not take its response for so long, is let go.
const IDLE: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_secs(5);

/// What the server can be asked for.
pub(crate) trait Methods: Send + Sync + 'static {
    /// Does what `method` names.
    fn call(&self, method: &str, params: Params) -> Result<Value, RpcError>;
}

/// Accepts clients on a thread of its own, for as long as the process lives.
pub(crate) fn serve(listener: UnixListener, methods: Arc<dyn Methods>) -> io::Result<()> {
    let accept = move || {
        let clients = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => admit(stream, &clients, &methods),
                // Out of descriptors, most likely: some will be given back.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    thread::Builder::new().name("control".into()).spawn(accept).map(drop)
}

/// One of at most [`MAX_CLIENTS`] places, until dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Option<Self> {
        let grow = |n| (n < MAX_CLIENTS).then_some(n + 1);
        clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(Self(Arc::clone(clients)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn admit(mut stream: UnixStream, clients: &Arc<AtomicUsize>, methods: &Arc<dyn Methods>) {
    let Some(place) = Place::take(clients) else {
        let full =
            RpcError::new(code::LIMIT, format!("{MAX_CLIENTS} clients are connected; try again later"));
        // Whether it reads this is its own affair; a fresh socket's buffer takes it without waiting.
        let _ =
            stream.set_nonblocking(true).and_then(|()| send(&mut stream, &response(&Value::Null, Err(full))));
        return;
    };
    let methods = Arc::clone(methods);
    let converse = move || {
        if let Err(error) = converse(stream, &*methods) {
            tracing::debug!(%error, "control client");
        }
        drop(place);
    };
    if let Err(error) = thread::Builder::new().name("control-client".into()).spawn(converse) {
        tracing::warn!(%error, "no thread for a control client");
    }
}

/// Answers a client until it goes.
fn converse(stream: UnixStream, methods: &dyn Methods) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(SLOW))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = Vec::new();
    loop {
        line.clear();
        match read_line(&mut reader, &mut line)? {
            Line::End => return Ok(()),
            Line::Whole => {
                if let Some(text) = answer(&line, methods) {
                    send(&mut writer, &text)?;
                }
            }
            Line::TooLong => {
                let error =
                    RpcError::new(code::INVALID_REQUEST, format!("line longer than {MAX_REQUEST} bytes"));
                return send(&mut writer, &response(&Value::Null, Err(error)));
            }
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads a line, without its newline. What stands before the end without a newline is no line.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    reader.by_ref().take(MAX_REQUEST as u64 + 1).read_until(b'\n', line)?;
    if line.pop_if(|b| *b == b'\n').is_some() {
        return Ok(Line::Whole);
    }
    Ok(if line.len() > MAX_REQUEST { Line::TooLong } else { Line::End })
}

/// The response to a line; `None` for a notification or an empty line.
pub(super) fn answer(line: &[u8], methods: &dyn Methods) -> Option<String> {
    if line.trim_ascii().is_empty() {
        return None;
    }
    match Request::parse(line) {
        Ok(request) => {
            let result = methods.call(&request.method, request.params);
            request.id.map(|id| response(&id, result))
        }
        Err(bad) => Some(response(&bad.id, Err(bad.error))),
    }
}

fn send(writer: &mut impl Write, text: &str) -> io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    writer.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use serde_json::json;

    use super::*;

    struct Echo;

    impl Methods for Echo {
        fn call(&self, method: &str, params: Params) -> Result<Value, RpcError> {
            params.none()?;
            Ok(json!(method))
        }
    }

    fn serve_echo() -> (UnixStream, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || converse(theirs, &Echo));
        let reader = BufReader::new(ours.try_clone().unwrap());
        (ours, reader)
    }

    fn next(reader: &mut impl BufRead) -> Value {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn answers_in_order_and_not_to_notifications() {
        let (mut writer, mut reader) = serve_echo();
        writer
            .write_all(
                b"{\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n\n{\"jsonrpc\":\"2.0\",\"method\":\"b\",\"id\":1}\nrubbish\n",
            )
            .unwrap();
        assert_eq!(next(&mut reader)["result"], "b");
        assert_eq!(next(&mut reader)["error"]["code"], code::PARSE);
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let (mut writer, mut reader) = serve_echo();
        writer.write_all(&vec![b' '; MAX_REQUEST + 1]).unwrap();
        assert_eq!(next(&mut reader)["error"]["code"], code::INVALID_REQUEST);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "and the client let go");
    }

    #[test]
    fn lines_up_to_the_limit() {
        let mut line = Vec::new();
        let mut text = vec![b'x'; MAX_REQUEST];
        text.push(b'\n');
        assert!(matches!(read_line(&mut Cursor::new(text), &mut line), Ok(Line::Whole)));
        assert_eq!(line.len(), MAX_REQUEST);
    }

    #[test]
    fn places_are_limited_and_come_back() {
        let clients = Arc::default();
        let places: Vec<_> = std::iter::from_fn(|| Place::take(&clients)).collect();
        assert_eq!(places.len(), MAX_CLIENTS);
        drop(places);
        assert!(Place::take(&clients).is_some());
    }
}
