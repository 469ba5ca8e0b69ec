//! SET_OWNER, RESET_OWNER, RESET_DEVICE, SET_STATUS, GET_STATUS.

use super::Session;
use super::message::{Message, Reply};
use super::ring::Ring;
use super::trouble::{Refusal, Trouble};
use crate::wire::message::protocol;

impl Session {
    /// The session has an owner already: who holds the connection.
    pub(super) fn set_owner(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        Ok(Reply::Done)
    }

    /// Deprecated: back ends differ in what they do. This one stops and disables the rings, and keeps the rest.
    pub(super) fn reset_owner(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        self.reset_rings();
        Ok(Reply::Done)
    }

    /// Rings as they were at the beginning; features, memory and the session stay.
    pub(super) fn reset_device(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        self.require(protocol::F_RESET_DEVICE, "RESET_DEVICE")?;
        self.reset_rings();
        self.status = 0;
        Ok(Reply::Done)
    }

    /// Status 0 is the driver's reset: the rings stop. (Whether they are enabled is the front end's own affair, and stays.)
    pub(super) fn set_status(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let value: u64 = m.payload()?;
        self.require(protocol::F_STATUS, "STATUS")?;
        self.status = u8::try_from(value).map_err(|_| Refusal::Value(value))?;
        if self.status == 0 {
            (0..self.rings.len()).for_each(|i| self.clear_ring(i));
        }
        Ok(Reply::Done)
    }

    pub(super) fn get_status(&mut self, m: &Message) -> Result<Reply, Trouble> {
        m.empty()?;
        Ok(Reply::U64(self.status.into()))
    }

    fn reset_rings(&mut self) {
        for i in 0..self.rings.len() {
            self.stop_ring(i);
            self.rings[i] = Ring::default();
        }
    }
}
