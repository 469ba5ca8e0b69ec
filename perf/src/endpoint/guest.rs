//! A guest: a virtio-net driver whose rings are kept full.

use std::path::PathBuf;
use std::str::FromStr;

use hdrhistogram::Histogram;
use vhost::driver::traffic::Tally;
use vhost::driver::{
    BufferConfig, Kicks, NetHdr, PostError, QueuePair, RamPages, RingError, VirtioNet, VirtioNetConfig,
};
use vhost::wire::net;

use super::{Counts, Endpoint, Work, histogram, note_latency, path_of};
use crate::probe::{Stamper, Streams};

/// Which guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestSpec {
    /// The vhost-user socket that the device under test listens on.
    pub path: PathBuf,
    /// Queue pairs, 1 to 16, all driven by one thread.
    pub queues: u16,
}

impl FromStr for GuestSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut spec = Self { path: path_of(parts.next().unwrap_or_default())?, queues: 1 };
        for part in parts {
            match part.split_once('=') {
                Some(("queues", n)) => {
                    let n = n.parse().ok().filter(|n| (1..=16).contains(n));
                    spec.queues = n.ok_or("guest: queues must be 1 to 16")?;
                }
                _ => return Err(format!("guest: no option {part:?}; there is: queues=N")),
            }
        }
        Ok(spec)
    }
}

/// How all guests drive their rings.
#[derive(Clone, Copy, Debug)]
pub struct GuestOptions {
    /// Descriptors of each ring.
    pub queue_size: u16,
    /// With VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// With VIRTIO_NET_F_MRG_RXBUF.
    pub mergeable: bool,
    /// With VIRTIO_F_IN_ORDER.
    pub in_order: bool,
    /// With indirect descriptors.
    pub indirect: bool,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self { queue_size: 1024, packed: false, mergeable: true, in_order: false, indirect: false }
    }
}

impl GuestOptions {
    fn features(&self) -> u64 {
        let choices = [
            (net::F_RING_PACKED, self.packed),
            (net::F_MRG_RXBUF, self.mergeable),
            (net::F_IN_ORDER, self.in_order),
            (net::F_INDIRECT_DESC, self.indirect),
        ];
        choices.iter().fold(VirtioNetConfig::default().features, |features, (bit, wanted)| {
            if *wanted { features | bit } else { features & !bit }
        })
    }

    fn config(&self, queues: u16, longest: usize) -> VirtioNetConfig {
        let bytes = (net::HDR_LEN + longest).next_multiple_of(64).max(2048) as u32;
        let buffers = BufferConfig { bytes, ..BufferConfig::default() };
        VirtioNetConfig {
            queue_size: self.queue_size,
            queue_pairs: queues,
            features: self.features(),
            tx: BufferConfig { indirect: self.indirect, ..buffers },
            rx: buffers,
            pages: RamPages::HugeIfAvailable,
            kicks: Kicks::AsAsked,
            ..VirtioNetConfig::default()
        }
    }
}

/// The guest.
pub(super) struct Guest {
    lanes: Vec<Lane>,
    streams: Streams,
    latency: Histogram<u64>,
    work: Work,
    received: u64,
    bytes: u64,
    /// For frames that are written or checked whole.
    scratch: Vec<u8>,
    _device: VirtioNet,
}

/// One queue pair.
struct Lane {
    pair: QueuePair,
    stamper: Stamper,
    /// The frames stand in the ring, and one word of each is all that changes.
    prepared: bool,
    /// Sent without a probe.
    bare: u64,
    next: usize,
}

impl Guest {
    pub(super) fn connect(spec: &GuestSpec, options: GuestOptions, work: Work) -> Result<Self, String> {
        let config = options.config(spec.queues, work.longest());
        let mut device =
            VirtioNet::connect(&spec.path, config).map_err(|e| format!("{}: {e}", spec.path.display()))?;
        let (layout, extent) = work.layout();
        let pairs = device.take_pairs();
        let streams = Streams::new(work.partner, pairs.len(), layout, extent);
        let lanes = (0u16..).zip(pairs).map(|(queue, pair)| Lane {
            pair,
            stamper: Stamper::new(u16::from(work.number) << 8 | queue, layout, extent),
            prepared: false,
            bare: 0,
            next: 0,
        });
        let mut guest = Self {
            lanes: lanes.collect(),
            streams,
            latency: histogram(),
            work,
            received: 0,
            bytes: 0,
            scratch: Vec::new(),
            _device: device,
        };
        guest.prepare();
        Ok(guest)
    }

    /// Writes the frames into the rings, if each has a slot of its own.
    fn prepare(&mut self) {
        let frames = &self.work.frames;
        let light = self.work.probe.is_none_or(|(_, extent)| extent.is_light());
        for lane in &mut self.lanes {
            lane.prepared = light && frames.len() <= lane.pair.tx.room();
            if lane.prepared {
                lane.pair.tx.prepare(|i, slot| {
                    let frame = &frames[i % frames.len()];
                    slot.write(0, frame);
                    frame.len()
                });
            }
            lane.pair.rx.refill();
        }
    }

    /// One lane's turn.
    fn turn_lane(&mut self, lane: usize, most: usize, now_ns: u64) -> Result<(), RingError> {
        self.receive(lane, now_ns)?;
        let Self { lanes, work, scratch, .. } = self;
        let lane = &mut lanes[lane];
        lane.pair.tx.reclaim()?;
        let most = most.min(work.burst);
        match work.probe {
            None if lane.prepared => lane.bare += lane.pair.tx.post_prepared(most, |_| ()) as u64,
            Some(_) if lane.prepared => {
                let stamper = &mut lane.stamper;
                lane.pair.tx.post_prepared(most, |frame| {
                    let (at, word) = stamper.word();
                    frame.set_word(at, word);
                });
            }
            _ => lane.post_whole(work, scratch, most, now_ns)?,
        }
        Ok(())
    }

    fn receive(&mut self, lane: usize, now_ns: u64) -> Result<(), RingError> {
        let Self { lanes, streams, latency, work, received, bytes, scratch, .. } = self;
        let rx = &mut lanes[lane].pair.rx;
        let mut taken = 0;
        match work.probe {
            None => {
                *received += rx.poll(work.burst, |frame| taken += frame.len() as u64)? as u64;
            }
            Some((layout, extent)) if extent.is_light() => {
                rx.poll(work.burst, |frame| {
                    taken += frame.len() as u64;
                    // Whatever is shorter than a probe is nobody's frame, and no word stands there.
                    let word = if frame.len() >= layout.at + 8 { frame.word(layout.at) } else { u64::MAX };
                    streams.light(word);
                })?;
            }
            Some(_) => {
                rx.poll(work.burst, |frame| {
                    taken += frame.len() as u64;
                    frame.copy_to(scratch);
                    note_latency(latency, streams.whole(scratch), now_ns);
                })?;
            }
        }
        *bytes += taken;
        rx.refill();
        Ok(())
    }
}

impl Lane {
    /// Copies frames into the ring, each with its whole probe.
    fn post_whole(
        &mut self,
        work: &Work,
        scratch: &mut Vec<u8>,
        most: usize,
        now_ns: u64,
    ) -> Result<(), RingError> {
        for _ in 0..most.min(self.pair.tx.room()) {
            let frame = &work.frames[self.next];
            self.next = (self.next + 1) % work.frames.len();
            scratch.clear();
            scratch.extend_from_slice(frame);
            match work.probe {
                Some(_) => self.stamper.stamp(scratch, now_ns),
                None => self.bare += 1,
            }
            match self.pair.tx.post(NetHdr::default(), scratch) {
                Ok(()) => {}
                Err(PostError::Ring(error)) => return Err(error),
                Err(error) => {
                    unreachable!("{error}: there was room, and slots are as long as the longest frame")
                }
            }
        }
        self.pair.tx.publish();
        Ok(())
    }

    fn sent(&self) -> u64 {
        self.bare + self.stamper.sent()
    }
}

impl Endpoint for Guest {
    #[inline]
    fn turn(&mut self, most: usize, now_ns: u64) -> Result<(), String> {
        let share = most.div_ceil(self.lanes.len());
        let mut left = most;
        for lane in 0..self.lanes.len() {
            let now = share.min(left);
            self.turn_lane(lane, now, now_ns).map_err(|e| e.to_string())?;
            left -= now;
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let received = self.received + self.streams.received();
        Counts { sent: self.lanes.iter().map(Lane::sent).sum(), received, bytes: self.bytes }
    }

    fn sent_by_queue(&self) -> Vec<u64> {
        self.lanes.iter().map(Lane::sent).collect()
    }

    fn tally(&self, sent: Option<&[u64]>) -> Tally {
        self.streams.tally(sent)
    }

    fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    fn forget_latency(&mut self) {
        self.latency.reset();
    }
}
