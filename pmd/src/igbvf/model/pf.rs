//! The model's PF: the other end of the mailbox.

use crate::igbvf::mailbox::{
    ACK, CTS, NACK, PF_CONTROL_MSG, PROMISC_UNICAST, VF_RESET, VF_SET_LPE, VF_SET_MAC_ADDR, VF_SET_MULTICAST,
    VF_SET_PROMISC, VF_SET_VLAN,
};
use crate::igbvf::regs::MAILBOX_WORDS;

/// How a PF treats its VF's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Reads and answers.
    #[default]
    Answers,
    /// Does neither.
    Silent,
    /// Reads, and never answers.
    OnlyReads,
    /// Refuses whatever it is asked but the reset.
    Refuses,
    /// Holds the mailbox and does not let go.
    HoldsTheMailbox,
    /// Answers so many messages, and then forgets the VF, as one that was reset.
    ForgetsAfter(u32),
}

/// A PF, as far as a VF sees it.
#[derive(Clone, Debug)]
pub struct Pf {
    /// How it treats messages.
    pub mood: Mood,
    /// The MAC that it has for the VF.
    pub mac: Option<[u8; 6]>,
    /// Whether the VF may receive what is for others.
    pub grants_unicast: bool,
    /// Whether it knows the message that asks for that, and for all multicast.
    pub knows_promiscuous: bool,
    /// Longest frame that it grants, FCS and tags included.
    pub longest: u32,
    /// All that it was asked, kind and first word.
    pub asked: Vec<[u32; 2]>,
    /// Whether it knows the VF's driver: set by a reset message.
    pub knows_vf: bool,
    /// The MAC that the VF asked for.
    pub vf_mac: Option<[u8; 6]>,
    /// Longest frame that the VF asked for.
    pub vf_longest: u32,
    /// VLANs that it asked for.
    pub vlans: Vec<u16>,
}

impl Pf {
    pub(super) fn new(n: u8) -> Self {
        Self {
            mood: Mood::Answers,
            mac: Some([2, 0, 0, 0, 0, n]),
            grants_unicast: false,
            knows_promiscuous: true,
            longest: 16_128,
            asked: Vec::new(),
            knows_vf: false,
            vf_mac: None,
            vf_longest: 1522,
            vlans: Vec::new(),
        }
    }

    /// Forgets the VF's driver and all that it asked for.
    pub(super) fn forget(&mut self) {
        self.knows_vf = false;
        self.vf_mac = None;
        self.vf_longest = 1522;
        self.vlans.clear();
    }

    /// What it says unasked.
    pub(super) fn ping(&self) -> u32 {
        PF_CONTROL_MSG | if self.knows_vf { CTS } else { 0 }
    }

    /// Answers a message; none: it does not.
    pub(super) fn answer(&mut self, words: &[u32; MAILBOX_WORDS]) -> Option<[u32; 3]> {
        self.asked.push([words[0], words[1]]);
        match &mut self.mood {
            Mood::Silent | Mood::OnlyReads | Mood::HoldsTheMailbox => return None,
            Mood::ForgetsAfter(0) => {
                self.mood = Mood::Answers;
                self.forget();
            }
            Mood::ForgetsAfter(left) => *left -= 1,
            Mood::Answers | Mood::Refuses => {}
        }
        if words[0] == VF_RESET {
            return Some(self.answer_reset());
        }
        if !self.knows_vf {
            return Some([NACK, 0, 0]);
        }
        let granted = self.mood != Mood::Refuses && self.grant(words);
        Some([words[0] | CTS | if granted { ACK } else { NACK }, words[1], words[2]])
    }

    fn answer_reset(&mut self) -> [u32; 3] {
        self.forget();
        self.knows_vf = true;
        let Some([a, b, c, d, e, f]) = self.mac else { return [VF_RESET | NACK, 0, 0] };
        [VF_RESET | ACK, u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0])]
    }

    fn grant(&mut self, words: &[u32; MAILBOX_WORDS]) -> bool {
        match words[0] & 0xffff {
            VF_SET_MAC_ADDR if self.mac.is_none() => {
                let [a, b, c, d] = words[1].to_le_bytes();
                let [e, f, ..] = words[2].to_le_bytes();
                self.vf_mac = Some([a, b, c, d, e, f]);
                true
            }
            VF_SET_LPE if words[1] <= self.longest => {
                self.vf_longest = words[1];
                true
            }
            VF_SET_VLAN => {
                self.vlans.push(words[1] as u16);
                true
            }
            VF_SET_PROMISC => {
                self.knows_promiscuous && (words[0] & PROMISC_UNICAST == 0 || self.grants_unicast)
            }
            VF_SET_MULTICAST => true,
            _ => false,
        }
    }
}
