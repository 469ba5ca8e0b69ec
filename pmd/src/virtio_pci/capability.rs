//! Where a device keeps its registers: virtio's PCI capabilities (virtio 1.3 §4.1.4), each checked against its BAR.

use std::sync::Arc;

use super::regs::{VENDOR_CAPABILITY, cap, common};
use crate::bus::{BusError, PciDevice, Registers};

/// A stretch of a BAR that was seen to lie in it.
#[derive(Debug)]
pub(super) struct Window<B> {
    bar: Arc<B>,
    start: usize,
    len: usize,
}

impl<B: Registers> Window<B> {
    /// Where the field at `offset` with `bytes` stands in the BAR. Outside of the window: where nothing is.
    fn at(&self, offset: usize, bytes: usize) -> usize {
        let inside = offset <= self.len && bytes <= self.len - offset;
        if inside { self.start + offset } else { usize::MAX }
    }

    pub(super) fn read8(&self, offset: usize) -> u8 {
        self.bar.read8(self.at(offset, 1))
    }

    pub(super) fn read16(&self, offset: usize) -> u16 {
        self.bar.read16(self.at(offset, 2))
    }

    pub(super) fn read32(&self, offset: usize) -> u32 {
        self.bar.read32(self.at(offset, 4))
    }

    pub(super) fn write8(&self, offset: usize, value: u8) {
        self.bar.write8(self.at(offset, 1), value);
    }

    pub(super) fn write16(&self, offset: usize, value: u16) {
        self.bar.write16(self.at(offset, 2), value);
    }

    pub(super) fn write32(&self, offset: usize, value: u32) {
        self.bar.write32(self.at(offset, 4), value);
    }

    /// In two halves, low first: a driver reads and writes no field of 64 bits at once (§4.1.3.1).
    pub(super) fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.bar.is_gone()
    }
}

/// All structures that we use.
#[derive(Debug)]
pub(super) struct Structures<B> {
    /// The common configuration.
    pub(super) common: Window<B>,
    /// virtio-net's own.
    pub(super) net: Window<B>,
    /// Doorbells, and the bytes between two steps of `queue_notify_off`.
    notify: Window<B>,
    multiplier: u32,
}

impl<B: Registers> Structures<B> {
    /// Finds them.
    ///
    /// # Errors
    /// [`BusError::Lacks`] if one is missing or does not lie in its BAR.
    pub(super) fn find<D: PciDevice<Bar = B>>(device: &D) -> Result<Self, BusError> {
        let structure = |cfg_type, bytes, align| find(device, cfg_type, bytes, align);
        let (common, _) = structure(cap::COMMON, common::SIZE, 4)?;
        let (net, _) = structure(cap::DEVICE, 6, 4)?;
        let (notify, at) = structure(cap::NOTIFY, 2, 2)?;
        // Of no use with MSI-X; a device must have it nevertheless (§4.1.4.5).
        structure(cap::ISR, 1, 1)?;
        let [len] = read(device, at + cap::LEN)?;
        if len < cap::NOTIFY_SIZE {
            return Err(lacks(device, format!("a notification capability of {len} bytes")));
        }
        let multiplier = u32::from_le_bytes(read(device, at + cap::MULTIPLIER)?);
        Ok(Self { common, net, notify, multiplier })
    }

    /// The doorbell of queue `queue`, whose `queue_notify_off` is `off` (§4.1.4.4).
    ///
    /// # Errors
    /// [`BusError::Lacks`] if it does not lie in the notification structure.
    pub(super) fn bell<D: PciDevice>(&self, device: &D, queue: u16, off: u16) -> Result<Bell<B>, BusError> {
        let offset = u64::from(off) * u64::from(self.multiplier);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.notify.at(offset, 2) {
            at if at != usize::MAX && at.is_multiple_of(2) => {
                Ok(Bell { bar: Arc::clone(&self.notify.bar), at, queue })
            }
            _ => Err(lacks(
                device,
                format!("queue {queue}'s doorbell at {off} x {}, outside of its BAR", self.multiplier),
            )),
        }
    }
}

/// A queue's doorbell.
#[derive(Debug)]
pub(super) struct Bell<B> {
    bar: Arc<B>,
    at: usize,
    queue: u16,
}

impl<B: Registers> Bell<B> {
    /// Tells the device to look at the queue. What is to be seen by it was published before.
    #[inline]
    pub(super) fn ring(&self) {
        self.bar.write16(self.at, self.queue);
    }
}

/// The first structure of this type that lies, aligned, in a BAR that we have (§4.1.4.1: a driver takes the first that it can
/// use, and ignores BARs that do not exist), and where its capability stands.
fn find<D: PciDevice>(
    device: &D,
    cfg_type: u8,
    bytes: usize,
    align: usize,
) -> Result<(Window<D::Bar>, u16), BusError> {
    let mut seen = None;
    for at in device.capabilities(VENDOR_CAPABILITY)? {
        let [len, this] = read(device, at + cap::LEN)?;
        if this != cfg_type || len < cap::SIZE {
            continue;
        }
        let [bar] = read(device, at + cap::BAR)?;
        let start = u32::from_le_bytes(read(device, at + cap::OFFSET)?) as usize;
        let len = u32::from_le_bytes(read(device, at + cap::LENGTH)?) as usize;
        let Ok(found) = device.bar(bar).map(|bar| Window { bar, start, len }) else { continue };
        let room = found.bar.size();
        if start <= room && len <= room - start && len >= bytes && start.is_multiple_of(align) {
            return Ok((found, at));
        }
        seen = Some(format!(
            "a virtio structure of type {cfg_type} at {start:#x} + {len:#x} of BAR {bar}, which has {room:#x}"
        ));
    }
    let none = || {
        format!("no virtio capability of type {cfg_type}: is it a legacy device? (QEMU: disable-legacy=on)")
    };
    Err(lacks(device, seen.unwrap_or_else(none)))
}

fn read<D: PciDevice, const N: usize>(device: &D, at: u16) -> Result<[u8; N], BusError> {
    let mut bytes = [0; N];
    device.read_config(at, &mut bytes)?;
    Ok(bytes)
}

fn lacks<D: PciDevice>(device: &D, what: String) -> BusError {
    BusError::Lacks { device: device.name().to_owned(), what }
}
