//! The driver: brings a device up (virtio 1.3 §3.1.1), looks after it, stops it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use super::capability::Bell;
use super::ctrlq::{self, Answer, Command, ControlQueue};
use super::features::Features;
use super::packed::Packed;
use super::regs::{net, status};
use super::rings::{VirtioRx, VirtioTx};
use super::rx::{Rx, RxSetup};
use super::split::Split;
use super::transport::{NetConfig, Transport};
use super::tx::{Tx, TxSetup, headers_bytes};
use super::virtqueue::Virtqueue;
use crate::bus::{BusError, DmaArea, PciDevice};
use crate::nic::{Health, NicDriver, NicError, NicOptions, Reach, Rings};
use crate::{Link, QueueEnv};

/// An Ethernet header and a VLAN tag: what a frame has beside its MTU.
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// What a device without VIRTIO_NET_F_MTU is taken to receive.
const USUAL_MTU: usize = 1500;
/// The vector of configuration changes; that of receive queue n is n + 1.
const CONFIG_VECTOR: u16 = 0;

/// A virtio network card under this driver.
pub struct VirtioPci<D: PciDevice> {
    transport: Transport<D>,
    options: NicOptions,
    features: Features,
    config: NetConfig,
    pairs: u16,
    /// Shared with the transmit rings.
    link_up: Arc<AtomicBool>,
    running: Option<Running>,
}

/// What a device has while it runs, rings aside.
struct Running {
    /// The control queue's memory.
    _control: Option<Box<dyn Send>>,
    /// The configuration's, then each receive queue's, if the device has the vectors.
    events: Vec<OwnedFd>,
    sizes: (u16, u16),
    /// What the device refused, and does without.
    refused: Vec<&'static str>,
}

/// The rings of a device, while they are made.
type Made<D, V> = Rings<Rx<V, <D as PciDevice>::Bar>, Tx<V, <D as PciDevice>::Bar>>;

impl<D: PciDevice> VirtioPci<D> {
    /// Takes a device and reads what it can do: steps 1 to 4 of §3.1.1. Touches no memory yet.
    ///
    /// # Errors
    /// [`NicError`]: it is no modern virtio device, or lacks something that we or the operator need.
    pub fn new(device: D, options: &NicOptions) -> Result<Self, NicError> {
        let transport = Transport::new(device)?;
        transport.reset()?;
        transport.add_status(status::ACKNOWLEDGE)?;
        transport.add_status(status::DRIVER)?;
        let mut features = Features::chosen_from(transport.offered());
        if !features.has(Features::VERSION_1) {
            return Err(transport.refused("offers no VIRTIO_F_VERSION_1 (QEMU: disable-legacy=on)"));
        }
        let config = transport.config(features)?;
        if config.mtu < net::MIN_MTU {
            features = features.without(Features::MTU);
        }
        let pairs = pairs(&transport, options, config.max_pairs)?;
        Ok(Self {
            transport,
            options: *options,
            features,
            config,
            pairs,
            link_up: Arc::default(),
            running: None,
        })
    }

    /// Brings the device up with queues of one format.
    fn start_as<V: Virtqueue>(&mut self, env: QueueEnv) -> Result<Made<D, V>, NicError> {
        let t = &self.transport;
        // 1. Reset (§3.1.1). 2., 3. We noticed it, and know how to drive it.
        t.reset()?;
        t.device.set_bus_master(true)?;
        t.add_status(status::ACKNOWLEDGE)?;
        t.add_status(status::DRIVER)?;
        // 4. to 6. What of its features we take; and that it agrees.
        self.negotiate()?;
        // 7. Queues, each with its memory.
        let reach = self.reach(env)?;
        let events = self.interrupts()?;
        let rings = self.rings::<V>(&reach, env, &events)?;
        let mut control = self.control_queue::<V>()?;
        match self.go_live(&rings, control.as_mut()) {
            Ok(refused) => {
                let control = control.map(|queue| Box::new(queue) as Box<dyn Send>);
                let sizes = (rings.rx[0].size(), rings.tx[0].size());
                self.running = Some(Running { _control: control, events, sizes, refused });
                self.set_link(self.transport.link(self.features));
                Ok(rings)
            }
            Err(error) => {
                // Before its memory goes.
                self.halt();
                Err(error)
            }
        }
    }

    /// Step 8 of §3.1.1: from here on the device is live, and may be notified. Returns what it refuses and we do without.
    fn go_live<V: Virtqueue>(
        &self,
        rings: &Made<D, V>,
        control: Option<&mut ControlQueue<V, D::Bar>>,
    ) -> Result<Vec<&'static str>, NicError> {
        self.transport.add_status(status::DRIVER_OK)?;
        rings.rx.iter().for_each(Rx::kick);
        control.map_or(Ok(Vec::new()), |queue| self.command(queue))
    }

    /// Steps 4 to 6 of §3.1.1.
    fn negotiate(&self) -> Result<(), NicError> {
        let t = &self.transport;
        let lost = self.features.without(t.offered());
        if lost != Features::default() {
            return Err(t.refused(format!("offered at first, and does not now: {lost}")));
        }
        t.take(self.features);
        t.add_status(status::FEATURES_OK)?;
        match t.status() {
            Some(s) if s & status::FEATURES_OK != 0 => Ok(()),
            _ => Err(t.refused(format!("does not agree to the features that it offers: {}", self.features))),
        }
    }

    /// Maps the pool, whose mbufs are the buffers, and sees whether the device will find and fill them.
    fn reach(&self, env: QueueEnv) -> Result<Arc<Reach>, NicError> {
        let reach = Reach::new(&self.transport.device, env)?;
        if self.transport.device.has_iommu() && !self.features.has(Features::ACCESS_PLATFORM) {
            let what = "offers no VIRTIO_F_ACCESS_PLATFORM: it would bypass the IOMMU, and take our addresses for \
                        physical ones (QEMU: iommu_platform=on)";
            return Err(self.transport.refused(what));
        }
        let need = self.mtu().unwrap_or(USUAL_MTU) + ETHERNET + TAG;
        let room = env.pool.data_room();
        if need > room && !self.features.has(Features::MRG_RXBUF) {
            let what = format!(
                "offers no VIRTIO_NET_F_MRG_RXBUF, and its frames of {need} bytes do not fit into mbufs of {room}: \
                 give it a smaller MTU (QEMU: host_mtu=)"
            );
            return Err(self.transport.refused(what));
        }
        Ok(Arc::new(reach))
    }

    /// Sets interrupts up, if the device has a vector for each use; none otherwise.
    fn interrupts(&self) -> Result<Vec<OwnedFd>, NicError> {
        let want = usize::from(self.pairs) + 1;
        if self.transport.device.vectors() < want {
            return Ok(Vec::new());
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let made: Result<Vec<_>, _> = (0..want).map(|_| eventfd(0, flags)).collect();
        let events = made.map_err(|e| BusError::os("eventfd")(e.into()))?;
        self.transport.device.set_interrupts(&events)?;
        if self.transport.set_config_vector(CONFIG_VECTOR) {
            return Ok(events);
        }
        self.transport.device.set_interrupts(&[])?;
        Ok(Vec::new())
    }

    /// Makes all receive and transmit rings, buffers posted.
    fn rings<V: Virtqueue>(
        &self,
        reach: &Arc<Reach>,
        env: QueueEnv,
        events: &[OwnedFd],
    ) -> Result<Made<D, V>, NicError> {
        let mut rings = Rings { rx: Vec::new(), tx: Vec::new() };
        for pair in 0..self.pairs {
            let event = events.get(usize::from(pair) + 1);
            rings.rx.push(self.rx_ring(pair, reach, env, event)?);
            rings.tx.push(self.tx_ring(pair, reach, env)?);
        }
        Ok(rings)
    }

    /// Receive queue `pair`: virtqueue 2 * pair (§5.1.2).
    fn rx_ring<V: Virtqueue>(
        &self,
        pair: u16,
        reach: &Arc<Reach>,
        env: QueueEnv,
        event: Option<&OwnedFd>,
    ) -> Result<Rx<V, D::Bar>, NicError> {
        let event = event.map(OwnedFd::try_clone).transpose().map_err(BusError::os("dup of an eventfd"))?;
        let vector = event.is_some().then_some(pair + 1);
        let (queue, bell) = self.queue(2 * pair, self.options.rx_descriptors, vector)?;
        let setup = RxSetup {
            queue,
            bell,
            reach: Arc::clone(reach),
            event,
            env,
            mergeable: self.features.has(Features::MRG_RXBUF),
            allowed: self.features.received(),
        };
        let out = |_| self.transport.refused("gets no mbufs for its receive ring: give Polder more --memory");
        Rx::new(setup).map_err(out)
    }

    /// Transmit queue `pair`: virtqueue 2 * pair + 1 (§5.1.2).
    fn tx_ring<V: Virtqueue>(
        &self,
        pair: u16,
        reach: &Arc<Reach>,
        env: QueueEnv,
    ) -> Result<Tx<V, D::Bar>, NicError> {
        let (queue, bell): (V, _) = self.queue(2 * pair + 1, self.options.tx_descriptors, None)?;
        let headers = DmaArea::new(&self.transport.device, headers_bytes(queue.size()))?;
        Ok(Tx::new(TxSetup {
            queue,
            bell,
            reach: Arc::clone(reach),
            headers,
            env,
            accepted: self.features.sent(),
            max_frame: self.max_frame(),
            link_up: Arc::clone(&self.link_up),
        }))
    }

    fn queue<V: Virtqueue>(
        &self,
        number: u16,
        wanted: u16,
        vector: Option<u16>,
    ) -> Result<(V, Bell<D::Bar>), NicError> {
        let size = self.transport.queue_size(number, wanted)?;
        let queue = V::new(&self.transport.device, size, self.features)?;
        let bell = self.transport.enable(number, &queue, vector)?;
        Ok((queue, bell))
    }

    /// The control queue stands behind all pairs that the device has, used or not (§5.1.2).
    fn control_queue<V: Virtqueue>(&self) -> Result<Option<ControlQueue<V, D::Bar>>, NicError> {
        if !self.features.has(Features::CTRL_VQ) {
            return Ok(None);
        }
        let (queue, bell) = self.queue(2 * self.config.max_pairs, ctrlq::SIZE, None)?;
        Ok(Some(ControlQueue::new(&self.transport.device, queue, bell)?))
    }

    /// What a port of a switch wants: all pairs, and everybody's frames. Returns what it does not get of the latter.
    fn command<V: Virtqueue>(
        &self,
        control: &mut ControlQueue<V, D::Bar>,
    ) -> Result<Vec<&'static str>, NicError> {
        if self.pairs > 1 && self.execute(control, Command::Pairs(self.pairs))? != Answer::Done {
            return Err(self.transport.refused(format!("does not run {} queue pairs", self.pairs)));
        }
        let mut refused = Vec::new();
        if self.features.has(Features::CTRL_RX) {
            for (command, what) in [
                (Command::Promiscuous(true), "promiscuous mode"),
                (Command::AllMulticast(true), "all-multicast mode"),
            ] {
                if self.execute(control, command)? != Answer::Done {
                    tracing::warn!(
                        device = self.transport.name(),
                        "refuses {what}: sees its own frames only"
                    );
                    refused.push(what);
                }
            }
        }
        Ok(refused)
    }

    fn execute<V: Virtqueue>(
        &self,
        control: &mut ControlQueue<V, D::Bar>,
        command: Command,
    ) -> Result<Answer, NicError> {
        match control.execute(command) {
            Answer::None => Err(self.transport.timeout(&format!("answer {command:?}"), ctrlq::PATIENCE, "")),
            answer => Ok(answer),
        }
    }

    /// The MTU, if the device says.
    fn mtu(&self) -> Option<usize> {
        self.features.has(Features::MTU).then_some(usize::from(self.config.mtu))
    }

    /// Ends what was begun: the device touches no memory any more.
    fn halt(&mut self) {
        self.set_link(Link::Down);
        let t = &self.transport;
        let is_gone = t.status().is_none();
        let reset = t.reset();
        let quiet = t.device.quiesce().map_err(NicError::from);
        if let Err(error) = reset.and(quiet)
            && !is_gone
        {
            tracing::warn!(%error, "the function is reset as a whole");
            if let Err(error) = t.device.reset() {
                tracing::error!(%error, "a device could not be stopped: only the IOMMU keeps it from memory");
            }
        }
        if let Some(running) = self.running.take()
            && !running.events.is_empty()
            && let Err(error) = t.device.set_interrupts(&[])
        {
            tracing::debug!(%error, "interrupts of a device that was stopped");
        }
    }

    fn set_link(&self, link: Link) {
        self.link_up.store(link == Link::Up, Ordering::Relaxed);
    }
}

/// How many queue pairs to run: what the operator said, or all that the device has. `num_queues` says nothing of them yet:
/// QEMU's device has but one pair until multiqueue is agreed on.
fn pairs<D: PciDevice>(t: &Transport<D>, options: &NicOptions, most: u16) -> Result<u16, NicError> {
    match options.queues {
        Some(n) if n > most => {
            Err(t.refused(format!("has {most} queue pairs, not {n}: say queues={most} or less")))
        }
        Some(n) => Ok(n.max(1)),
        None => Ok(most),
    }
}

impl<D: PciDevice> NicDriver for VirtioPci<D> {
    type Rx = VirtioRx<D::Bar>;
    type Tx = VirtioTx<D::Bar>;

    fn name(&self) -> &'static str {
        "virtio_pci"
    }

    fn queue_pairs(&self) -> usize {
        usize::from(self.pairs)
    }

    fn start(&mut self, env: QueueEnv) -> Result<Rings<Self::Rx, Self::Tx>, NicError> {
        let started = if self.features.has(Features::RING_PACKED) {
            self.start_as::<Packed>(env).map(|made| Rings {
                rx: made.rx.into_iter().map(VirtioRx::Packed).collect(),
                tx: made.tx.into_iter().map(VirtioTx::Packed).collect(),
            })
        } else {
            self.start_as::<Split>(env).map(|made| Rings {
                rx: made.rx.into_iter().map(VirtioRx::Split).collect(),
                tx: made.tx.into_iter().map(VirtioTx::Split).collect(),
            })
        };
        if started.is_err() {
            self.halt();
        }
        started
    }

    fn stop(&mut self) {
        self.halt();
    }

    fn look(&mut self) -> Health {
        if let Some(config) = self.running.as_ref().and_then(|r| r.events.first()) {
            // Nothing to read if it was not signalled.
            let _ = rustix::io::read(config, &mut [0; 8]);
        }
        match self.transport.status() {
            None => return Health::Gone,
            Some(s) if s & status::NEEDS_RESET != 0 => return Health::Reset("the device asks to be reset"),
            Some(s) if s & status::DRIVER_OK == 0 => return Health::Reset("somebody reset the device"),
            Some(_) => {}
        }
        self.set_link(self.transport.link(self.features));
        Health::Good
    }

    fn link(&self) -> Link {
        if self.link_up.load(Ordering::Relaxed) { Link::Up } else { Link::Down }
    }

    fn max_frame(&self) -> usize {
        self.mtu().unwrap_or(usize::from(u16::MAX)) + ETHERNET
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let is_packed = self.features.has(Features::RING_PACKED);
        let mut details = vec![
            ("driver", self.name().to_owned()),
            ("queue pairs", self.pairs.to_string()),
            ("rings", if is_packed { "packed" } else { "split" }.to_owned()),
        ];
        if self.features.has(Features::MAC) {
            details.push(("mac", self.config.mac.map(|byte| format!("{byte:02x}")).join(":")));
        }
        details.extend(self.mtu().map(|mtu| ("mtu", mtu.to_string())));
        if let Some(running) = &self.running {
            let (rx, tx) = running.sizes;
            details.push(("descriptors", format!("{rx} rx, {tx} tx")));
            details.push(("interrupts", if running.events.is_empty() { "none" } else { "msi-x" }.to_owned()));
            details.extend(running.refused.iter().map(|what| ("refused", (*what).to_owned())));
        }
        details.push(("receive offloads", self.features.received().to_string()));
        details.push(("transmit offloads", self.features.sent().to_string()));
        details.push(("features", self.features.to_string()));
        details
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        let config = self.running.as_ref().and_then(|r| r.events.first());
        config.map(AsFd::as_fd).into_iter().collect()
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        self.transport.device.removal()
    }

    fn rx_event(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        self.running.as_ref()?.events.get(pair + 1).map(AsFd::as_fd)
    }
}

impl<D: PciDevice> Drop for VirtioPci<D> {
    /// Leaves the device reset.
    fn drop(&mut self) {
        self.halt();
    }
}
