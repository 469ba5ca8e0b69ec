//! The control queue (virtio 1.3 §5.1.6.5): one command at a time, waited for. Control path.

use core::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::capability::Bell;
use super::virtqueue::{Piece, Used, Virtqueue};
use crate::bus::{BusError, DmaArea, PciDevice, Registers};

/// Descriptors that it needs: one command's.
pub(super) const SIZE: u16 = 64;
/// How long a device may take for a command.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Where a command and its answer stand in the area: words of 8 bytes, and no command is longer.
const COMMAND: usize = 0;
const ACK: usize = 8;
/// VIRTIO_NET_OK
const OK: u8 = 0;
/// What stands at the answer's place until there is one.
const NO_ANSWER: u8 = 0xff;

/// What a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// VIRTIO_NET_CTRL_RX_PROMISC: receive unicast frames to anybody.
    Promiscuous(bool),
    /// VIRTIO_NET_CTRL_RX_ALLMULTI: receive all multicast frames.
    AllMulticast(bool),
    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: use so many queue pairs.
    Pairs(u16),
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Refused,
    /// The device does not answer, or returned what it was not given.
    None,
}

impl Command {
    /// Class, command and data, and how many bytes they are.
    fn bytes(self) -> ([u8; 8], u32) {
        let [low, high] = if let Self::Pairs(pairs) = self { pairs.to_le_bytes() } else { [0; 2] };
        match self {
            Self::Promiscuous(on) => ([0, 0, on.into(), 0, 0, 0, 0, 0], 3),
            Self::AllMulticast(on) => ([0, 1, on.into(), 0, 0, 0, 0, 0], 3),
            Self::Pairs(_) => ([4, 0, low, high, 0, 0, 0, 0], 4),
        }
    }
}

/// The queue, and the memory of a command. Kept as long as the device runs, which may be late with an answer.
pub(super) struct ControlQueue<V, B> {
    queue: V,
    bell: Bell<B>,
    area: DmaArea,
}

impl<V: Virtqueue, B: Registers> ControlQueue<V, B> {
    /// Around a queue of the device's.
    ///
    /// # Errors
    /// [`BusError`]
    pub(super) fn new<D: PciDevice>(device: &D, queue: V, bell: Bell<B>) -> Result<Self, BusError> {
        Ok(Self { queue, bell, area: DmaArea::new(device, ACK + 8)? })
    }

    /// Has the device do something.
    pub(super) fn execute(&mut self, command: Command) -> Answer {
        let (bytes, len) = command.bytes();
        self.area.words64(COMMAND, 1)[0].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        self.area.words64(ACK, 1)[0].store(u64::from(NO_ANSWER).to_le(), Ordering::Relaxed);
        if self.queue.free() < 3 {
            return Answer::None;
        }
        // Header, data, answer: some devices want them apart (as §5.1.6.5 lays them out).
        let at = |offset| self.area.iova(offset);
        self.queue.post(&[
            Piece { addr: at(COMMAND), len: 2, writable: false },
            Piece { addr: at(COMMAND + 2), len: len - 2, writable: false },
            Piece { addr: at(ACK), len: 1, writable: true },
        ]);
        self.queue.publish();
        if self.queue.wants_kick() {
            self.bell.ring();
        }
        self.wait()
    }

    fn wait(&mut self) -> Answer {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.queue.take_used(&mut [Used::NONE]) {
                Ok(1..) => return self.answer(),
                Ok(0) if Instant::now() < end => thread::sleep(Duration::from_micros(50)),
                Ok(0) | Err(_) => return Answer::None,
            }
        }
    }

    fn answer(&self) -> Answer {
        let word = self.area.words64(ACK, 1)[0].load(Ordering::Relaxed);
        if u64::from_le(word) as u8 == OK { Answer::Done } else { Answer::Refused }
    }
}
