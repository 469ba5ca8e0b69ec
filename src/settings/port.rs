//! What a port is to be: `NAME=SPEC`.

use std::fmt;
use std::str::FromStr;

use pmd::bus::pci::Bdf;
use serde::{Deserialize, Serialize};

use super::PortName;

/// Longest specification, in bytes.
const MAX_SPEC: usize = 4096;

/// A port's specification: `KIND` or `KIND:REST`. That the kind exists and the rest suits it is checked by
/// [`crate::daemon::check_spec`], which knows the kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PortSpec(String);

/// A port to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortSetting {
    /// What it is called.
    pub(crate) name: PortName,
    /// What it is.
    pub(crate) spec: PortSpec,
}

/// No specification.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadSpec {
    #[error("port specification of {0} bytes; at most 4096 are taken")]
    TooLong(usize),
    #[error(
        "port specification {0:?} does not begin with a kind; give KIND:..., for example vhost-user:/run/vm1.sock"
    )]
    NoKind(String),
    #[error("port specification {0:?} holds a control character")]
    Control(String),
}

impl PortSpec {
    /// The kind: what stands before the first colon.
    pub(crate) fn kind(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// What stands behind the first colon; empty if there is none.
    pub(crate) fn rest(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, rest)| rest)
    }

    /// Where the card sits that it is a port on: of `vfio:BDF[,..]`.
    pub(crate) fn card(&self) -> Option<Bdf> {
        let rest = (self.kind() == "vfio").then(|| self.rest())?;
        rest.split(',').next()?.parse().ok()
    }
}

impl FromStr for PortSpec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<Self, BadSpec> {
        if text.len() > MAX_SPEC {
            return Err(BadSpec::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(BadSpec::Control(text.to_owned()));
        }
        let spec = Self(text.to_owned());
        let of_kind = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if spec.kind().is_empty() || !spec.kind().chars().all(of_kind) {
            return Err(BadSpec::NoKind(text.to_owned()));
        }
        Ok(spec)
    }
}

impl TryFrom<String> for PortSpec {
    type Error = BadSpec;

    fn try_from(text: String) -> Result<Self, BadSpec> {
        text.parse()
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PortSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, spec) =
            text.split_once('=').ok_or("give NAME=SPEC, for example vm1=vhost-user:/run/vm1.sock")?;
        let name = name.parse::<PortName>().map_err(|e| e.to_string())?;
        let spec = spec.parse::<PortSpec>().map_err(|e| e.to_string())?;
        Ok(Self { name, spec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_kind_and_rest() {
        let port: PortSetting = "vm1=vhost-user:/run/a=b:c,queues=2".parse().unwrap();
        assert_eq!(port.name.to_string(), "vm1");
        assert_eq!((port.spec.kind(), port.spec.rest()), ("vhost-user", "/run/a=b:c,queues=2"));
        let null: PortSetting = "n=null".parse().unwrap();
        assert_eq!((null.spec.kind(), null.spec.rest()), ("null", ""));
    }

    #[test]
    fn a_card_is_where_the_specification_says() {
        let card = |text: &str| text.parse::<PortSpec>().unwrap().card().map(|bdf| bdf.to_string());
        assert_eq!(card("vfio:01:10.0,queues=2").as_deref(), Some("0000:01:10.0"));
        assert_eq!((card("vfio:x"), card("tap:01:10.0")), (None, None));
    }

    #[test]
    fn bad_ones() {
        let long = format!("a=null:{}", "x".repeat(5000));
        for bad in ["", "a", "=null", "a=", "a=:x", "a=NULL", "a b=null", "a=null:\u{1b}[2J", &long] {
            assert!(bad.parse::<PortSetting>().is_err(), "{bad}");
        }
    }
}
