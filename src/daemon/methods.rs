//! The methods of the control socket. One function a method; [`DaemonMethods::call`] only routes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::plane::{Plane, PlaneError};
use super::{snapshot, stages};
use crate::control::{Methods, Params, RpcError, code};
use crate::report::MOST_SECONDS;
use crate::settings::{PortName, PortSetting};

/// What the daemon can be asked for.
pub(super) struct DaemonMethods {
    plane: Arc<Plane>,
}

/// Parameters of methods on one port.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: PortName,
}

/// How long to measure.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    seconds: u32,
}

type Answer = Result<Value, RpcError>;

impl DaemonMethods {
    pub(super) fn new(plane: Arc<Plane>) -> Self {
        Self { plane }
    }

    fn port_list(&self) -> Answer {
        as_json(snapshot::ports(&self.plane, None))
    }

    fn port_show(&self, Named { name }: &Named) -> Answer {
        let found = snapshot::ports(&self.plane, Some(name)).pop();
        as_json(found.ok_or_else(|| refused(&PlaneError::NoSuchPort(name.clone())))?)
    }

    fn port_add(&self, setting: &PortSetting) -> Answer {
        self.plane.add(setting).map_err(|e| refused(&e))?;
        Ok(json!({}))
    }

    fn port_del(&self, Named { name }: &Named) -> Answer {
        self.plane.remove(name).map_err(|e| refused(&e))?;
        Ok(json!({}))
    }

    fn stages(&self, Span { seconds }: &Span) -> Answer {
        if !(1..=MOST_SECONDS).contains(seconds) {
            let wrong = format!("params: seconds is 1 to {MOST_SECONDS}");
            return Err(RpcError::new(code::INVALID_PARAMS, wrong));
        }
        as_json(stages::measure(&self.plane, Duration::from_secs((*seconds).into())))
    }

    fn version(&self) -> Value {
        let (version, sandbox) = (env!("CARGO_PKG_VERSION"), self.plane.sandbox().name());
        json!({"version": version, "pid": std::process::id(), "sandbox": sandbox})
    }

    fn fdb_flush(&self) -> Answer {
        Ok(json!({"flushed": self.plane.view().fdb().flush()}))
    }
}

impl Methods for DaemonMethods {
    fn call(&self, method: &str, params: Params) -> Answer {
        match method {
            "port.list" => params.none().and_then(|()| self.port_list()),
            "port.show" => self.port_show(&params.read()?),
            "port.add" => self.port_add(&params.read()?),
            "port.del" => self.port_del(&params.read()?),
            "fdb.list" => params.none().and_then(|()| as_json(snapshot::fdb(&self.plane))),
            "fdb.flush" => params.none().and_then(|()| self.fdb_flush()),
            "stats" => params.none().and_then(|()| as_json(snapshot::stats(&self.plane))),
            "stages" => self.stages(&params.read()?),
            "version" => params.none().map(|()| self.version()),
            _ => Err(RpcError::new(code::METHOD_NOT_FOUND, format!("there is no method {method:.64?}"))),
        }
    }
}

fn as_json(result: impl Serialize) -> Answer {
    serde_json::to_value(result).map_err(|e| RpcError::new(code::INTERNAL, e.to_string()))
}

fn refused(error: &PlaneError) -> RpcError {
    let code = match error {
        PlaneError::NoSuchPort(_) => code::NO_SUCH_PORT,
        PlaneError::PortExists(_) => code::PORT_EXISTS,
        PlaneError::Port { source: pmd::PortError::Spec(_), .. } => code::INVALID_PARAMS,
        PlaneError::Port { .. } => code::PORT_FAILED,
        PlaneError::Switch { source: vswitch::SwitchError::TooManyPorts, .. } => code::LIMIT,
        PlaneError::Switch { .. } => code::PORT_FAILED,
    };
    RpcError::new(code, error.to_string())
}
