//! What the ports' halves do with a burst alike.

use crossbeam_utils::CachePadded;
use std::sync::Arc;

use mbuf::{Burst, Mbuf};

use crate::{DropReason, QueueCounters};

/// A half's counters, shared with its port.
pub(crate) type Counters = Arc<CachePadded<QueueCounters>>;

/// What became of a packet that was to be sent.
pub(crate) enum Fate<'t> {
    /// The receiver has it.
    Sent,
    /// It is gone.
    Dropped(DropReason),
    /// The receiver has no room for it now.
    Full(Mbuf<'t>),
}

/// Sends a burst from its front until the receiver is full, and counts; returns how many packets were taken out.
#[inline]
pub(crate) fn send_each<'t>(
    burst: &mut Burst<'t>,
    counters: &QueueCounters,
    mut send: impl FnMut(Mbuf<'t>) -> Fate<'t>,
) -> usize {
    let (before, mut sent, mut bytes) = (burst.len(), 0, 0);
    let mut left = Burst::new();
    let mut packets = burst.drain();
    for mbuf in &mut packets {
        let len = mbuf.len();
        match send(mbuf) {
            Fate::Sent => {
                sent += 1;
                bytes += len as u64;
            }
            Fate::Dropped(reason) => counters.drop_packets(reason, 1),
            Fate::Full(mbuf) => {
                put(&mut left, mbuf);
                break;
            }
        }
    }
    packets.for_each(|mbuf| put(&mut left, mbuf));
    count(counters, sent, bytes);
    *burst = left;
    before - burst.len()
}

/// For a burst that is known to have room.
fn put<'t>(burst: &mut Burst<'t>, mbuf: Mbuf<'t>) {
    let pushed = burst.push(mbuf);
    debug_assert!(pushed.is_ok(), "there was room");
}

/// Takes a frame that came in into the burst, which has room for it, or counts why it was dropped.
#[inline]
pub(crate) fn admit<'t>(burst: &mut Burst<'t>, came: Result<Mbuf<'t>, DropReason>, counters: &QueueCounters) {
    match came {
        Ok(mbuf) => put(burst, mbuf),
        Err(reason) => counters.drop_packets(reason, 1),
    }
}

/// Counts packets that were moved.
#[inline]
pub(crate) fn count(counters: &QueueCounters, packets: u64, bytes: u64) {
    if packets > 0 {
        counters.packets.add(packets);
        counters.bytes.add(bytes);
        counters.bursts.add(1);
    }
}

/// Drops all of `burst` for `reason`; returns how many.
pub(crate) fn drop_all(burst: &mut Burst<'_>, counters: &QueueCounters, reason: DropReason) -> usize {
    let n = burst.len();
    counters.drop_packets(reason, n as u64);
    burst.clear();
    n
}
