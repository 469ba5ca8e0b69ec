//! SET_LOG_BASE and SET_LOG_FD: messages of live migration, which is not offered yet.

use super::Session;
use super::message::{Message, Reply};
use super::trouble::{Malformed, Refusal, Trouble};

impl Session {
    /// LOG_SHMFD was not offered, so there is no log to be had. The descriptor is closed.
    pub(super) fn set_log_base(&mut self, m: &Message) -> Result<Reply, Trouble> {
        if m.fds.len() > 1 {
            return Err(Malformed::Descriptors { got: m.fds.len(), want: 1 }.into());
        }
        Err(Refusal::NotNegotiated("LOG_SHMFD").into())
    }

    /// Optional, says the specification: it would be told of log writes. There are none; the descriptor is closed.
    pub(super) fn set_log_fd(&mut self, m: &mut Message) -> Result<Reply, Trouble> {
        m.no_payload()?;
        m.one_fd()?;
        Ok(Reply::Done)
    }
}
