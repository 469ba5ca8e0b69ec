//! What `polder port show` tells of a session.

use super::Session;
use crate::vring::Fault;
use crate::wire::{message::protocol, net};

const FEATURES: &[(u64, &str)] = &[
    (net::F_VERSION_1, "VERSION_1"),
    (net::F_MRG_RXBUF, "MRG_RXBUF"),
    (net::F_MQ, "MQ"),
    (net::F_INDIRECT_DESC, "INDIRECT_DESC"),
    (net::F_EVENT_IDX, "EVENT_IDX"),
    (net::F_IN_ORDER, "IN_ORDER"),
    (net::F_RING_PACKED, "RING_PACKED"),
    (net::F_ANY_LAYOUT, "ANY_LAYOUT"),
    (net::F_CSUM, "CSUM"),
    (net::F_GUEST_CSUM, "GUEST_CSUM"),
    (net::F_HOST_TSO4, "HOST_TSO4"),
    (net::F_HOST_TSO6, "HOST_TSO6"),
    (net::F_HOST_ECN, "HOST_ECN"),
    (net::F_HOST_USO, "HOST_USO"),
    (net::F_GUEST_TSO4, "GUEST_TSO4"),
    (net::F_GUEST_TSO6, "GUEST_TSO6"),
    (net::F_GUEST_ECN, "GUEST_ECN"),
    (net::F_GUEST_USO4, "GUEST_USO4"),
    (net::F_GUEST_USO6, "GUEST_USO6"),
    (net::F_MTU, "MTU"),
    (net::F_CTRL_VQ, "CTRL_VQ"),
    (net::F_CTRL_RX, "CTRL_RX"),
    (net::F_GUEST_ANNOUNCE, "GUEST_ANNOUNCE"),
    (net::F_PROTOCOL_FEATURES, "PROTOCOL_FEATURES"),
];

const PROTOCOL_FEATURES: &[(u64, &str)] = &[
    (protocol::F_MQ, "MQ"),
    (protocol::F_REPLY_ACK, "REPLY_ACK"),
    (protocol::F_MTU, "MTU"),
    (protocol::F_RARP, "RARP"),
    (protocol::F_CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS"),
    (protocol::F_RESET_DEVICE, "RESET_DEVICE"),
    (protocol::F_STATUS, "STATUS"),
];

impl Session {
    /// Name and value, most telling first.
    pub(crate) fn details(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("front end", self.peer_line())];
        if self.peer.is_some() {
            lines.push(("memory", self.memory.summary().to_string()));
            lines.push(("rings", self.rings_line()));
            lines.push(("ring format", if self.is_packed() { "packed" } else { "split" }.into()));
            lines.push(("features", names(self.features(), FEATURES)));
            lines.push(("protocol features", names(self.protocol_features, PROTOCOL_FEATURES)));
            lines.push(("status", format!("{:#04x}", self.status)));
        }
        if let Some(mtu) = self.mtu {
            lines.push(("mtu", mtu.to_string()));
        }
        lines.extend(self.call_lines());
        lines.extend(self.tally.iter().map(|(&name, n)| (name, n.to_string())));
        lines
    }

    /// Who calls the guest, if that was ever a question.
    fn call_lines(&self) -> Vec<(&'static str, String)> {
        let stats = self.slots[0].notifier().port().stats();
        let mut lines = Vec::new();
        if stats.is_away {
            let longest = stats.longest;
            lines.push((
                "calls",
                format!("made by the control thread: the front end's eventfd took {longest:.1?}"),
            ));
        }
        let counts = [("slow_calls", stats.slow), ("calls_handed_over", stats.handed_over)];
        lines.extend(counts.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name, n.to_string())));
        lines
    }

    fn peer_line(&self) -> String {
        self.peer.map_or_else(
            || "not connected".into(),
            |peer| format!("connected, pid {} uid {}", peer.pid, peer.uid),
        )
    }

    fn rings_line(&self) -> String {
        let lines: Vec<_> = (0..self.rings.len()).filter_map(|i| self.ring_words(i)).collect();
        if lines.is_empty() { "none".into() } else { lines.join(", ") }
    }

    /// One ring's state, if anything was said of it.
    fn ring_words(&self, i: usize) -> Option<String> {
        let size = self.rings[i].size?;
        let state = match (self.rings[i].running, self.slots[i].fault()) {
            (false, _) => "stopped",
            (true, Some(fault)) => Fault::name(fault),
            (true, None) if self.ring_is_enabled(i) => "running",
            (true, None) => "disabled",
        };
        let side = if i.is_multiple_of(2) { "rx" } else { "tx" };
        Some(format!("{side}{} {state} size {size}", i / 2))
    }
}

fn names(bits: u64, table: &[(u64, &str)]) -> String {
    let names: Vec<_> = table.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::features;

    #[test]
    fn everything_offered_has_a_name() {
        let named = |table: &[(u64, &str)]| table.iter().fold(0, |bits, (bit, _)| bits | bit);
        assert_eq!(features::DEVICE & !named(FEATURES), 0);
        assert_eq!(features::PROTOCOL, named(PROTOCOL_FEATURES));
    }
}
