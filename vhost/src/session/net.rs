//! GET_QUEUE_NUM, NET_SET_MTU, SEND_RARP.

use super::Session;
use super::message::{Message, Reply};
use super::trouble::{Refusal, Trouble};
use crate::wire::message::protocol;

/// The least MTU of IPv4 (RFC 791).
pub(crate) const MIN_MTU: u16 = 68;

impl Session {
    /// The specification says "queues" and leaves open which. QEMU takes the answer for pairs and checks that it wants no
    /// more; rust-vmm's front ends (Cloud Hypervisor) take it for rings and do the same. So these are rings: right for
    /// the second, and enough for the first, who will hear of a ring too many when it names one.
    pub(super) fn get_queue_num(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        Ok(Reply::U64(self.rings.len() as u64))
    }

    pub(super) fn net_set_mtu(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let mtu: u64 = m.payload()?;
        self.require(protocol::F_MTU, "MTU")?;
        let max = self.offer.max_mtu;
        let fits = u16::try_from(mtu).ok().filter(|mtu| (MIN_MTU..=max).contains(mtu));
        self.mtu = Some(fits.ok_or(Refusal::Mtu { mtu, min: MIN_MTU, max })?);
        Ok(Reply::Done)
    }

    /// The announcement goes through the switch as a frame of this guest: its port's policies apply.
    pub(super) fn send_rarp(&mut self, m: &Message) -> Result<Reply, Trouble> {
        // The address stands in the first six bytes of the u64 in memory.
        let [a, b, c, d, e, f, _, _]: [u8; 8] = m.payload()?;
        self.require(protocol::F_RARP, "RARP")?;
        let mac = [a, b, c, d, e, f];
        if a & 1 != 0 || mac == [0; 6] {
            return Err(Refusal::Mac(mac).into());
        }
        self.announce.post(mac);
        self.slots.iter().for_each(|slot| slot.nudge());
        Ok(Reply::Done)
    }
}
