//! GET_CONFIG and SET_CONFIG: the virtio-net configuration space (virtio 1.3 §5.1.4), as far as a back end knows it.
//!
//! CONFIG is not offered (see `features`), but reading does no harm: who asks gets an answer.

use zerocopy::IntoBytes;

use super::Session;
use super::message::{Message, Reply};
use super::trouble::{Malformed, Refusal, Trouble};
use crate::wire::message::{ConfigHead, MAX_CONFIG};

/// MAC address (the VMM's own affair: zero), status, max_virtqueue_pairs, mtu.
const CONFIG_LEN: usize = 12;
/// VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;

impl Session {
    /// A range outside of the configuration is answered by an empty payload: the specification's own way to say no.
    pub(super) fn get_config(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let head = config_head(m)?;
        let config = self.config_space();
        let range = config.get(head.offset as usize..).and_then(|rest| rest.get(..head.size as usize));
        Ok(Reply::Bytes(match range {
            Some(bytes) => [head.as_bytes(), bytes].concat(),
            None => Vec::new(),
        }))
    }

    pub(super) fn set_config(&mut self, m: &Message) -> Result<Reply, Trouble> {
        config_head(m)?;
        Err(Refusal::ReadOnlyConfig.into())
    }

    fn config_space(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        config[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        config[8..10].copy_from_slice(&self.offer.pairs.to_le_bytes());
        config[10..12].copy_from_slice(&self.mtu.unwrap_or(self.offer.max_mtu).to_le_bytes());
        config
    }
}

/// The head, if as many bytes follow as it says.
fn config_head(m: &Message) -> Result<ConfigHead, Malformed> {
    m.no_fds()?;
    let (head, rest) = m.payload_head::<ConfigHead>()?;
    let want = head.size as usize;
    if rest.len() == want && want <= MAX_CONFIG {
        Ok(head)
    } else {
        Err(Malformed::PayloadSize { got: rest.len(), want })
    }
}
