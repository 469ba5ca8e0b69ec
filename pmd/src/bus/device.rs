//! One PCI function under our control.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mbuf::{PageSize, Zone};

use super::{BusError, DmaMapping, Registers};

/// Who made it and what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PciIds {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Revision ID.
    pub revision: u8,
}

/// PCI configuration space (PCI Local Bus 3.0 §6.1): the command register, and the bit in it that lets the device master
/// the bus.
const COMMAND: u16 = 0x04;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// The status register, and its bit that says there is a list of capabilities.
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES: u16 = 0x34;
/// PCI Express capability: its ID, its Device Status register, and the bit "transactions pending" (PCIe 4.0 §7.5.3.5).
const EXPRESS: u8 = 0x10;
const EXPRESS_DEVICE_STATUS: u16 = 0x0a;
const TRANSACTIONS_PENDING: u16 = 1 << 5;
/// A list of capabilities longer than this runs in a circle: 192 bytes hold at most 48.
const MOST_CAPABILITIES: usize = 48;

/// A PCI function that belongs to this process: nobody else drives it. Control path but for the BARs, which the data plane
/// rings doorbells through. Dropping it gives the function back, reset.
pub trait PciDevice: Send + Sync + 'static {
    /// Its registers.
    type Bar: Registers + 'static;

    /// How messages name it: `0000:01:10.0`.
    fn name(&self) -> &str;

    /// Who made it and what it is.
    fn ids(&self) -> PciIds;

    /// The NUMA node that it sits at, if the system knows.
    fn numa_node(&self) -> Option<u32> {
        None
    }

    /// Reads configuration space from `offset` on.
    ///
    /// # Errors
    /// [`BusError`]; `bytes` are undefined then.
    fn read_config(&self, offset: u16, bytes: &mut [u8]) -> Result<(), BusError>;

    /// Writes configuration space from `offset` on.
    ///
    /// # Errors
    /// [`BusError`].
    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError>;

    /// BAR `index`, 0 to 5, mapped. The same one each time.
    ///
    /// # Errors
    /// [`BusError::Lacks`] if there is no such memory BAR.
    fn bar(&self, index: u8) -> Result<Arc<Self::Bar>, BusError>;

    /// Makes a zone reachable for the device, at its own virtual address plus [`DmaMapping::offset`], until the mapping is
    /// dropped. A zone may be mapped any number of times, by several devices.
    ///
    /// # Errors
    /// [`BusError`]: says what limit was met and what is needed. Nothing stays mapped then.
    fn map(&self, zone: &Zone) -> Result<DmaMapping, BusError>;

    /// Whether an IOMMU translates the device's addresses, and so holds it to the memory that was mapped for it. Without
    /// one its addresses are physical ones.
    fn has_iommu(&self) -> bool;

    /// Pages that areas for it are made of ([`DmaArea`](super::DmaArea)): small ones, unless an area has to lie in one
    /// piece of physical memory.
    fn area_pages(&self) -> PageSize {
        PageSize::Small4K
    }

    /// Resets the function (PCIe function-level reset): registers as after power-on, no bus mastering.
    ///
    /// # Errors
    /// [`BusError`], also if the device knows no such reset.
    fn reset(&self) -> Result<(), BusError>;

    /// How many MSI-X vectors it has; 0 if none.
    fn vectors(&self) -> usize;

    /// Has interrupt vector `i` signal eventfd `events[i]` from now on; replaces what was set before, and no events at all
    /// switches interrupts off.
    ///
    /// # Errors
    /// [`BusError`].
    fn set_interrupts(&self, events: &[OwnedFd]) -> Result<(), BusError>;

    /// Becomes readable when the system wants the device back (it is being unplugged, or its driver unbound). It must be let
    /// go of soon then: the system waits.
    fn removal(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// A word of configuration space.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    fn read_config16(&self, offset: u16) -> Result<u16, BusError> {
        let mut bytes = [0; 2];
        self.read_config(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// A double word of configuration space.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    fn read_config32(&self, offset: u16) -> Result<u32, BusError> {
        let mut bytes = [0; 4];
        self.read_config(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Where its capabilities with this ID stand in configuration space, in the list's order. Bounded, whatever the list
    /// says.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    fn capabilities(&self, id: u8) -> Result<Vec<u16>, BusError> {
        let mut found = Vec::new();
        if self.read_config16(STATUS)? & STATUS_CAPABILITIES == 0 {
            return Ok(found);
        }
        let mut at = self.read_config16(CAPABILITIES)? & 0xfc;
        for _ in 0..MOST_CAPABILITIES {
            if at < 0x40 {
                break;
            }
            let [this, next] = self.read_config16(at)?.to_le_bytes();
            if this == id {
                found.push(at);
            }
            at = u16::from(next & 0xfc);
        }
        Ok(found)
    }

    /// Lets the device read and write memory by itself, or forbids it.
    ///
    /// # Errors
    /// As [`write_config`](Self::write_config).
    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        let command = self.read_config16(COMMAND)?;
        let wanted = if on { command | COMMAND_BUS_MASTER } else { command & !COMMAND_BUS_MASTER };
        self.write_config(COMMAND, &wanted.to_le_bytes())
    }

    /// Forbids it to master the bus, and waits, 100 ms at most, until what it had begun is done. Only then may the memory
    /// that it knew be used for something else. A device that is gone is quiet already.
    ///
    /// # Errors
    /// [`BusError`] if it does not become quiet.
    fn quiesce(&self) -> Result<(), BusError> {
        const PATIENCE: Duration = Duration::from_millis(100);
        self.set_bus_master(false)?;
        let Some(express) = self.capabilities(EXPRESS)?.first().copied() else { return Ok(()) };
        let end = Instant::now() + PATIENCE;
        loop {
            match self.read_config16(express + EXPRESS_DEVICE_STATUS)? {
                u16::MAX => return Err(BusError::Gone(self.name().to_owned())),
                status if status & TRANSACTIONS_PENDING == 0 => return Ok(()),
                _ if Instant::now() > end => {
                    let what =
                        format!("transactions pending {PATIENCE:?} after its bus mastering was switched off");
                    return Err(BusError::Lacks { device: self.name().to_owned(), what });
                }
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}
