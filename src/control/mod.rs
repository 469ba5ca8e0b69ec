//! The control socket: JSON-RPC 2.0, one object a line. The daemon serves it; the command line is one client of it.

mod client;
mod lock;
mod path;
mod rpc;
mod server;
mod socket;

pub(crate) use client::Client;
pub(crate) use path::{control_path, make_default_dir};
pub(crate) use rpc::{Params, RpcError, code};
pub(crate) use server::{Methods, serve};
pub(crate) use socket::{ControlSocket, SocketError};
