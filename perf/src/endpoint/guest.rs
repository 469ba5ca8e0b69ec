//! A guest: a virtio-net driver whose rings are kept full.

use std::path::PathBuf;
use std::str::FromStr;

use hdrhistogram::Histogram;
use vhost::driver::traffic::Tally;
use vhost::driver::{
    BufferConfig, Cut, Kicks, Order, PostError, QueuePair, RamPages, RingError, RxFrame, VirtioNet,
    VirtioNetConfig,
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
    /// In which order free buffers are posted again.
    pub order: Order,
    /// Whether posted receive buffers have foreign content where their header will be.
    pub foreign_headers: bool,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            queue_size: 1024,
            packed: false,
            mergeable: true,
            in_order: false,
            indirect: false,
            order: Order::Same,
            foreign_headers: false,
        }
    }
}

/// What a guest needs to send frames that are to be segmented, and to take them.
const SEGMENTATION: u64 = net::F_CSUM | net::F_GUEST_CSUM | net::F_HOST_TSO4 | net::F_GUEST_TSO4;
/// A guest's pages: frames that are larger lie in many of them, a descriptor each.
const PAGE: u32 = 4096;

impl GuestOptions {
    /// Each choice by its feature.
    fn choices(&self, work: &Work) -> [(u64, bool, &'static str); 5] {
        [
            (net::F_RING_PACKED, self.packed, "packed rings"),
            (net::F_MRG_RXBUF, self.mergeable, "mergeable buffers"),
            (net::F_IN_ORDER, self.in_order, "use in order"),
            (net::F_INDIRECT_DESC, self.indirect, "indirect descriptors"),
            (SEGMENTATION, work.is_to_be_segmented(), "segmentation offload"),
        ]
    }

    fn features(&self, work: &Work) -> u64 {
        self.choices(work).iter().fold(VirtioNetConfig::default().features, |features, (bits, wanted, _)| {
            if *wanted { features | bits } else { features & !bits }
        })
    }

    /// What was chosen and is not there. Mergeable buffers are taken where they are, and done without where they are not.
    fn check(&self, work: &Work, features: u64) -> Result<(), String> {
        let missing =
            self.choices(work).into_iter().filter(|(bits, wanted, _)| *wanted && features & bits != *bits);
        let named: Vec<_> =
            missing.filter(|(bits, ..)| *bits != net::F_MRG_RXBUF).map(|(.., name)| name).collect();
        if named.is_empty() { Ok(()) } else { Err(format!("the device does not offer {}", named.join(", "))) }
    }

    fn config(&self, queues: u16, work: &Work) -> VirtioNetConfig {
        let bytes = (net::HDR_LEN + work.longest()).next_multiple_of(64).max(2048) as u32;
        let whole = BufferConfig { bytes, ..BufferConfig::default() };
        let (tx, rx) = if work.is_to_be_segmented() { self.paged(bytes, work) } else { (whole, whole) };
        VirtioNetConfig {
            queue_size: self.queue_size,
            queue_pairs: queues,
            features: self.features(work),
            tx: BufferConfig { indirect: self.indirect, ..tx },
            rx,
            pages: RamPages::HugeIfAvailable,
            kicks: Kicks::AsAsked,
            order: self.order,
            foreign_headers: self.foreign_headers,
            ..VirtioNetConfig::default()
        }
    }

    /// Buffers as a guest's kernel has them: all headers in one piece and the payload in pages, to send; pages, to receive,
    /// each by itself where they can be merged.
    fn paged(&self, bytes: u32, work: &Work) -> (BufferConfig, BufferConfig) {
        let first = net::HDR_LEN as u32 + u32::from(work.header.hdr_len);
        let tx = Cut::Pieces { first, rest: PAGE };
        let rx = match self.mergeable {
            true => BufferConfig { bytes: PAGE, ..BufferConfig::default() },
            false => BufferConfig { bytes, cut: Cut::Pieces { first: PAGE, rest: PAGE }, indirect: false },
        };
        (BufferConfig { bytes, cut: tx, indirect: false }, rx)
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
        let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", spec.path.display());
        let config = options.config(spec.queues, &work);
        let mut device = VirtioNet::connect(&spec.path, config).map_err(|e| wrong(&e))?;
        options.check(&work, device.features()).map_err(|e| wrong(&e))?;
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
        let (frames, header) = (&self.work.frames, self.work.header);
        let light = self.work.probe.is_none_or(|(_, extent)| extent.is_light());
        for lane in &mut self.lanes {
            lane.prepared = light && frames.len() <= lane.pair.tx.room();
            if lane.prepared {
                lane.pair.tx.prepare(|i, slot| {
                    let frame = &frames[i % frames.len()];
                    slot.set_header(header);
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
        let is_as_sent =
            |frame: &RxFrame<'_>| !work.is_to_be_segmented() || work.is_segmentable(frame.header());
        match work.probe {
            None => {
                *received += rx.poll(work.burst, |frame| taken += frame.len() as u64)? as u64;
            }
            Some((layout, extent)) if extent.is_light() => {
                rx.poll(work.burst, |frame| {
                    taken += frame.len() as u64;
                    // Whatever is shorter than a probe is nobody's frame, and no word stands there.
                    // Nor is one that has lost what its header said to do with it.
                    let is_good = frame.len() >= layout.at + 8 && is_as_sent(frame);
                    let word = if is_good { frame.word(layout.at) } else { u64::MAX };
                    streams.light(word);
                })?;
            }
            Some(_) => {
                rx.poll(work.burst, |frame| {
                    taken += frame.len() as u64;
                    frame.copy_to(scratch);
                    if !is_as_sent(frame) {
                        scratch.clear();
                    }
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
            match self.pair.tx.post(work.header, scratch) {
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
