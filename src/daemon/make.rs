//! From a port's specification to the port.

use pmd::vdev::{self, af_packet::AfPacketConfig, af_xdp::AfXdpConfig, pcap::PcapConfig, tap::TapConfig};
use pmd::{Port, PortError, VfioConfig};
use vhost::{VhostUserPort, VhostUserSpec};

use crate::settings::PortSpec;

const VHOST_USER: &str = "vhost-user";

/// Whether the kind exists and the rest suits it. Touches nothing; that the named things exist shows in [`make`].
pub(crate) fn check_spec(spec: &PortSpec) -> Result<(), PortError> {
    let rest = spec.rest();
    match spec.kind() {
        VHOST_USER => vhost_user(rest).map(drop),
        "vfio" => rest.parse::<VfioConfig>().map(drop),
        "tap" => rest.parse::<TapConfig>().map(drop),
        "af_packet" => rest.parse::<AfPacketConfig>().map(drop),
        "af_xdp" => rest.parse::<AfXdpConfig>().map(drop),
        "pcap" => rest.parse::<PcapConfig>().map(drop),
        "null" | "loopback" => vdev::from_spec(spec.kind(), rest).map(drop),
        _ => Err(unknown(spec.kind())),
    }
}

/// Makes the port.
pub(super) fn make(spec: &PortSpec) -> Result<Box<dyn Port>, PortError> {
    check_spec(spec)?;
    match spec.kind() {
        VHOST_USER => Ok(Box::new(VhostUserPort::new(&vhost_user(spec.rest())?)?)),
        kind => pmd::from_spec(kind, spec.rest()),
    }
}

fn vhost_user(rest: &str) -> Result<VhostUserSpec, PortError> {
    rest.parse()
}

fn unknown(kind: &str) -> PortError {
    let forms: Vec<_> = pmd::kinds().map(|(_, form)| form).collect();
    PortError::Spec(format!(
        "there is no port kind {kind:?}; there are: vhost-user:PATH[,queues=N][,client][,memory=SIZE], {}",
        forms.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        check_spec(&text.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_kind_is_known() {
        for good in [
            "vhost-user:/tmp/x,queues=2",
            "null",
            "loopback",
            "tap:t0",
            "af_packet:lo",
            "af_xdp:lo,copy",
            "pcap:tx=/tmp/x",
            "vfio:01:10.0",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (kind, _) in pmd::kinds() {
            assert!(!check(kind).is_err_and(|e| e.contains("no port kind")), "{kind}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(check("floppy:x").unwrap_err().contains("vhost-user:PATH"));
        for bad in [
            "vhost-user",
            "vhost-user:",
            "vhost-user:/x,queues=0",
            "vhost-user:/x,colour=red",
            "null:x",
            "tap",
            "vfio:eth0",
            "vfio:01:10.0,queues=0",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
