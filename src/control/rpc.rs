//! JSON-RPC 2.0 messages (jsonrpc.org/specification). Batches are not taken: one object a line.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest line, request or response, in bytes without the newline.
pub(crate) const MAX_REQUEST: usize = 64 << 10;

/// Error codes: the specification's, and ours from -32000 down.
pub(crate) mod code {
    /// The line is no JSON.
    pub(crate) const PARSE: i32 = -32700;
    /// The JSON is no request.
    pub(crate) const INVALID_REQUEST: i32 = -32600;
    /// No such method.
    pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
    /// The method's parameters are wrong: missing, unknown, or of the wrong kind.
    pub(crate) const INVALID_PARAMS: i32 = -32602;
    /// The daemon cannot do it, and should be able to.
    pub(crate) const INTERNAL: i32 = -32603;
    /// There is no port of that name.
    pub(crate) const NO_SUCH_PORT: i32 = -32001;
    /// There is a port of that name already.
    pub(crate) const PORT_EXISTS: i32 = -32002;
    /// The port could not be set up or removed.
    pub(crate) const PORT_FAILED: i32 = -32003;
    /// As many as there can be are there already.
    pub(crate) const LIMIT: i32 = -32004;
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RpcError {
    /// One of [`code`].
    pub(crate) code: i32,
    /// One line.
    pub(crate) message: String,
}

impl RpcError {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A request, taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// What is to be done.
    pub(crate) method: String,
    /// With what.
    pub(crate) params: Params,
    /// To be repeated in the response; `None` for a notification, which gets none.
    pub(crate) id: Option<Value>,
}

/// A request's parameters.
#[derive(Debug, PartialEq)]
pub(crate) struct Params(Value);

impl Params {
    /// By name, as a method wants them.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, RpcError> {
        serde_json::from_value(self.0)
            .map_err(|e| RpcError::new(code::INVALID_PARAMS, format!("params: {e}")))
    }

    /// Checks that there are none.
    pub(crate) fn none(&self) -> Result<(), RpcError> {
        let empty = self.0.as_object().is_some_and(serde_json::Map::is_empty);
        let wrong = || RpcError::new(code::INVALID_PARAMS, "params: this method takes none");
        empty.then_some(()).ok_or_else(wrong)
    }
}

/// What is wrong with a line, and the id to say it under.
#[derive(Debug, PartialEq)]
pub(crate) struct BadRequest {
    /// The request's id, or null if it could not be told.
    pub(crate) id: Value,
    /// What is wrong.
    pub(crate) error: RpcError,
}

impl Request {
    /// Reads a line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, BadRequest> {
        let value = serde_json::from_slice::<Value>(line).map_err(|e| BadRequest {
            id: Value::Null,
            error: RpcError::new(code::PARSE, format!("no JSON: {e}")),
        })?;
        let id = value.get("id").filter(|id| is_id(id)).cloned();
        Self::from_value(value).map_err(|what| BadRequest {
            id: id.unwrap_or_default(),
            error: RpcError::new(code::INVALID_REQUEST, what),
        })
    }

    fn from_value(value: Value) -> Result<Self, &'static str> {
        let Value::Object(mut fields) = value else {
            return Err("a request is one JSON object a line; batches are not taken");
        };
        if fields.remove("jsonrpc").is_none_or(|v| v != "2.0") {
            return Err("jsonrpc must be \"2.0\"");
        }
        let Some(Value::String(method)) = fields.remove("method") else {
            return Err("method must be a string");
        };
        let params = fields.remove("params").unwrap_or_else(|| json!({}));
        if !params.is_object() {
            return Err("params must be an object: this server takes them by name");
        }
        let id = fields.remove("id");
        if id.as_ref().is_some_and(|id| !is_id(id)) {
            return Err("id must be a string, a number or null");
        }
        Ok(Self { method, params: Params(params), id })
    }
}

fn is_id(id: &Value) -> bool {
    id.is_string() || id.is_number() || id.is_null()
}

/// A response's line, without the newline.
pub(crate) fn response(id: &Value, result: Result<Value, RpcError>) -> String {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(line: &str) -> i32 {
        Request::parse(line.as_bytes()).unwrap_err().error.code
    }

    #[test]
    fn a_request() {
        let r = Request::parse(br#"{"jsonrpc":"2.0","method":"stats","id":7}"#).unwrap();
        assert_eq!((r.method.as_str(), r.id), ("stats", Some(json!(7))));
        assert!(r.params.none().is_ok());
        let n = Request::parse(br#"{"jsonrpc":"2.0","method":"x","params":{"a":1}}"#).unwrap();
        assert_eq!(n.id, None, "a notification");
        assert!(n.params.none().is_err());
    }

    #[test]
    fn not_requests() {
        assert_eq!(code_of("{"), code::PARSE);
        assert_eq!(code_of(""), code::PARSE);
        assert_eq!(code_of(&"[".repeat(10_000)), code::PARSE, "deep nesting is an error, not a crash");
        for line in [
            "[]",
            "3",
            "{}",
            r#"{"jsonrpc":2.0,"method":"x","id":1}"#,
            r#"{"jsonrpc":"2.0","method":1,"id":1}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":[1],"id":1}"#,
            r#"{"jsonrpc":"2.0","method":"x","id":{}}"#,
        ] {
            assert_eq!(code_of(line), code::INVALID_REQUEST, "{line}");
        }
    }

    #[test]
    fn the_id_comes_back_if_it_can_be_told() {
        let bad = Request::parse(br#"{"jsonrpc":"1.0","method":"x","id":"q"}"#).unwrap_err();
        assert_eq!(bad.id, json!("q"));
        let text = response(&bad.id, Err(bad.error));
        assert!(text.contains(r#""id":"q""#) && text.contains("-32600") && !text.contains('\n'));
    }
}
