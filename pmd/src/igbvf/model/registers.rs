//! What the model's registers do when they are read and written.

use super::pf::Mood;
use super::vf::Vf;
use crate::igbvf::regs::{
    self, BAH, BAL, BAR_SIZE, DCTL, DCTL_ENABLE, LEN, MAILBOX_WORDS, TAIL, V2P_PFACK, V2P_PFSTS, V2P_PFU,
    V2P_R2C, V2P_REQ, V2P_VFU, V2PMAILBOX, VMBMEM, VTCTRL, VTCTRL_RST, VTEIAC, VTEICR, VTEICS, VTEIMC,
    VTEIMS, VTFRTIMER, VTIVAR_MISC, VTSTATUS,
};

impl Vf {
    pub(super) fn read(&mut self, offset: usize) -> u32 {
        if offset >= BAR_SIZE || !offset.is_multiple_of(4) {
            self.offend(format!("read of register {offset:#x}"));
            return u32::MAX;
        }
        if let Some(word) = mailbox_word(offset) {
            return self.mailbox[word];
        }
        let value = *self.register(offset);
        if offset == V2PMAILBOX {
            *self.register(V2PMAILBOX) &= !V2P_R2C;
        }
        value
    }

    /// Returns frames that left by it.
    pub(super) fn write(&mut self, offset: usize, value: u32) -> Vec<Vec<u8>> {
        if offset >= BAR_SIZE || !offset.is_multiple_of(4) {
            self.offend(format!("write of register {offset:#x}"));
            return Vec::new();
        }
        if let Some(word) = mailbox_word(offset) {
            self.write_mailbox(word, value);
            return Vec::new();
        }
        match offset {
            VTSTATUS | VTFRTIMER => self.offend("a read-only register was written"),
            VTCTRL if value & VTCTRL_RST != 0 => self.reset_queues(),
            V2PMAILBOX => self.write_mailbox_flags(value),
            VTEIMS => {
                *self.register(VTEIMS) |= value;
                self.signal();
            }
            VTEIMC => *self.register(VTEIMS) &= !value,
            VTEICR => *self.register(VTEICR) &= !value,
            VTEICS => self.raise(value),
            _ => return self.write_queue(offset, value),
        }
        Vec::new()
    }

    fn write_queue(&mut self, offset: usize, value: u32) -> Vec<Vec<u8>> {
        let queue_at = [regs::rx(0), regs::rx(1), regs::tx(0), regs::tx(1)];
        let queue = queue_at.iter().find(|at| (**at..**at + 0x40).contains(&offset));
        if let Some(at) = queue
            && [BAL, BAH, LEN].contains(&(offset - at))
            && *self.register(at + DCTL) & DCTL_ENABLE != 0
        {
            self.offend("a ring was moved under a queue that is on");
        }
        let stays_off = self.queues_stay_off && queue.is_some_and(|at| offset == at + DCTL);
        *self.register(offset) = if stays_off { value & !DCTL_ENABLE } else { value };
        let doorbell = (0..2).find(|&q| offset == regs::tx(q) + TAIL);
        doorbell.map(|queue| self.transmit(queue)).unwrap_or_default()
    }

    fn write_mailbox(&mut self, word: usize, value: u32) {
        if *self.register(V2PMAILBOX) & V2P_VFU == 0 {
            return self.offend("the mailbox was written without having it");
        }
        self.mailbox[word] = value;
    }

    fn write_mailbox_flags(&mut self, value: u32) {
        if self.pf.mood == Mood::HoldsTheMailbox {
            *self.register(V2PMAILBOX) |= V2P_PFU;
        }
        let is_held = *self.register(V2PMAILBOX) & V2P_PFU != 0;
        if value & V2P_VFU != 0 && !is_held {
            *self.register(V2PMAILBOX) |= V2P_VFU;
        } else if value & V2P_VFU == 0 {
            *self.register(V2PMAILBOX) &= !V2P_VFU;
        }
        if value & V2P_REQ != 0 {
            self.hear();
        }
        if value & V2P_VFU == 0 && core::mem::take(&mut self.ping_waits) {
            self.ping();
        }
    }

    /// The PF takes a message.
    fn hear(&mut self) {
        if self.pf.mood == Mood::Silent {
            return;
        }
        let words: [u32; MAILBOX_WORDS] = self.mailbox;
        *self.register(V2PMAILBOX) |= V2P_PFACK;
        if let Some(reply) = self.pf.answer(&words) {
            self.mailbox[..3].copy_from_slice(&reply);
            *self.register(V2PMAILBOX) |= V2P_PFSTS;
        }
        self.signal_mailbox();
    }

    /// The PF says something unasked.
    pub fn ping(&mut self) {
        if *self.register(V2PMAILBOX) & V2P_VFU != 0 {
            self.ping_waits = true;
            return;
        }
        self.mailbox[0] = self.pf.ping();
        *self.register(V2PMAILBOX) |= V2P_PFSTS;
        self.signal_mailbox();
    }

    fn signal_mailbox(&mut self) {
        let entry = *self.register(VTIVAR_MISC);
        self.raise_entry(entry);
    }

    /// Raises the cause that a byte of VTIVAR names.
    pub(super) fn raise_entry(&mut self, entry: u32) {
        if entry & regs::IVAR_VALID != 0 {
            self.raise(1 << (entry & 3));
        }
    }

    /// Raises all causes for no reason.
    pub fn storm(&mut self) {
        self.raise((1 << regs::VECTORS) - 1);
    }

    fn raise(&mut self, causes: u32) {
        *self.register(VTEICR) |= causes;
        self.signal();
    }

    /// Sends the messages of pending causes that may interrupt.
    fn signal(&mut self) {
        let pending = *self.register(VTEICR) & *self.register(VTEIMS);
        let clears = *self.register(VTEIAC);
        *self.register(VTEICR) &= !(pending & clears);
        for vector in (0..regs::VECTORS).filter(|v| pending & 1 << v != 0) {
            self.interrupts[vector] += 1;
            if let Some(event) = self.events.get(vector).filter(|_| !self.loses_interrupts) {
                // Full: signalled enough.
                let _ = rustix::io::write(event, &1u64.to_ne_bytes());
            }
        }
    }
}

fn mailbox_word(offset: usize) -> Option<usize> {
    let word = offset.checked_sub(VMBMEM)? / 4;
    (word < MAILBOX_WORDS).then_some(word)
}
