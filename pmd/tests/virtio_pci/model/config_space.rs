//! PCI configuration space with virtio's capabilities, to be bent by tests.

use super::bar::{COMMON_AT, DEVICE_AT, ISR_AT, NOTIFY_AT, NOTIFY_MULTIPLIER, WINDOW};

/// A virtio structure as its capability names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Structure {
    pub(crate) cfg_type: u8,
    pub(crate) bar: u8,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// 256 bytes.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace(pub(crate) Vec<u8>);

const FIRST: usize = 0x40;
const STRIDE: usize = 0x18;
/// The PCI Express capability stands behind virtio's.
const EXPRESS: usize = 0xc0;

impl ConfigSpace {
    /// As QEMU has it: everything in BAR 4.
    pub(crate) fn new() -> Self {
        let at =
            |cfg_type, offset| Structure { cfg_type, bar: 4, offset: offset as u32, length: WINDOW as u32 };
        Self::of(&[at(1, COMMON_AT), at(3, ISR_AT), at(4, DEVICE_AT), at(2, NOTIFY_AT)])
    }

    /// With these structures.
    pub(crate) fn of(structures: &[Structure]) -> Self {
        let mut bytes = vec![0; 256];
        // Status: there is a list of capabilities.
        bytes[6] = 1 << 4;
        bytes[0x34] = FIRST as u8;
        for (i, s) in structures.iter().enumerate() {
            let at = FIRST + STRIDE * i;
            let next = if i + 1 == structures.len() { EXPRESS } else { at + STRIDE };
            let len = if s.cfg_type == 2 { 20 } else { 16 };
            bytes[at..at + 5].copy_from_slice(&[0x09, next as u8, len, s.cfg_type, s.bar]);
            bytes[at + 8..at + 12].copy_from_slice(&s.offset.to_le_bytes());
            bytes[at + 12..at + 16].copy_from_slice(&s.length.to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&NOTIFY_MULTIPLIER.to_le_bytes());
        }
        bytes[EXPRESS] = 0x10;
        Self(bytes)
    }

    pub(crate) fn is_bus_master(&self) -> bool {
        self.0[4] & 1 << 2 != 0
    }
}
