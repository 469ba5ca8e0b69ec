//! The device behind its common configuration (virtio 1.3 §4.1.4.3): status, features, queues.

use std::thread;
use std::time::{Duration, Instant};

use super::capability::{Bell, Structures};
use super::features::Features;
use super::regs::{NO_VECTOR, common, net, status};
use super::virtqueue::Virtqueue;
use crate::Link;
use crate::bus::{BusError, PciDevice};
use crate::nic::NicError;

/// How long a device may take to reset.
const RESET_PATIENCE: Duration = Duration::from_secs(1);
/// Tries to read fields of the configuration that do not change meanwhile.
const GENERATIONS: u32 = 100;

/// A virtio device.
pub(super) struct Transport<D: PciDevice> {
    pub(super) device: D,
    structures: Structures<D::Bar>,
}

/// What a network device says of itself (§5.1.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct NetConfig {
    pub(super) mac: [u8; 6],
    pub(super) max_pairs: u16,
    pub(super) mtu: u16,
}

impl<D: PciDevice> Transport<D> {
    /// Finds a device's registers.
    ///
    /// # Errors
    /// [`BusError::Lacks`] if they are not where they should be.
    pub(super) fn new(device: D) -> Result<Self, BusError> {
        let structures = Structures::find(&device)?;
        Ok(Self { device, structures })
    }

    pub(super) fn name(&self) -> &str {
        self.device.name()
    }

    pub(super) fn refused(&self, what: impl Into<String>) -> NicError {
        NicError::Refused { device: self.name().to_owned(), what: what.into() }
    }

    pub(super) fn timeout(&self, what: &str, within: Duration, hint: &'static str) -> NicError {
        let within_ms = within.as_millis() as u64;
        NicError::Timeout { device: self.name().to_owned(), what: what.to_owned(), within_ms, hint }
    }

    fn gone(&self) -> NicError {
        NicError::Bus(BusError::Gone(self.name().to_owned()))
    }

    /// `device_status`; `None` if the device is gone.
    pub(super) fn status(&self) -> Option<u8> {
        let status = self.structures.common.read8(common::DEVICE_STATUS);
        (status != status::GONE && !self.structures.common.is_gone()).then_some(status)
    }

    /// Adds bits to `device_status`.
    pub(super) fn add_status(&self, bits: u8) -> Result<(), NicError> {
        let before = self.status().ok_or_else(|| self.gone())?;
        self.structures.common.write8(common::DEVICE_STATUS, before | bits);
        Ok(())
    }

    /// Resets the device, and waits until it has (§4.1.4.3.2).
    ///
    /// # Errors
    /// It is gone, or does not reset.
    pub(super) fn reset(&self) -> Result<(), NicError> {
        self.structures.common.write8(common::DEVICE_STATUS, 0);
        let end = Instant::now() + RESET_PATIENCE;
        loop {
            match self.status() {
                None => return Err(self.gone()),
                Some(0) => return Ok(()),
                Some(_) if Instant::now() > end => {
                    return Err(self.timeout(
                        "reset",
                        RESET_PATIENCE,
                        "; it may have to be unbound and bound again",
                    ));
                }
                Some(_) => thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    /// What the device offers.
    pub(super) fn offered(&self) -> Features {
        let half = |select| {
            self.structures.common.write32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.structures.common.read32(common::DEVICE_FEATURE))
        };
        Features(half(0) | half(1) << 32)
    }

    /// What we take.
    pub(super) fn take(&self, features: Features) {
        for (select, half) in [(0, features.0 as u32), (1, (features.0 >> 32) as u32)] {
            self.structures.common.write32(common::DRIVER_FEATURE_SELECT, select);
            self.structures.common.write32(common::DRIVER_FEATURE, half);
        }
    }

    /// Configuration fields, all of the same moment (§4.1.4.3.1); those that the features say are there.
    pub(super) fn config(&self, features: Features) -> Result<NetConfig, NicError> {
        for _ in 0..GENERATIONS {
            let before = self.structures.common.read8(common::CONFIG_GENERATION);
            let config = self.read_config(features);
            if self.structures.common.read8(common::CONFIG_GENERATION) == before {
                return Ok(config);
            }
        }
        Err(self.refused("changes its configuration all the time"))
    }

    fn read_config(&self, features: Features) -> NetConfig {
        let of = &self.structures.net;
        let if_has = |feature, offset| features.has(feature).then(|| of.read16(offset));
        NetConfig {
            mac: std::array::from_fn(|i| of.read8(net::MAC + i)),
            max_pairs: if_has(Features::MQ, net::MAX_VIRTQUEUE_PAIRS).unwrap_or(1).clamp(1, net::MAX_PAIRS),
            mtu: if_has(Features::MTU, net::MTU).unwrap_or(0),
        }
    }

    /// The link; up if the device does not say.
    pub(super) fn link(&self, features: Features) -> Link {
        let is_up =
            !features.has(Features::STATUS) || self.structures.net.read16(net::STATUS) & net::S_LINK_UP != 0;
        if is_up { Link::Up } else { Link::Down }
    }

    /// Has changes of the configuration signal a vector; false if the device cannot.
    pub(super) fn set_config_vector(&self, vector: u16) -> bool {
        self.structures.common.write16(common::CONFIG_MSIX_VECTOR, vector);
        self.structures.common.read16(common::CONFIG_MSIX_VECTOR) == vector
    }

    /// The largest power of two that a queue's size may be, `wanted` at most (§4.1.5.1.3).
    ///
    /// # Errors
    /// There is no such queue.
    pub(super) fn queue_size(&self, queue: u16, wanted: u16) -> Result<u16, NicError> {
        self.structures.common.write16(common::QUEUE_SELECT, queue);
        let most = self.structures.common.read16(common::QUEUE_SIZE).min(wanted).min(MAX_SIZE);
        match most.checked_ilog2() {
            Some(log) => Ok(1 << log),
            None => Err(self.refused(format!("has no queue {queue}"))),
        }
    }

    /// Gives the device a queue's memory, and enables it (§4.1.5.1.3). `vector`: what used buffers signal, if they do.
    ///
    /// # Errors
    /// The device refuses, or has no doorbell for it.
    pub(super) fn enable<V: Virtqueue>(
        &self,
        number: u16,
        queue: &V,
        vector: Option<u16>,
    ) -> Result<Bell<D::Bar>, NicError> {
        let regs = &self.structures.common;
        regs.write16(common::QUEUE_SELECT, number);
        regs.write16(common::QUEUE_SIZE, queue.size());
        let vector = vector.unwrap_or(NO_VECTOR);
        regs.write16(common::QUEUE_MSIX_VECTOR, vector);
        if regs.read16(common::QUEUE_MSIX_VECTOR) != vector {
            return Err(self.refused(format!("takes no interrupt vector {vector} for queue {number}")));
        }
        let addresses = queue.addresses();
        regs.write64(common::QUEUE_DESC, addresses.desc.0);
        regs.write64(common::QUEUE_DRIVER, addresses.driver.0);
        regs.write64(common::QUEUE_DEVICE, addresses.device.0);
        let bell = self.structures.bell(&self.device, number, regs.read16(common::QUEUE_NOTIFY_OFF))?;
        regs.write16(common::QUEUE_ENABLE, 1);
        Ok(bell)
    }
}

/// Largest ring that we make.
const MAX_SIZE: u16 = 4096;
