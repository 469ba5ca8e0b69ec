//! The registers in BAR 4: common configuration, ISR, virtio-net's configuration, doorbells.

use pmd::bus::Registers;

use super::card::{Card, State};
use super::feature;

/// Where the structures stand, each in a window of this many bytes.
pub(crate) const WINDOW: usize = 0x1000;
pub(crate) const COMMON_AT: usize = 0;
pub(crate) const ISR_AT: usize = 0x1000;
pub(crate) const DEVICE_AT: usize = 0x2000;
pub(crate) const NOTIFY_AT: usize = 0x3000;
pub(crate) const NOTIFY_MULTIPLIER: u32 = 4;
const SIZE: usize = 0x4000;

/// BAR 4.
pub(crate) struct ModelBar(pub(crate) Card);

impl Registers for ModelBar {
    fn size(&self) -> usize {
        SIZE
    }
    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 1) as u8
    }
    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 2) as u16
    }
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4)
    }
    fn write8(&self, offset: usize, value: u8) {
        self.write(offset, 1, value.into());
    }
    fn write16(&self, offset: usize, value: u16) {
        self.write(offset, 2, value.into());
    }
    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, 4, value);
    }
    fn is_gone(&self) -> bool {
        self.0.state().faulting
    }
}

impl ModelBar {
    fn read(&self, offset: usize, bytes: usize) -> u32 {
        let mut state = self.0.state();
        state.live_on();
        if !state.present || state.faulting || offset > SIZE - bytes {
            return u32::MAX;
        }
        assert!(offset.is_multiple_of(bytes), "{bytes} bytes at {offset:#x}: not aligned");
        match offset {
            DEVICE_AT..NOTIFY_AT => state.read_net(offset - DEVICE_AT, bytes),
            COMMON_AT..ISR_AT => state.read_common(offset - COMMON_AT, bytes),
            _ => 0,
        }
    }

    fn write(&self, offset: usize, bytes: usize, value: u32) {
        let mut state = self.0.state();
        state.live_on();
        if !state.present || state.faulting || offset > SIZE - bytes {
            return;
        }
        assert!(offset.is_multiple_of(bytes), "{bytes} bytes at {offset:#x}: not aligned");
        match offset {
            COMMON_AT..ISR_AT => state.write_common(offset - COMMON_AT, bytes, value),
            NOTIFY_AT.. => state.doorbell((offset - NOTIFY_AT) / NOTIFY_MULTIPLIER as usize, value),
            _ => panic!("a driver writes {value:#x} to {offset:#x}"),
        }
    }
}

/// The common configuration's fields (§4.1.4.3), each read and written with its own width.
impl State {
    fn read_common(&mut self, offset: usize, bytes: usize) -> u32 {
        let selected = self.queue_select;
        // As in QEMU: without multiqueue agreed on there is one pair.
        let has_pairs = self.config.max_pairs == 1 || self.accepted & feature::MQ != 0;
        let queue = self.queues.get(usize::from(selected)).filter(|_| has_pairs || selected < 2);
        match (offset, bytes) {
            (0x04, 4) => half(self.offered(), self.device_select),
            (0x10, 2) => self.config_vector.into(),
            (0x14, 1) => self.status.into(),
            (0x15, 1) => {
                self.generation_reads += 1;
                if self.restless {
                    self.generation = self.generation.wrapping_add(1);
                }
                self.generation.into()
            }
            (0x18, 2) => queue.map_or(0, |q| q.size.into()),
            (0x1a, 2) => queue.map_or(0xffff, |q| q.vector.into()),
            (0x1c, 2) => queue.map_or(0, |q| q.enabled.into()),
            (0x1e, 2) => self.notify_off.unwrap_or(selected).into(),
            _ => panic!("a driver reads {bytes} bytes at {offset:#x} of the common configuration"),
        }
    }

    fn write_common(&mut self, offset: usize, bytes: usize, value: u32) {
        let vectors = self.interrupts.len();
        let vector = if (value as usize) < vectors { value as u16 } else { 0xffff };
        let (packed, event_idx) =
            (self.accepted & feature::RING_PACKED != 0, self.accepted & feature::EVENT_IDX != 0);
        let status = self.status;
        let queue = self.queues.get_mut(usize::from(self.queue_select));
        match (offset, bytes, queue) {
            (0x00, 4, _) => self.device_select = value,
            (0x08, 4, _) => self.driver_select = value,
            (0x0c, 4, _) => self.accept(value),
            (0x10, 2, _) => self.config_vector = vector,
            (0x14, 1, _) => self.set_status(value as u8),
            (0x16, 2, _) => self.queue_select = value as u16,
            (0x18, 2, Some(q)) => q.size = value as u16,
            (0x1a, 2, Some(q)) => q.vector = vector,
            (0x1c, 2, Some(q)) => {
                assert_eq!(value, 1, "queue_enable takes 1 only");
                assert!(
                    status & 8 != 0 && status & 4 == 0,
                    "queues are set up between FEATURES_OK and DRIVER_OK"
                );
                q.start(packed, event_idx);
            }
            (0x20 | 0x24, 4, Some(q)) => set_half(&mut q.desc, offset - 0x20, value),
            (0x28 | 0x2c, 4, Some(q)) => set_half(&mut q.driver, offset - 0x28, value),
            (0x30 | 0x34, 4, Some(q)) => set_half(&mut q.device, offset - 0x30, value),
            _ => panic!("a driver writes {bytes} bytes at {offset:#x} of the common configuration"),
        }
    }

    /// `driver_feature`
    fn accept(&mut self, value: u32) {
        assert!(self.status & 8 == 0, "features are final after FEATURES_OK");
        set_half(&mut self.accepted, 4 * self.driver_select as usize, value);
        assert_eq!(self.accepted & !self.offered(), 0, "a driver takes what was not offered");
    }

    /// `struct virtio_net_config` (§5.1.4).
    fn read_net(&mut self, offset: usize, bytes: usize) -> u32 {
        let (pairs, mtu) = (self.config.max_pairs.to_le_bytes(), self.config.mtu.to_le_bytes());
        let link = u8::from(self.link);
        let fields = [2, 0x12, 0x34, 0x56, 0x78, 0x9a, link, 0, pairs[0], pairs[1], mtu[0], mtu[1]];
        let field = fields.get(offset..offset + bytes).expect("a field of the configuration");
        field.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }
}

fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

fn set_half(bits: &mut u64, at: usize, value: u32) {
    let shift = if at == 0 { 0 } else { 32 };
    *bits = *bits & !(0xffff_ffff << shift) | u64::from(value) << shift;
}
