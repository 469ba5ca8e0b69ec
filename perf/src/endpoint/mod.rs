//! Who sends and receives: a guest's driver, or any port.

mod guest;
mod port;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use hdrhistogram::Histogram;
use vhost::driver::NetHdr;
use vhost::driver::traffic::Tally;

use vhost::wire::net::GSO_NONE;

use crate::probe::{Extent, Layout};

pub use guest::{GuestOptions, GuestSpec};
pub use port::open_port;

/// Longest latency that is told apart, in ns; longer ones count as this.
const LONGEST_NS: u64 = 10_000_000_000;

/// What an endpoint is, as a command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSpec {
    /// A guest's driver on a vhost-user socket: a path, or `guest:PATH[,queues=N]`.
    Guest(GuestSpec),
    /// Any other port, by its specification: `vfio:BDF`, `tap:IFACE` ...
    Port(String),
}

impl FromStr for EndpointSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("guest", rest)) => Ok(Self::Guest(rest.parse()?)),
            _ if text.starts_with(['/', '.']) => Ok(Self::Guest(text.parse()?)),
            _ if text.is_empty() => {
                Err("give a vhost-user socket's path, or a port such as tap:IFACE".into())
            }
            // Which kinds there are is known where ports are made.
            _ => Ok(Self::Port(text.to_owned())),
        }
    }
}

impl fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(GuestSpec { path, .. }) => write!(f, "{}", path.display()),
            Self::Port(spec) => f.write_str(spec),
        }
    }
}

/// What an endpoint sends, and to whom.
#[derive(Clone, Debug)]
pub struct Work {
    /// Its own number.
    pub number: u8,
    /// Its partner's: whose streams it receives.
    pub partner: u8,
    /// What it sends, in turns.
    pub frames: Arc<Vec<Vec<u8>>>,
    /// What a guest says of each of them.
    pub header: NetHdr,
    /// Where the probe lies; `None`: frames are sent as they are and only counted (a capture replayed).
    pub probe: Option<(Layout, Extent)>,
    /// Frames that it posts at once, at most.
    pub burst: usize,
}

impl Work {
    /// Bytes of the longest frame.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.frames.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether each of them is many, which somebody on its way makes of it.
    #[must_use]
    pub fn is_to_be_segmented(&self) -> bool {
        self.header.gso_type != GSO_NONE
    }

    /// Whether a header that came says of a frame what this side's partner said.
    #[inline]
    fn is_segmentable(&self, header: NetHdr) -> bool {
        (header.gso_type, header.gso_size) == (self.header.gso_type, self.header.gso_size)
    }

    /// The same in the form of streams: without a probe, one that nobody looks at.
    fn layout(&self) -> (Layout, Extent) {
        self.probe.unwrap_or((Layout { at: 0 }, Extent::default()))
    }
}

/// What an endpoint has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Frames sent.
    pub sent: u64,
    /// Frames received: good ones of its partner's streams, or all if there is no probe.
    pub received: u64,
    /// Bytes of what was received.
    pub bytes: u64,
}

/// One that sends and receives. Belongs to one thread.
pub trait Endpoint: Send {
    /// Receives what is there, sends `most` frames at most, or as many as there is room for. `now_ns` is the time that
    /// stamps tell.
    ///
    /// # Errors
    /// What the device did wrong.
    fn turn(&mut self, most: usize, now_ns: u64) -> Result<(), String>;

    /// What it has counted so far.
    fn counts(&self) -> Counts;

    /// Frames sent so far, queue by queue.
    fn sent_by_queue(&self) -> Vec<u64>;

    /// What became of its partner's streams. `sent` by queue, if nothing is under way any more.
    fn tally(&self, sent: Option<&[u64]>) -> Tally;

    /// Latencies in ns since the last [`forget_latency`](Self::forget_latency); empty unless they are measured.
    fn latency(&self) -> &Histogram<u64>;

    /// Begins to measure latency anew.
    fn forget_latency(&mut self);
}

/// A histogram to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("1 <= bounds, 0 to 5 digits")
}

/// Notes a frame that was sent at `sent_ns`.
#[inline]
fn note_latency(histogram: &mut Histogram<u64>, sent_ns: Option<u64>, now_ns: u64) {
    if let Some(sent_ns) = sent_ns {
        histogram.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
    }
}

/// Makes an endpoint.
///
/// # Errors
/// Says why not.
pub fn open(spec: &EndpointSpec, options: GuestOptions, work: Work) -> Result<Box<dyn Endpoint>, String> {
    Ok(match spec {
        EndpointSpec::Guest(spec) => Box::new(guest::Guest::connect(spec, options, work)?),
        EndpointSpec::Port(spec) if work.is_to_be_segmented() => {
            return Err(format!(
                "{spec}: frames to be segmented are for guests only; give a size of 9014 at most"
            ));
        }
        EndpointSpec::Port(spec) => Box::new(port::PortEndpoint::open(spec, work)?),
    })
}

/// How many queues an endpoint sends by.
#[must_use]
pub fn queues(spec: &EndpointSpec) -> usize {
    match spec {
        EndpointSpec::Guest(spec) => spec.queues.into(),
        EndpointSpec::Port(_) => 1,
    }
}

/// The path in a guest's specification: it must have one.
fn path_of(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("guest: needs a path".into()) } else { Ok(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        let guest = |text: &str| match text.parse() {
            Ok(EndpointSpec::Guest(spec)) => (spec.path.display().to_string(), spec.queues),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(guest("/tmp/a"), ("/tmp/a".into(), 1));
        assert_eq!(guest("./a:b"), ("./a:b".into(), 1));
        assert_eq!(guest("guest:a,queues=4"), ("a".into(), 4));
        for port in ["tap:x", "null"] {
            assert_eq!(port.parse(), Ok(EndpointSpec::Port(port.into())));
        }
        for bad in ["", "guest:", "guest:a,queues=0", "guest:a,colour=red"] {
            assert!(bad.parse::<EndpointSpec>().is_err(), "{bad}");
        }
    }
}
