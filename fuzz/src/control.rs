//! As `src/control/mod.rs`, without the client.

#[path = "../../src/control/rpc.rs"]
mod rpc;
#[path = "../../src/control/server.rs"]
mod server;

pub(crate) use rpc::{Params, RpcError, code};
pub(crate) use server::{Methods, serve};
