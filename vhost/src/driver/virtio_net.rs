//! A virtio-net driver on a vhost-user front end: the whole of a guest, as far as a switch can see it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use super::front_end::{FrontEnd, FrontEndError};
use super::net_hdr::NetHdr;
use super::order::Order;
use super::queue::Queue;
use super::ram::{GuestRam, RamConfig, RamError, RamPages};
use super::ring_config::{Cut, Kicks, RingConfig, RingConfigError, RingError};
use super::rx::RxRing;
use super::tx::{PostError, TxRing};
use crate::wire::message::protocol;
use crate::wire::net::{F_INDIRECT_DESC, F_MQ, F_MRG_RXBUF, F_PROTOCOL_FEATURES, F_VERSION_1};

/// One direction's buffers.
#[derive(Clone, Copy, Debug)]
pub struct BufferConfig {
    /// Bytes of each slot's buffer, the virtio-net header included.
    pub bytes: u32,
    /// How it is cut into descriptors.
    pub cut: Cut,
    /// Use indirect tables if the back end takes them.
    pub indirect: bool,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self { bytes: 2048, cut: Cut::Whole, indirect: false }
    }
}

/// What a [`VirtioNet`] is to be.
#[derive(Clone, Copy, Debug)]
pub struct VirtioNetConfig {
    /// Descriptors of each ring: a power of two, unless rings are packed (F_RING_PACKED among the features).
    pub queue_size: u16,
    /// Queue pairs.
    pub queue_pairs: u16,
    /// Virtio features wanted (bits); what the back end doesn't offer is left out.
    pub features: u64,
    /// Protocol features wanted (bits); the same.
    pub protocol_features: u64,
    /// Transmit buffers.
    pub tx: BufferConfig,
    /// Receive buffers.
    pub rx: BufferConfig,
    /// Bytes of RAM; without, as many as it takes.
    pub ram_bytes: Option<usize>,
    /// The RAM's pages.
    pub pages: RamPages,
    /// Guest-physical address at which the RAM starts.
    pub gpa_base: u64,
    /// First position of all rings, as in [`RingConfig`].
    pub base: u16,
    /// When to kick.
    pub kicks: Kicks,
    /// In which order free slots are posted again, as in [`RingConfig`].
    pub order: Order,
    /// Whether posted receive buffers have foreign content where their header will be, as in [`RingConfig`].
    pub foreign_headers: bool,
    /// What to tell the back end the MTU is, if it wants to know.
    pub mtu: Option<u16>,
    /// Longest wait for the connection, and for each answer.
    pub timeout: Duration,
}

impl Default for VirtioNetConfig {
    /// One pair of rings of 256, mergeable, version 1, small pages.
    fn default() -> Self {
        Self {
            queue_size: 256,
            queue_pairs: 1,
            features: F_VERSION_1 | F_MRG_RXBUF | F_INDIRECT_DESC | F_MQ | F_PROTOCOL_FEATURES,
            protocol_features: protocol::F_MQ | protocol::F_REPLY_ACK | protocol::F_MTU | protocol::F_STATUS,
            tx: BufferConfig::default(),
            rx: BufferConfig::default(),
            ram_bytes: None,
            pages: RamPages::Small,
            gpa_base: 0,
            base: 0,
            kicks: Kicks::AsAsked,
            order: Order::Same,
            foreign_headers: false,
            mtu: None,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum VirtioNetError {
    /// The conversation failed.
    #[error(transparent)]
    FrontEnd(#[from] FrontEndError),
    /// A ring could not be made.
    #[error(transparent)]
    Ring(#[from] RingConfigError),
    /// No RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The back end has fewer queues.
    #[error("{wanted} queue pairs wanted, the back end has {has}")]
    QueuePairs {
        /// As configured.
        wanted: u16,
        /// As it says.
        has: u64,
    },
}

/// A guest's rings of one queue pair. They may go to a thread of their own.
#[derive(Debug)]
pub struct QueuePair {
    /// The guest transmits here: vring 2n + 1.
    pub tx: TxRing,
    /// The guest receives here: vring 2n.
    pub rx: RxRing,
}

/// A running virtio-net device, seen from its driver. Dropping it stops the rings in order, one GET_VRING_BASE each, and
/// then closes the connection; the rings' memory lives as long as the rings.
#[derive(Debug)]
pub struct VirtioNet {
    front: FrontEnd,
    ram: GuestRam,
    pairs: Vec<QueuePair>,
    queue_pairs: u16,
    features: u64,
    protocol_features: u64,
    running: bool,
}

/// Virtio device status (§2.1): ACKNOWLEDGE, DRIVER, FEATURES_OK.
const STATUS_FEATURES_OK: u8 = 1 | 2 | 8;
/// And DRIVER_OK.
const STATUS_DRIVER_OK: u8 = STATUS_FEATURES_OK | 4;

impl VirtioNet {
    /// Connects to a listening back end and brings the device up: features, memory, rings, receive buffers.
    ///
    /// # Errors
    /// [`VirtioNetError`].
    pub fn connect(path: impl AsRef<Path>, config: VirtioNetConfig) -> Result<Self, VirtioNetError> {
        Self::over(FrontEnd::connect(path, config.timeout)?, config)
    }

    /// The same with the back end as the one that connects (a `client` port).
    ///
    /// # Errors
    /// [`VirtioNetError`].
    pub fn accept(listener: &UnixListener, config: VirtioNetConfig) -> Result<Self, VirtioNetError> {
        Self::over(FrontEnd::accept(listener, config.timeout)?, config)
    }

    /// The same over a connection that stands, of which nothing was used yet.
    ///
    /// # Errors
    /// [`VirtioNetError`].
    pub fn over(mut front: FrontEnd, config: VirtioNetConfig) -> Result<Self, VirtioNetError> {
        let (features, protocol_features) = negotiate(&mut front, &config)?;
        let ram = make_ram(&config)?;
        let pairs = (0..config.queue_pairs)
            .map(|_| make_pair(&ram, &config, features))
            .collect::<Result<Vec<_>, RingConfigError>>()?;
        let queue_pairs = config.queue_pairs;
        let mut net = Self { front, ram, pairs, queue_pairs, features, protocol_features, running: false };
        net.start(&config)?;
        Ok(net)
    }

    /// Hands over memory and rings, and lets the device go.
    fn start(&mut self, config: &VirtioNetConfig) -> Result<(), FrontEndError> {
        let with_status = self.protocol_features & protocol::F_STATUS != 0;
        self.front.set_features(self.features)?;
        if with_status {
            self.front.set_status(STATUS_FEATURES_OK)?;
        }
        if let Some(mtu) = config.mtu.filter(|_| self.protocol_features & protocol::F_MTU != 0) {
            self.front.set_mtu(mtu.into())?;
        }
        self.front.set_mem_table(&[(self.ram.region(), self.ram.as_fd())])?;
        self.running = true;
        for (n, pair) in (0u32..).zip(&mut self.pairs) {
            pair.rx.refill();
            start_ring(&mut self.front, 2 * n, pair.rx.queue())?;
            start_ring(&mut self.front, 2 * n + 1, pair.tx.queue())?;
        }
        if self.features & F_PROTOCOL_FEATURES != 0 {
            for index in 0..2 * u32::from(self.queue_pairs) {
                self.front.set_vring_enable(index, true)?;
            }
        }
        if with_status {
            self.front.set_status(STATUS_DRIVER_OK)?;
        }
        for pair in &mut self.pairs {
            // A ring starts by its first kick, asked or not.
            pair.rx.queue_mut().kick();
            pair.tx.queue_mut().kick();
        }
        Ok(())
    }

    /// The features in force.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The protocol features in force.
    #[must_use]
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// The guest's RAM.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The connection, for messages beyond the usual.
    pub fn front_end(&mut self) -> &mut FrontEnd {
        &mut self.front
    }

    /// Its queue pairs, unless they were [taken](Self::take_pairs).
    pub fn pairs(&mut self) -> &mut [QueuePair] {
        &mut self.pairs
    }

    /// Takes the queue pairs, for threads of their own.
    #[must_use]
    pub fn take_pairs(&mut self) -> Vec<QueuePair> {
        std::mem::take(&mut self.pairs)
    }

    /// Sends one frame by the first pair.
    ///
    /// # Errors
    /// [`PostError`].
    ///
    /// # Panics
    /// If the pairs were taken; so does receiving.
    pub fn send(&mut self, frame: &[u8], hdr: NetHdr) -> Result<(), PostError> {
        self.pairs[0].tx.send(hdr, frame)
    }

    /// Receives one frame from the first pair, if there is one.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<NetHdr>, RingError> {
        self.pairs[0].rx.recv(frame)
    }

    /// The same, waiting for one, `timeout` at most.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn recv_within(
        &mut self,
        frame: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<Option<NetHdr>, RingError> {
        let deadline = Instant::now() + timeout;
        loop {
            let header = self.recv(frame)?;
            if header.is_some() || Instant::now() >= deadline {
                return Ok(header);
            }
            std::thread::yield_now();
        }
    }

    /// Stops the rings in order and closes the connection. Returns where each vring stopped, as GET_VRING_BASE
    /// says it.
    ///
    /// # Errors
    /// [`FrontEndError`]; the connection is closed all the same.
    pub fn disconnect(mut self) -> Result<Vec<u32>, FrontEndError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<Vec<u32>, FrontEndError> {
        if !std::mem::take(&mut self.running) {
            return Ok(Vec::new());
        }
        let rings = 0..2 * u32::from(self.queue_pairs);
        let bases = rings.map(|index| self.front.vring_base(index)).collect::<Result<_, _>>()?;
        if self.protocol_features & protocol::F_STATUS != 0 {
            self.front.set_status(0)?;
        }
        Ok(bases)
    }
}

impl Drop for VirtioNet {
    fn drop(&mut self) {
        // A back end that does not answer any more gets the same as one that does: the connection closes.
        let _ = self.stop();
    }
}

/// Agrees on features; returns the virtio features (not yet set) and the protocol features (set).
fn negotiate(front: &mut FrontEnd, config: &VirtioNetConfig) -> Result<(u64, u64), VirtioNetError> {
    front.set_owner()?;
    let features = config.features & front.features()?;
    let (mut protocol_features, mut has) = (0, 1);
    if features & F_PROTOCOL_FEATURES != 0 {
        protocol_features = config.protocol_features & front.protocol_features()?;
        front.set_protocol_features(protocol_features)?;
        if protocol_features & protocol::F_MQ != 0 {
            has = front.queue_num()?;
        }
    }
    // As QEMU does. A back end that counts rings lets twice as many pass here, and refuses them later.
    if u64::from(config.queue_pairs) > has {
        return Err(VirtioNetError::QueuePairs { wanted: config.queue_pairs, has });
    }
    Ok((features, protocol_features))
}

fn make_ram(config: &VirtioNetConfig) -> Result<GuestRam, RamError> {
    let pair = ring_bytes(config, config.tx) + ring_bytes(config, config.rx);
    let bytes = config.ram_bytes.unwrap_or(usize::from(config.queue_pairs) * pair);
    GuestRam::new(RamConfig { bytes, pages: config.pages, gpa_base: config.gpa_base, sealed: true })
}

/// An upper bound of the RAM that a ring and its buffers take.
fn ring_bytes(config: &VirtioNetConfig, buffers: BufferConfig) -> usize {
    let pieces = match buffers.cut {
        Cut::Pieces { first, rest } if buffers.indirect => {
            1 + buffers.bytes.saturating_sub(first).div_ceil(rest.max(1))
        }
        _ => 2,
    };
    let slot = buffers.bytes as usize + 128 + 16 * pieces as usize + 32;
    usize::from(config.queue_size) * slot + 4096
}

fn make_pair(ram: &GuestRam, config: &VirtioNetConfig, features: u64) -> Result<QueuePair, RingConfigError> {
    let ring = |buffers: BufferConfig| RingConfig {
        size: config.queue_size,
        buffer_bytes: buffers.bytes,
        cut: buffers.cut,
        indirect: buffers.indirect && features & F_INDIRECT_DESC != 0,
        base: config.base,
        kicks: config.kicks,
        order: config.order,
        foreign_headers: config.foreign_headers,
        features,
    };
    Ok(QueuePair { tx: TxRing::new(ram, ring(config.tx))?, rx: RxRing::new(ram, ring(config.rx))? })
}

/// Tells the back end of one ring, its kick last: that one starts it.
fn start_ring(front: &mut FrontEnd, index: u32, queue: &Queue) -> Result<(), FrontEndError> {
    front.set_vring_num(index, queue.config().size.into())?;
    front.set_vring_base(index, queue.base())?;
    front.set_vring_addr(queue.addr(index))?;
    front.set_vring_call(index, Some(queue.call_fd()))?;
    front.set_vring_kick(index, Some(queue.kick_fd()))
}
