//! A VF's state.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::dma::Memory;
use super::pf::Pf;
use super::transmit::Transmit;
use crate::alarm::Alarm;
use crate::igbvf::regs::{self, BAR_SIZE, MAILBOX_WORDS, STATUS_FD, STATUS_LU, STATUS_TXOFF};

/// Configuration space: status (capabilities), the first capability's place, and a PCI Express capability there.
const STATUS: usize = 0x06;
const CAPABILITIES: usize = 0x34;
const EXPRESS: usize = 0xa0;
const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 1 << 2;

/// Changes the word that is written back for the n-th buffer of a frame.
pub type RxLie = Box<dyn FnMut(usize, u64) -> u64 + Send>;

/// A VF, and what is wrong with it.
pub struct Vf {
    /// Its device ID: an 82576's, if not changed before it is opened.
    pub device_id: u16,
    /// Its PF.
    pub pf: Pf,
    /// Bytes of a frame that arrives go to queue 1 if their sum is odd, as with RSS.
    pub spreads: bool,
    /// What it took out of frames is the VLAN tag.
    pub strips_vlans: bool,
    /// Lies on receive.
    pub rx_lie: Option<RxLie>,
    /// Skips so many receive descriptors without completing them.
    pub rx_skips: usize,
    /// Fetches no transmit descriptors.
    pub tx_stands: bool,
    /// Sends, and never reports.
    pub tx_reports_nothing: bool,
    /// Reports each descriptor, asked or not, and the one before it once more.
    pub tx_reports_twice: bool,
    /// Signals no interrupts.
    pub loses_interrupts: bool,
    /// Is pulled out after so many more accesses to registers.
    pub unplugs_after: Option<u32>,
    /// Queues do not come on.
    pub queues_stay_off: bool,
    /// Descriptors that a real card would take amiss.
    pub offences: Vec<String>,
    /// Frames that found no descriptor.
    pub missed: u64,
    /// Interrupts that were signalled, by vector.
    pub interrupts: [u64; regs::VECTORS],
    pub(super) registers: Box<[u32; BAR_SIZE / 4]>,
    pub(super) mailbox: [u32; MAILBOX_WORDS],
    /// A ping waits for the mailbox.
    pub(super) ping_waits: bool,
    pub(super) config: [u8; 256],
    pub(super) memory: Memory,
    pub(super) transmit: [Transmit; 2],
    pub(super) events: Vec<OwnedFd>,
    pub(super) removal: Arc<Alarm>,
    pub(super) is_plugged: bool,
    pub(super) generation: u64,
    pub(super) peer: Option<usize>,
    pub(super) sent: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Vf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vf").field("pf", &self.pf).field("offences", &self.offences).finish_non_exhaustive()
    }
}

impl Vf {
    pub(super) fn new(n: u8) -> Self {
        let mut config = [0; 256];
        config[STATUS] = 1 << 4;
        config[CAPABILITIES] = EXPRESS as u8;
        config[EXPRESS] = 0x10;
        let mut vf = Self {
            device_id: 0x10ca,
            pf: Pf::new(n),
            spreads: false,
            strips_vlans: false,
            rx_lie: None,
            rx_skips: 0,
            tx_stands: false,
            tx_reports_nothing: false,
            tx_reports_twice: false,
            loses_interrupts: false,
            unplugs_after: None,
            queues_stay_off: false,
            offences: Vec::new(),
            missed: 0,
            interrupts: [0; regs::VECTORS],
            registers: Box::new([0; BAR_SIZE / 4]),
            mailbox: [0; MAILBOX_WORDS],
            ping_waits: false,
            config,
            memory: Memory::default(),
            transmit: Default::default(),
            events: Vec::new(),
            removal: Arc::new(Alarm::new().expect("eventfd")),
            is_plugged: true,
            generation: 0,
            peer: None,
            sent: Vec::new(),
        };
        vf.set_link(true);
        vf
    }

    /// Tries to reach memory that was not mapped: address and bytes.
    #[must_use]
    pub fn dma_faults(&self) -> &[(u64, usize)] {
        &self.memory.faults
    }

    /// Whether any memory is mapped for it.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        !self.memory.is_empty()
    }

    /// Takes the mapping of the memory at `address` away behind the driver's back.
    pub fn lose_mapping(&mut self, address: u64) {
        self.memory.forget(address);
    }

    /// Brings the link up or down; the PF pings.
    pub(super) fn set_link(&mut self, up: bool) {
        // 1,000 Mb/s, full duplex.
        *self.register(regs::VTSTATUS) = 2 << 6 | STATUS_FD | if up { STATUS_LU } else { 0 };
        self.ping();
    }

    /// Pauses the wire, or lets it go on. The PF says nothing of it.
    pub(super) fn set_paused(&mut self, paused: bool) {
        let status = self.register(regs::VTSTATUS);
        *status = if paused { *status | STATUS_TXOFF } else { *status & !STATUS_TXOFF };
        self.tx_stands = paused;
    }

    /// The PF is reset: it forgets the VF, and pings.
    pub fn reset_pf(&mut self) {
        self.pf.forget();
        self.ping();
    }

    /// The PF is in reset, or done with it.
    pub fn set_pf_in_reset(&mut self, is: bool) {
        self.pf.forget();
        let flags = self.register(regs::V2PMAILBOX);
        if is {
            *flags |= regs::V2P_RSTI;
        } else {
            *flags = *flags & !regs::V2P_RSTI | regs::V2P_RSTD;
        }
    }

    /// A function-level reset, by the driver or behind its back: queues and interrupts off, no bus mastering.
    pub fn reset(&mut self) {
        self.reset_queues();
        self.config[COMMAND] &= !BUS_MASTER;
    }

    /// What VTCTRL.RST does.
    pub(super) fn reset_queues(&mut self) {
        for queue in 0..2 {
            for at in [regs::rx(queue), regs::tx(queue)] {
                (0..0x40).step_by(4).for_each(|i| *self.register(at + i) = 0);
            }
        }
        for at in [regs::VTEIMS, regs::VTEIAC, regs::VTEICR, regs::VTIVAR, regs::VTIVAR_MISC] {
            *self.register(at) = 0;
        }
        self.transmit = Default::default();
        self.pf.forget();
    }

    /// A new VF in this one's place. Its PF and its mappings stay.
    pub(super) fn replace(&mut self) {
        self.reset();
        self.events.clear();
        self.removal = Arc::new(Alarm::new().expect("eventfd"));
        (self.is_plugged, self.unplugs_after) = (true, None);
        self.generation += 1;
    }

    /// Counts an access to a register; whether the VF is still there for it.
    pub(super) fn is_there(&mut self) -> bool {
        if let Some(left) = &mut self.unplugs_after {
            *left = left.saturating_sub(1);
            self.is_plugged &= *left > 0;
        }
        self.is_plugged
    }

    pub(super) fn masters_bus(&self) -> bool {
        self.is_plugged && self.config[COMMAND] & BUS_MASTER != 0
    }

    pub(super) fn offend(&mut self, what: impl Into<String>) {
        self.offences.push(what.into());
    }

    /// A register without its side effects.
    pub(super) fn register(&mut self, offset: usize) -> &mut u32 {
        &mut self.registers[offset / 4]
    }

    pub(super) fn has_link(&self) -> bool {
        self.registers[regs::VTSTATUS / 4] & STATUS_LU != 0
    }

    /// Whether a queue is on: switched on, and let by the PF.
    pub(super) fn is_on(&self, at: usize) -> bool {
        self.registers[(at + regs::DCTL) / 4] & regs::DCTL_ENABLE != 0 && self.pf.knows_vf
    }

    pub(in crate::igbvf) fn add_to(&mut self, counter: usize, n: usize) {
        let register = self.register(counter);
        *register = register.wrapping_add(n as u32);
    }
}
