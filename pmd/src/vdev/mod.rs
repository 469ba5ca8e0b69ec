//! Ports that need neither a NIC nor a guest.
//!
//! | kind | specification | what it is |
//! |---|---|---|
//! | [`null`] | `null` | gives nothing, discards everything |
//! | [`loopback`] | `loopback` | gives back what is sent to it; in code also as a pair of ports, joined back to back |
//! | [`pcap`] | `pcap:[rx=FILE][,tx=FILE][,loop]` | reads a capture, writes a capture |
//! | [`tap`] | `tap:IFACE[,queues=N]` | a network interface of the kernel's, as a guest would have one |
//! | [`af_packet`] | `af_packet:IFACE[,queues=N]` | an interface that exists already, by packet sockets |
//! | [`af_xdp`] | `af_xdp:IFACE[,queues=N][,zero_copy\|copy]` | the same, by AF_XDP sockets: faster, and the host's stack gets nothing |
//!
//! Null and loopback make no system calls; AF_XDP one at the end of a burst, where the kernel asks for it. Pcap, TAP and AF_PACKET live by them, in bursts where the kernel has such a
//! call: they are for tests, for the host's own traffic and for interfaces that have nothing better, not for line rate.

pub mod af_packet;
pub mod af_xdp;
mod burst;
mod ethtool;
mod frame;
mod interface;
mod life;
pub mod loopback;
pub mod null;
pub mod pcap;
mod spec;
pub mod tap;

pub(crate) use burst::{Fate, count, send_each};
pub(crate) use frame::{MAX_FRAME, MIN_FRAME};

use crate::{Port, PortError};

/// The kinds of this module, each with its specification's form.
pub const KINDS: &[(&str, &str)] = &[
    ("null", "null"),
    ("loopback", "loopback"),
    ("pcap", "pcap:[rx=FILE][,tx=FILE][,loop]"),
    ("tap", "tap:IFACE[,queues=N]"),
    ("af_packet", "af_packet:IFACE[,queues=N]"),
    ("af_xdp", "af_xdp:IFACE[,queues=N][,zero_copy|copy]"),
];

/// Makes the port that a specification names: `kind` is what stands before its first colon, `rest` what stands behind.
///
/// # Errors
/// [`PortError::Spec`] if it is wrong: says what would be right; [`PortError::Os`] if the system refuses.
pub fn from_spec(kind: &str, rest: &str) -> Result<Box<dyn Port>, PortError> {
    Ok(match kind {
        "null" => {
            spec::nothing("null", rest)?;
            Box::new(null::NullPort::new())
        }
        "loopback" => {
            spec::nothing("loopback", rest)?;
            Box::new(loopback::LoopbackPort::to_itself(loopback::DEFAULT_CAPACITY)?)
        }
        "pcap" => Box::new(pcap::PcapPort::new(&rest.parse()?)?),
        "tap" => Box::new(tap::TapPort::new(&rest.parse()?)?),
        "af_packet" => Box::new(af_packet::AfPacketPort::new(&rest.parse()?)?),
        "af_xdp" => af_xdp::port(&rest.parse()?)?,
        _ => return Err(unknown(kind)),
    })
}

fn unknown(kind: &str) -> PortError {
    let forms: Vec<_> = KINDS.iter().map(|(_, form)| *form).collect();
    PortError::Spec(format!("no port kind \"{kind}\" here; there are: {}", forms.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: &str, rest: &str) -> String {
        from_spec(kind, rest).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn specifications_that_are_wrong_say_what_would_be_right() {
        assert!(refusal("tun", "x").contains("tap:IFACE[,queues=N]"));
        assert!(refusal("null", "x").contains("takes nothing"));
        assert!(refusal("tap", "").contains("tap:IFACE"));
        assert!(refusal("tap", "a-name-far-too-long").contains("15 bytes"));
        assert!(refusal("tap", "t0,queues=0").contains("1 to 16"));
        assert!(refusal("tap", "t0,queue=2").contains("queues"));
        assert!(refusal("af_packet", "e/0").contains("e/0"));
        assert!(refusal("af_xdp", "e0,queues=17").contains("1 to 16"));
        assert!(refusal("af_xdp", "e0,fast").contains("zero_copy|copy"));
        assert!(refusal("af_xdp", "e0,zero_copy,copy").contains("one of"));
        assert!(refusal("pcap", "").contains("rx=FILE"));
        assert!(refusal("pcap", "rx=/no/such/file").contains("/no/such/file"));
        assert!(refusal("pcap", "tx=a,loop").contains("loop"));
    }

    #[test]
    fn the_kinds_without_a_system_are_made() {
        assert_eq!(from_spec("null", "").unwrap().kind(), "null");
        assert_eq!(from_spec("loopback", "").unwrap().kind(), "loopback");
    }
}
