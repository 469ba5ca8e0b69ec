//! The VF's own counters: 32 bits that wrap, made 64.

use super::regs;
use crate::bus::Registers;

/// Name in the details, register.
const COUNTERS: [(&str, usize); 9] = [
    ("vf rx packets", regs::VFGPRC),
    ("vf rx bytes", regs::VFGORC),
    ("vf rx multicast", regs::VFMPRC),
    ("vf rx packets inside the card", regs::VFGPRLBC),
    ("vf rx bytes inside the card", regs::VFGORLBC),
    ("vf tx packets", regs::VFGPTC),
    ("vf tx bytes", regs::VFGOTC),
    ("vf tx packets inside the card", regs::VFGPTLBC),
    ("vf tx bytes inside the card", regs::VFGOTLBC),
];

/// What the card has counted for the VF since the driver knows it. FCS included in the bytes.
#[derive(Debug, Default)]
pub(super) struct Stats {
    last: [u32; COUNTERS.len()],
    total: [u64; COUNTERS.len()],
}

impl Stats {
    /// Takes what the registers stand at for where to count from: nobody resets them.
    pub(super) fn start<B: Registers>(&mut self, bar: &B) {
        self.last = COUNTERS.map(|(_, register)| bar.read32(register));
    }

    /// Adds what was counted since the last time: not longer ago than 34 s, in which 2³² bytes come at 1 Gb/s.
    pub(super) fn read<B: Registers>(&mut self, bar: &B) {
        for (i, (_, register)) in COUNTERS.iter().enumerate() {
            let now = bar.read32(*register);
            self.total[i] += u64::from(now.wrapping_sub(self.last[i]));
            self.last[i] = now;
        }
    }

    /// For the port's details.
    pub(super) fn details(&self) -> impl Iterator<Item = (&'static str, String)> {
        COUNTERS.iter().zip(self.total).map(|((name, _), total)| (*name, total.to_string()))
    }
}
