//! The mailbox: how a VF asks its PF for what only the PF may do, and hears of resets and the link.
//!
//! One memory of 64 bytes serves both directions; whoever writes or reads it has to own it (VFU, PFU). A request goes:
//! lock, write, REQ; the PF reads it and answers with PFACK; later the PF writes its reply and PFSTS; lock, read, ACK.
//! (82576 datasheet, table 7-71; the messages are a convention between Intel's PF and VF drivers.)
//! A message may come unasked at any time: the PF pings its VFs when its link changes or when it was reset. Each message
//! carries CTS ("clear to send") as long as the PF knows this VF's driver; one without it means that the PF has forgotten
//! all that it was asked for, and the VF starts over.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::regs::{
    MAILBOX_WORDS, V2P_ACK, V2P_PFACK, V2P_PFSTS, V2P_R2C, V2P_REQ, V2P_RSTD, V2P_RSTI, V2P_VFU, V2PMAILBOX,
    VMBMEM,
};
use crate::bus::{BusError, Registers};
use crate::nic::NicError;

/// Kinds of messages, in their lower 16 bits.
pub(super) const VF_RESET: u32 = 0x01;
pub(super) const VF_SET_MAC_ADDR: u32 = 0x02;
pub(super) const VF_SET_MULTICAST: u32 = 0x03;
pub(super) const VF_SET_VLAN: u32 = 0x04;
pub(super) const VF_SET_LPE: u32 = 0x05;
pub(super) const VF_SET_PROMISC: u32 = 0x06;
pub(super) const PF_CONTROL_MSG: u32 = 0x0100;
const KIND: u32 = 0xffff;
/// More about a message, in its next 8 bits.
pub(super) const INFO_SHIFT: u32 = 16;
/// VF_SET_VLAN: the VLAN is added, not taken away.
pub(super) const VLAN_ADD: u32 = 1 << INFO_SHIFT;
/// VF_SET_MULTICAST: there are more groups than the message can name.
pub(super) const MULTICAST_OVERFLOW: u32 = 0x80 << INFO_SHIFT;
/// VF_SET_PROMISC: all unicast, all multicast.
pub(super) const PROMISC_UNICAST: u32 = 1 << INFO_SHIFT;
pub(super) const PROMISC_MULTICAST: u32 = 2 << INFO_SHIFT;
/// A reply: done, or refused. CTS: see above.
pub(super) const ACK: u32 = 1 << 31;
pub(super) const NACK: u32 = 1 << 30;
pub(super) const CTS: u32 = 1 << 29;

/// What a PF that works needs, with its host under load, many times over.
const PATIENCE: Duration = Duration::from_millis(1000);
/// The memory is held by the PF for as long as it writes 16 words.
const LOCK_PATIENCE: Duration = Duration::from_millis(20);
const NO_ANSWER: &str = "; is the PF up (`ip link set PF up`) and under its kernel driver?";

/// What the mailbox had to say, unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing of importance.
    None,
    /// The PF was or is being reset, or has forgotten us: start over.
    StartOver(&'static str),
    /// The device answers all ones.
    Gone,
}

/// A VF's end.
pub(super) struct Mailbox<B> {
    bar: Arc<B>,
    device: String,
    /// Flags that reading has cleared in the register and nobody has asked for yet.
    latched: u32,
    patience: Duration,
}

impl<B: Registers> Mailbox<B> {
    pub(super) fn new(bar: Arc<B>, device: String) -> Self {
        Self { bar, device, latched: 0, patience: PATIENCE }
    }

    /// Has it wait for so long.
    #[cfg(test)]
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The flags, those that reading clears included until they are taken.
    fn flags(&mut self) -> Result<u32, NicError> {
        match self.bar.read32(V2PMAILBOX) {
            u32::MAX => Err(self.gone()),
            now => {
                self.latched |= now & V2P_R2C;
                Ok(now | self.latched)
            }
        }
    }

    fn gone(&self) -> NicError {
        BusError::Gone(self.device.clone()).into()
    }

    fn timeout(&self, what: impl Into<String>) -> NicError {
        let within_ms = self.patience.as_millis() as u64;
        NicError::Timeout { device: self.device.clone(), what: what.into(), within_ms, hint: NO_ANSWER }
    }

    /// Waits until `done` says so of the flags; false if it never did.
    fn wait(&mut self, patience: Duration, done: impl Fn(u32) -> bool) -> Result<bool, NicError> {
        let end = Instant::now() + patience;
        loop {
            if done(self.flags()?) {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            sleep(Duration::from_micros(50));
        }
    }

    /// Waits for a flag that reading clears, and takes it.
    fn take(&mut self, flag: u32, what: &str) -> Result<(), NicError> {
        if !self.wait(self.patience, |flags| flags & flag != 0)? {
            return Err(self.timeout(what));
        }
        self.latched &= !flag;
        Ok(())
    }

    fn lock(&mut self) -> Result<bool, NicError> {
        let end = Instant::now() + LOCK_PATIENCE;
        loop {
            self.bar.write32(V2PMAILBOX, V2P_VFU);
            if self.flags()? & V2P_VFU != 0 {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            sleep(Duration::from_micros(10));
        }
    }

    fn lock_or_fail(&mut self) -> Result<(), NicError> {
        if self.lock()? { Ok(()) } else { Err(self.timeout("let go of the mailbox")) }
    }

    /// Writes a message and waits until the PF has read it.
    fn send(&mut self, message: &[u32]) -> Result<(), NicError> {
        self.lock_or_fail()?;
        // Whatever was there is overwritten.
        self.latched &= !(V2P_PFSTS | V2P_PFACK);
        for (i, word) in message.iter().enumerate() {
            self.bar.write32(VMBMEM + 4 * i, *word);
        }
        // Gives the memory back, too.
        self.bar.write32(V2PMAILBOX, V2P_REQ);
        self.take(V2P_PFACK, "read a message to its PF")
    }

    /// Reads a message that PFSTS announced.
    fn receive(&mut self) -> Result<[u32; 3], NicError> {
        self.lock_or_fail()?;
        let message = [0, 1, 2].map(|i| self.bar.read32(VMBMEM + 4 * i));
        self.bar.write32(V2PMAILBOX, V2P_ACK);
        Ok(message)
    }

    /// Sends a message and waits for the reply to it: its words, and whether it was granted.
    fn request(&mut self, message: &[u32], what: &str) -> Result<([u32; 3], bool), NicError> {
        let kind = message[0] & KIND;
        debug_assert!(message.len() <= MAILBOX_WORDS);
        self.send(message)?;
        let end = Instant::now() + self.patience;
        while Instant::now() < end {
            self.take(V2P_PFSTS, what)?;
            let reply = self.receive()?;
            if reply[0] & KIND == kind && reply[0] & (ACK | NACK) != 0 {
                return Ok((reply, reply[0] & NACK == 0));
            }
            // A ping that crossed our way. One without CTS is heard of again: the PF will refuse what comes next.
        }
        Err(self.timeout(what))
    }

    /// Waits until the PF is out of reset.
    pub(super) fn wait_for_pf(&mut self) -> Result<(), NicError> {
        self.latched = 0;
        if self.wait(self.patience, |flags| flags & V2P_RSTI == 0)? {
            self.latched = 0;
            return Ok(());
        }
        Err(self.timeout("come out of its PF's reset"))
    }

    /// Tells the PF that this VF was reset; returns the MAC that the PF has for it, if it has one.
    pub(super) fn reset(&mut self) -> Result<Option<[u8; 6]>, NicError> {
        let (reply, granted) = self.request(&[VF_RESET], "hear from its PF after a reset")?;
        let [a, b, c, d] = reply[1].to_le_bytes();
        let [e, f, ..] = reply[2].to_le_bytes();
        let mac = [a, b, c, d, e, f];
        let is_one = mac != [0; 6] && mac[0] & 1 == 0;
        Ok((granted && is_one).then_some(mac))
    }

    /// Asks for a MAC of our own; whether we may have it.
    pub(super) fn set_mac(&mut self, mac: [u8; 6]) -> Result<bool, NicError> {
        let [a, b, c, d, e, f] = mac;
        let words = [VF_SET_MAC_ADDR, u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0])];
        Ok(self.request(&words, "have its PF set a MAC")?.1)
    }

    /// Asks to receive frames of up to `bytes`, FCS included; whether we do.
    pub(super) fn set_max_frame(&mut self, bytes: u32) -> Result<bool, NicError> {
        Ok(self.request(&[VF_SET_LPE, bytes], "have its PF set the frame size")?.1)
    }

    /// Asks to receive all packets of these kinds; whether we do.
    pub(super) fn set_promiscuous(&mut self, kinds: u32) -> Result<bool, NicError> {
        Ok(self.request(&[VF_SET_PROMISC | kinds], "have its PF set promiscuous mode")?.1)
    }

    /// The older way to ask for all multicast: more groups than could be named.
    pub(super) fn set_all_multicast(&mut self) -> Result<bool, NicError> {
        let mut message = [0; MAILBOX_WORDS];
        message[0] = VF_SET_MULTICAST | MULTICAST_OVERFLOW;
        Ok(self.request(&message, "have its PF set multicast")?.1)
    }

    /// Asks to receive a VLAN; whether we do.
    pub(super) fn add_vlan(&mut self, vlan: u16) -> Result<bool, NicError> {
        Ok(self.request(&[VF_SET_VLAN | VLAN_ADD, vlan.into()], "have its PF add a VLAN")?.1)
    }

    /// Looks what came in unasked. Waits 20 ms at most.
    pub(super) fn news(&mut self) -> News {
        match self.try_news() {
            Ok(news) => news,
            Err(NicError::Bus(BusError::Gone(_))) => News::Gone,
            // Not let go of: the PF is stuck in the middle of a message, and will be asked again at the next look.
            Err(_) => News::None,
        }
    }

    fn try_news(&mut self) -> Result<News, NicError> {
        let flags = self.flags()?;
        self.latched &= !(V2P_RSTD | V2P_PFACK);
        if flags & V2P_RSTI != 0 {
            return Ok(News::StartOver("the PF is in reset"));
        }
        if flags & V2P_RSTD != 0 {
            return Ok(News::StartOver("the PF was reset"));
        }
        if flags & V2P_PFSTS == 0 || !self.lock()? {
            return Ok(News::None);
        }
        self.latched &= !V2P_PFSTS;
        let message = self.bar.read32(VMBMEM);
        self.bar.write32(V2PMAILBOX, V2P_ACK);
        let forgotten = message & CTS == 0 && (message & NACK != 0 || message & KIND == PF_CONTROL_MSG);
        Ok(if forgotten { News::StartOver("the PF has forgotten this VF") } else { News::None })
    }
}
