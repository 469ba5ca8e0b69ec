//! A virtual function's registers: BAR 0 of an 82576 or I350 VF. Layout alone.
//!
//! The VF sees its own registers at the addresses that the PF has for its first ones, under the PF's names (82576 datasheet,
//! chapter 8, "virtual function device registers"; names as drivers know them).
#![cfg_attr(
    not(any(test, feature = "test-models")),
    expect(dead_code, reason = "some of it only the device's side names, which is the model's")
)]

/// VTCTRL: device control. Only the reset bit does something.
pub(super) const VTCTRL: usize = 0x0000;
/// Resets the VF's queues and interrupts, and tells the PF. Clears itself.
pub(super) const VTCTRL_RST: u32 = 1 << 26;

/// VTSTATUS: device status, a copy of the PF's.
pub(super) const VTSTATUS: usize = 0x0008;
/// Full duplex.
pub(super) const STATUS_FD: u32 = 1;
/// Link up.
pub(super) const STATUS_LU: u32 = 1 << 1;
/// Transmission is paused by the link partner's PAUSE frames (82576 datasheet, Device Status Register).
pub(super) const STATUS_TXOFF: u32 = 1 << 4;
/// Speed: 0 is 10 Mb/s, 1 is 100, 2 and 3 are 1,000.
pub(super) const STATUS_SPEED: u32 = 3 << 6;

/// VTFRTIMER: a free running timer in microseconds.
pub(super) const VTFRTIMER: usize = 0x1048;

/// VTEICS: sets interrupt causes, one bit a vector (all of the following have the same bits).
pub(super) const VTEICS: usize = 0x1520;
/// VTEIMS: lets causes interrupt; what is pending does so at once.
pub(super) const VTEIMS: usize = 0x1524;
/// VTEIMC: forbids it.
pub(super) const VTEIMC: usize = 0x1528;
/// VTEIAC: clears the cause when its message is sent.
pub(super) const VTEIAC: usize = 0x152c;
/// VTEIAM: forbids the cause when its message is sent.
pub(super) const VTEIAM: usize = 0x1530;
/// VTEICR: causes; a 1 that is written clears one.
pub(super) const VTEICR: usize = 0x1580;
/// VTEITR of each vector: the least time between two messages, in its bits 2 to 14 in microseconds.
pub(super) const fn vteitr(vector: usize) -> usize {
    0x1680 + 4 * vector
}
/// An interval of so many microseconds.
pub(super) const fn eitr_interval(us: u32) -> u32 {
    (us & 0x1fff) << 2
}
/// VTIVAR: which vector each queue signals, a byte each: receive 0, transmit 0, receive 1, transmit 1.
pub(super) const VTIVAR: usize = 0x1700;
/// VTIVAR_MISC: which vector the mailbox signals, in its lowest byte.
pub(super) const VTIVAR_MISC: usize = 0x1740;
/// What a byte of VTIVAR says if its vector is valid.
pub(super) const IVAR_VALID: u32 = 1 << 7;
/// MSI-X vectors of a VF.
pub(super) const VECTORS: usize = 3;

/// VMBMEM: the mailbox's memory, shared with the PF.
pub(super) const VMBMEM: usize = 0x0800;
/// Its words of 32 bits.
pub(super) const MAILBOX_WORDS: usize = 16;
/// V2PMAILBOX: the mailbox's flags (82576 datasheet, table 7-71).
pub(super) const V2PMAILBOX: usize = 0x0c40;
/// A message for the PF lies there. Written only.
pub(super) const V2P_REQ: u32 = 1;
/// The PF's message was read. Written only.
pub(super) const V2P_ACK: u32 = 1 << 1;
/// The VF has the memory.
pub(super) const V2P_VFU: u32 = 1 << 2;
/// The PF has the memory.
pub(super) const V2P_PFU: u32 = 1 << 3;
/// The PF wrote a message. Cleared by reading.
pub(super) const V2P_PFSTS: u32 = 1 << 4;
/// The PF has read ours. Cleared by reading.
pub(super) const V2P_PFACK: u32 = 1 << 5;
/// The PF is in reset.
pub(super) const V2P_RSTI: u32 = 1 << 6;
/// The PF's reset is done. Cleared by reading.
pub(super) const V2P_RSTD: u32 = 1 << 7;
/// What is cleared by reading.
pub(super) const V2P_R2C: u32 = V2P_PFSTS | V2P_PFACK | V2P_RSTD;

/// VFPSRTYPE: how packets are split (not at all), and receive queues in its two highest bits but one.
pub(super) const VFPSRTYPE: usize = 0x0f0c;

/// The registers of receive queue `queue`.
pub(super) const fn rx(queue: usize) -> usize {
    0x2800 + 0x100 * queue
}
/// The registers of transmit queue `queue`.
pub(super) const fn tx(queue: usize) -> usize {
    0x3800 + 0x100 * queue
}
/// RDBAL, TDBAL: the ring's address, lower half. From [`rx`] or [`tx`], as all the following.
pub(super) const BAL: usize = 0x00;
/// RDBAH, TDBAH: its upper half.
pub(super) const BAH: usize = 0x04;
/// RDLEN, TDLEN: its bytes, a multiple of 128.
pub(super) const LEN: usize = 0x08;
/// SRRCTL: the receive buffers.
pub(super) const SRRCTL: usize = 0x0c;
/// RDH, TDH: the descriptor that the device takes next.
pub(super) const HEAD: usize = 0x10;
/// RXCTL, TXCTL: cache hints and ordering of the queue's DMA.
pub(super) const DCA: usize = 0x14;
/// RDT, TDT: the first descriptor that the device may not take.
pub(super) const TAIL: usize = 0x18;
/// RXDCTL, TXDCTL: thresholds, and the switch.
pub(super) const DCTL: usize = 0x28;
/// TDWBAL, TDWBAH: where the head is written back to, if at all.
pub(super) const TDWBAL: usize = 0x38;
/// See [`TDWBAL`].
pub(super) const TDWBAH: usize = 0x3c;

/// SRRCTL: bytes of a receive buffer, in KiB.
pub(super) const SRRCTL_BSIZEPKT: u32 = 0x7f;
/// SRRCTL: advanced descriptors, one buffer.
pub(super) const SRRCTL_ADV_ONEBUF: u32 = 1 << 25;
/// SRRCTL: packets without a descriptor are dropped. Else they wait in the card, and everybody's behind them.
pub(super) const SRRCTL_DROP_EN: u32 = 1 << 31;

/// DCTL: the queue is on.
pub(super) const DCTL_ENABLE: u32 = 1 << 25;
/// DCTL's thresholds: descriptors fetched ahead, in the host, written back at once.
pub(super) const fn dctl_thresholds(prefetch: u32, host: u32, write_back: u32) -> u32 {
    prefetch & 0x1f | (host & 0x1f) << 8 | (write_back & 0x1f) << 16
}
/// TXCTL: a descriptor's write-back may overtake other writes.
pub(super) const DCA_WRITE_BACK_RELAXED: u32 = 1 << 11;

/// Counters of the VF: 32 bits that wrap and are never reset. Good packets received.
pub(super) const VFGPRC: usize = 0x0f10;
/// Good packets sent.
pub(super) const VFGPTC: usize = 0x0f14;
/// Good bytes received, FCS included.
pub(super) const VFGORC: usize = 0x0f18;
/// Good bytes sent, FCS included.
pub(super) const VFGOTC: usize = 0x0f34;
/// Multicast packets received.
pub(super) const VFMPRC: usize = 0x0f3c;
/// Packets received from another VF or the PF.
pub(super) const VFGPRLBC: usize = 0x0f40;
/// Packets sent to one.
pub(super) const VFGPTLBC: usize = 0x0f44;
/// Bytes received from one.
pub(super) const VFGORLBC: usize = 0x0f48;
/// Bytes sent to one.
pub(super) const VFGOTLBC: usize = 0x0f50;

/// Bytes of the BAR.
pub(super) const BAR_SIZE: usize = 0x4000;

const _: () = assert!(VMBMEM + 4 * MAILBOX_WORDS <= V2PMAILBOX);
const _: () = assert!(rx(1) + TDWBAH < tx(0) && tx(1) + TDWBAH < BAR_SIZE);
const _: () = assert!(rx(1) + TAIL == 0x2918 && tx(0) + DCTL == 0x3828);
const _: () = assert!(vteitr(VECTORS) < VTIVAR);
