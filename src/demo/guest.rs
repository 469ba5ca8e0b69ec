//! A guest: a virtio-net driver that sends a stream of numbered, checksummed frames to the other guest and checks the
//! other's.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost::driver::traffic::{Checker, Mode, Sender, StreamConfig, Tally};
use vhost::driver::{NetHdr, QueuePair, RingError, VirtioNet, VirtioNetConfig};

use crate::failure::Failure;

/// Descriptors of each ring.
const RING: u16 = 1024;
/// Frames of a stream that may be on their way: half the receiver's ring, so that a slow receiver is waited for and a
/// lost frame is the switch's loss.
const IN_FLIGHT: u64 = RING as u64 / 2;
/// Frames sent or looked at in one go.
const BATCH: usize = 64;
/// How long the first frame may take to come through.
const PATIENCE: Duration = Duration::from_secs(5);

/// A guest of the demo.
#[derive(Debug)]
pub(super) struct Guest {
    net: VirtioNet,
    sender: Sender,
    checker: Checker,
    number: u16,
}

/// What a guest does when the talking is over: its rings and streams.
#[derive(Debug)]
pub(super) struct Station {
    pair: QueuePair,
    sender: Sender,
    checker: Checker,
    /// Its connection: dropped last.
    net: VirtioNet,
}

fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, 0x90, 0x1d, 0xe2, high, low]
}

impl Guest {
    /// Connects to the port at `path` and brings the device up.
    pub(super) fn connect(path: &Path, number: u16, peer: u16, size: usize) -> Result<Self, Failure> {
        let config = VirtioNetConfig { queue_size: RING, ..VirtioNetConfig::default() };
        let net = VirtioNet::connect(path, config).map_err(|e| failed(number, &e))?;
        let stream =
            StreamConfig { src: mac(number), dst: mac(peer), stream: number, size, mode: Mode::Verify };
        Ok(Self { net, sender: Sender::new(stream), checker: Checker::new(peer, Mode::Verify), number })
    }

    /// Sends a frame to all that belongs to no stream.
    fn hello(&mut self) -> Result<(), Failure> {
        let mut frame = [0; 60];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&mac(self.number));
        frame[12..14].copy_from_slice(&[0x88, 0xb6]);
        self.net.send(&frame, NetHdr::default()).map_err(|e| failed(self.number, &e))
    }

    fn hears(&mut self) -> Result<bool, Failure> {
        let mut frame = Vec::new();
        let mut heard = false;
        while self.net.recv(&mut frame).map_err(|e| failed(self.number, &e))?.is_some() {
            heard = true;
        }
        Ok(heard)
    }
}

fn failed(number: u16, error: &impl Display) -> Failure {
    Failure::runtime(format!("guest {number}: {error}"))
}

/// Lets both guests greet until both have heard the other: then both rings of both run, and the switch knows both.
pub(super) fn shake_hands(a: &mut Guest, b: &mut Guest) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    let (mut a_heard, mut b_heard) = (false, false);
    while !(a_heard && b_heard) {
        if Instant::now() > deadline {
            return Err(Failure::runtime(format!("no frame came through the switch within {PATIENCE:?}")));
        }
        a.hello()?;
        b.hello()?;
        std::thread::sleep(Duration::from_millis(5));
        a_heard |= a.hears()?;
        b_heard |= b.hears()?;
    }
    // The last greetings are through as well, or will be counted as foreign.
    std::thread::sleep(Duration::from_millis(20));
    a.hears()?;
    b.hears().map(drop)
}

impl Station {
    /// Takes the guest's rings in hand.
    pub(super) fn of(mut guest: Guest) -> Option<Self> {
        let pair = guest.net.take_pairs().pop()?;
        Some(Self { pair, sender: guest.sender, checker: guest.checker, net: guest.net })
    }

    /// Checks what came, gives the buffers back; returns how many frames there were.
    pub(super) fn receive(&mut self) -> Result<usize, RingError> {
        let checker = &mut self.checker;
        let n = self.pair.rx.poll(BATCH, |frame| checker.check(frame))?;
        if n > 0 {
            self.pair.rx.refill();
        }
        Ok(n)
    }

    /// Sends as much as may be on its way to `peer`; returns how many frames.
    pub(super) fn send_to(&mut self, peer: &Self) -> Result<usize, RingError> {
        let room = IN_FLIGHT.saturating_sub(self.in_flight(peer)) as usize;
        self.sender.send(&mut self.pair.tx, room.min(BATCH))
    }

    /// Frames sent that `peer` neither has nor misses.
    pub(super) fn in_flight(&self, peer: &Self) -> u64 {
        let tally = peer.checker.tally();
        self.sender.sent().saturating_sub(tally.received + tally.lost)
    }

    /// Frames sent.
    pub(super) fn sent(&self) -> u64 {
        self.sender.sent()
    }

    /// What was received so far.
    pub(super) fn tally(&self) -> Tally {
        self.checker.tally()
    }

    /// What was received in the end of `sent` frames.
    pub(super) fn settle(&self, sent: u64) -> Tally {
        self.checker.settle(sent)
    }

    /// Stops the device in order.
    pub(super) fn disconnect(self) -> Result<(), Failure> {
        self.net.disconnect().map(drop).map_err(Failure::runtime)
    }
}
