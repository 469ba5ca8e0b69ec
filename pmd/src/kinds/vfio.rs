//! `vfio:BDF[,...]`: a NIC under a driver of ours.

use std::str::FromStr;

use crate::bus::pci::{Bdf, Sysfs};
use crate::bus::vfio::{Access, VfioDevice};
use crate::bus::{BusError, PciIds};
use crate::igbvf::{self, Igbvf};
use crate::nic::{NicDriver, NicError, NicOptions, NicPort};
use crate::virtio_pci::{self, VirtioPci};
use crate::{Port, PortError};

/// The kind's name.
const KIND: &str = "vfio";

/// What may be said.
pub(super) const FORM: &str =
    "vfio:BDF[,driver=igbvf|virtio_pci][,queues=N][,rx_desc=N][,tx_desc=N][,token=UUID][,noiommu]";

/// A NIC, and how it is to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfioConfig {
    /// Where it sits.
    pub bdf: Bdf,
    /// Its driver; `None`: the one that knows it.
    pub driver: Option<CardDriver>,
    /// What the driver is told.
    pub options: NicOptions,
    /// How it may be opened.
    pub access: Access,
}

/// A driver of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardDriver {
    /// Virtual functions of Intel's 82576 and I350.
    Igbvf,
    /// Virtio network devices.
    VirtioPci,
}

impl CardDriver {
    const ALL: [Self; 2] = [Self::Igbvf, Self::VirtioPci];

    fn name(self) -> &'static str {
        match self {
            Self::Igbvf => "igbvf",
            Self::VirtioPci => "virtio_pci",
        }
    }

    fn knows(self, ids: &PciIds) -> bool {
        match self {
            Self::Igbvf => igbvf::matches(ids),
            Self::VirtioPci => virtio_pci::matches(ids),
        }
    }
}

impl FromStr for VfioConfig {
    type Err = PortError;

    /// Reads what stands behind `vfio:`.
    fn from_str(rest: &str) -> Result<Self, PortError> {
        let (bdf, options) = rest.split_once(',').unwrap_or((rest, ""));
        let bdf = bdf.parse().map_err(|e| PortError::Spec(format!("vfio: {e}; write {FORM}")))?;
        let mut config = Self { bdf, driver: None, options: NicOptions::DEFAULT, access: Access::default() };
        for part in options.split(',').filter(|part| !part.is_empty()) {
            config.set(part)?;
        }
        Ok(config)
    }
}

impl VfioConfig {
    fn set(&mut self, part: &str) -> Result<(), PortError> {
        match part.split_once('=') {
            Some(("driver", name)) => self.driver = Some(driver(name)?),
            Some(("queues", text)) => self.options.queues = Some(queues(text)?),
            Some(("rx_desc", text)) => self.options.rx_descriptors = descriptors("rx_desc", text)?,
            Some(("tx_desc", text)) => self.options.tx_descriptors = descriptors("tx_desc", text)?,
            Some(("token", text)) => self.access.token = Some(token(text)?),
            None if part == "noiommu" => self.access.noiommu = true,
            _ => return Err(PortError::Spec(format!("vfio has no option \"{part}\": write {FORM}"))),
        }
        Ok(())
    }
}

fn driver(name: &str) -> Result<CardDriver, PortError> {
    CardDriver::ALL.into_iter().find(|driver| driver.name() == name).ok_or_else(|| {
        let names: Vec<_> = CardDriver::ALL.iter().map(|driver| driver.name()).collect();
        PortError::Spec(format!("vfio: there is no driver \"{name}\"; there are {}", names.join(" and ")))
    })
}

fn queues(text: &str) -> Result<u16, PortError> {
    let number = text.parse().ok().filter(|n| (1..=256).contains(n));
    number.ok_or_else(|| PortError::Spec("vfio: queues must be a number, 1 to 256".into()))
}

fn descriptors(key: &str, text: &str) -> Result<u16, PortError> {
    let number = text.parse().ok().filter(|n: &u16| n.is_power_of_two() && (64..=4096).contains(n));
    number.ok_or_else(|| PortError::Spec(format!("vfio: {key} must be a power of two, 64 to 4096")))
}

/// A UUID (RFC 9562 §4), as the kernel reads it.
fn token(text: &str) -> Result<String, PortError> {
    let groups = text.split('-').map(str::len);
    let is_uuid = groups.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    if is_uuid {
        return Ok(text.to_owned());
    }
    Err(PortError::Spec(format!(
        "vfio: token=\"{text}\" is no UUID: give the one that the PF's program was given, \
         for example 14d63f20-8445-11ea-8900-1f9ce7d5650d"
    )))
}

/// Makes the port: finds the driver, opens the device.
pub(super) fn port(config: &VfioConfig) -> Result<Box<dyn Port>, PortError> {
    let driver = match config.driver {
        Some(driver) => driver,
        None => matching(config.bdf)?,
    };
    match driver {
        CardDriver::Igbvf => under(config, Igbvf::new),
        CardDriver::VirtioPci => under(config, VirtioPci::new),
    }
}

/// The port under a driver that `new` makes, now and whenever the device comes back.
fn under<D: NicDriver>(
    config: &VfioConfig,
    new: fn(VfioDevice, &NicOptions) -> Result<D, NicError>,
) -> Result<Box<dyn Port>, PortError> {
    let config = config.clone();
    let name = config.bdf.to_string();
    let open = move || new(VfioDevice::open(config.bdf, &config.access)?, &config.options);
    Ok(Box::new(NicPort::new(KIND, &name, open)?))
}

/// The driver that knows the device.
fn matching(bdf: Bdf) -> Result<CardDriver, NicError> {
    let ids = Sysfs::default().function(bdf).and_then(|function| function.ids());
    let ids = ids.map_err(|e| BusError::Missing(e.to_string()))?;
    let known = CardDriver::ALL.into_iter().find(|driver| driver.knows(&ids));
    known.ok_or_else(|| NicError::Refused {
        device: bdf.to_string(),
        what: format!(
            "is a {:04x}:{:04x}, which Polder has no driver for; `polder nic list` shows what it can use",
            ids.vendor, ids.device
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> Result<VfioConfig, String> {
        rest.parse().map_err(|e: PortError| e.to_string())
    }

    #[test]
    fn read_as_written() {
        let plain = config("01:10.0").unwrap();
        assert_eq!((plain.bdf.to_string(), plain.driver), ("0000:01:10.0".into(), None));
        assert_eq!((plain.options, plain.access), (NicOptions::DEFAULT, Access::default()));
        let uuid = "14d63f20-8445-11ea-8900-1f9ce7d5650d";
        let full =
            format!("0000:01:10.0,driver=virtio_pci,queues=2,rx_desc=64,tx_desc=4096,token={uuid},noiommu");
        let full = config(&full).unwrap();
        assert_eq!(full.driver, Some(CardDriver::VirtioPci));
        assert_eq!(full.options, NicOptions { queues: Some(2), rx_descriptors: 64, tx_descriptors: 4096 });
        assert_eq!(full.access, Access { token: Some(uuid.into()), noiommu: true });
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (rest, right) in [
            ("", "vfio:BDF"),
            ("eth0", "polder nic list"),
            ("01:10.0,queue=2", "queues=N"),
            ("01:10.0,noiommu=1", "noiommu"),
            ("01:10.0,driver=ixgbe", "igbvf and virtio_pci"),
            ("01:10.0,queues=0", "1 to 256"),
            ("01:10.0,rx_desc=100", "power of two"),
            ("01:10.0,tx_desc=8192", "64 to 4096"),
            ("01:10.0,token=1234", "UUID"),
            ("01:10.0,token=14d63f20-8445-11ea-8900-1f9ce7d5650x", "UUID"),
        ] {
            assert!(config(rest).unwrap_err().contains(right), "{rest}: {:?}", config(rest));
        }
    }
}
