//! An interface under AF_XDP, as a driver under [`NicPort`](crate::nic::NicPort): brought up, looked after, let go of.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mbuf::MAX_BURST;

use crate::bus::BusError;
use crate::nic::{Health, NicDriver, NicError, Rings};
use crate::vdev::af_packet::socket::keep_promiscuous;
use crate::vdev::af_xdp::custody::Custody;
use crate::vdev::af_xdp::errors;
use crate::vdev::af_xdp::parts::Parts;
use crate::vdev::af_xdp::program::{Attached, Place, Program};
use crate::vdev::af_xdp::queue::{self, Mode, Opened, QueueEnd, Wanted};
use crate::vdev::af_xdp::rx::AfXdpRx;
use crate::vdev::af_xdp::socket::RX_ENTRIES;
use crate::vdev::af_xdp::totals::Totals;
use crate::vdev::af_xdp::tx::AfXdpTx;
use crate::vdev::af_xdp::umem::Umem;
use crate::vdev::af_xdp::{AfXdpConfig, Copying};
use crate::vdev::ethtool;
use crate::vdev::interface::Interface;
use crate::{Link, QueueEnv};

/// Ethernet's header, which the MTU does not count.
const HEADER: usize = 14;
/// Looks between two readings of what the kernel dropped.
const LOOKS: u32 = 50;
/// At most a quarter of the pool waits in fill rings.
const SHARE_OF_POOL: usize = 4;

/// The driver.
#[derive(Debug)]
pub(crate) struct AfXdp {
    config: AfXdpConfig,
    interface: Interface,
    index: u32,
    program: Program,
    _promiscuous: OwnedFd,
    /// Whether there is a device that finishes its checksums behind the interface.
    is_hardware: bool,
    max_frame: Arc<AtomicUsize>,
    link: Link,
    /// What there is only while it runs.
    running: Option<Running>,
    looks: u32,
    totals: Totals,
}

#[derive(Debug)]
struct Running {
    /// Dropped first: no frame comes any more.
    place: Place,
    mode: Mode,
    ends: Vec<Arc<QueueEnd>>,
}

impl AfXdp {
    /// Finds the interface, sets it up, and loads the program. Its frames still go where they went.
    ///
    /// # Errors
    /// [`NicError`]: says what is missing (the interface, a right, a queue) and the mend.
    pub(crate) fn open(config: &AfXdpConfig) -> Result<Self, NicError> {
        let name = &config.interface;
        let no_socket = BusError::os("cannot make a socket for interface calls");
        let interface = Interface::new(name).map_err(no_socket)?;
        let index = interface.index().map_err(|e| errors::no_interface(name, e))?;
        interface.bring_up().map_err(errors::from_port)?;
        errors::check_queues(name, config.queues, ethtool::receive_queues(&interface))?;
        let program = Program::load(config.queues as u32).map_err(|e| errors::program(name, e))?;
        let promiscuous = keep_promiscuous(index).map_err(|e| errors::promiscuous(name, e))?;
        let driver = ethtool::driver(&interface);
        Ok(Self {
            is_hardware: driver.is_some_and(|(name, device)| device && name != "virtio_net"),
            config: config.clone(),
            max_frame: Arc::new(AtomicUsize::new(frame_of(&interface))),
            link: interface.link(),
            interface,
            index,
            program,
            _promiscuous: promiscuous,
            running: None,
            looks: 0,
            totals: Totals::default(),
        })
    }

    /// Attaches the program, opens the queues and leads the frames there.
    fn bring_up(&mut self, env: QueueEnv) -> Result<(Vec<Opened>, Running), NicError> {
        let name = &self.config.interface;
        let umem = Umem::of(env.pool).ok_or_else(|| errors::small_mbufs(name, env.pool.data_room()))?;
        let place = self.program.attach(self.index).map_err(|e| errors::attach(name, e))?;
        let modes = self.modes(umem, place.attached)?;
        let share = env.pool.total() / (SHARE_OF_POOL * self.config.queues);
        let buffers = share.clamp(MAX_BURST, RX_ENTRIES as usize);
        let wanted = Wanted { index: self.index, queues: self.config.queues as u32, buffers, env };
        let (opened, mode) = queue::open(&wanted, &modes)
            .map_err(|(step, e)| errors::queue(name, &step, e, env.pool.zone().len()))?;
        for (queue, opened) in (0..).zip(&opened) {
            let Some(socket) = opened.end.event() else { continue };
            self.program.send_to(queue, socket).map_err(|e| errors::program(name, e))?;
        }
        let ends = opened.iter().map(|o| Arc::clone(&o.end)).collect();
        Ok((opened, Running { place, mode, ends }))
    }

    /// The modes that may be tried, best first.
    fn modes(&self, umem: Umem, attached: Attached) -> Result<Vec<Mode>, NicError> {
        let copying = self.config.copying;
        let mut modes = Vec::new();
        let both =
            |zero_copy, umem| [true, false].map(|several_buffers| Mode { zero_copy, several_buffers, umem });
        let direct = umem.for_zero_copy().filter(|_| attached == Attached::Native);
        match direct {
            Some(umem) if copying != Some(Copying::Copy) => {
                // Frames that do not fit into one buffer would be lost where several cannot be used, unless that was asked for.
                let fits = self.max_frame.load(Ordering::Relaxed) <= umem.sure_frame_room()
                    || copying == Some(Copying::ZeroCopy);
                modes.extend(both(true, umem).into_iter().filter(|m| m.several_buffers || fits));
            }
            None if copying == Some(Copying::ZeroCopy) => {
                return Err(errors::no_zero_copy(&self.config.interface, attached));
            }
            _ => {}
        }
        if copying != Some(Copying::ZeroCopy) {
            modes.extend(both(false, umem));
        }
        Ok(modes)
    }

    fn rings(&self, opened: Vec<Opened>, running: &Running, env: QueueEnv) -> Rings<AfXdpRx, AfXdpTx> {
        let Mode { umem, several_buffers, .. } = running.mode;
        let may_be_unfinished = !self.is_hardware || running.place.attached == Attached::Generic;
        let mut rings = Rings { rx: Vec::new(), tx: Vec::new() };
        for Opened { fill, rx, tx, completion, end } in opened {
            let rx_end = Arc::clone(&end);
            rings.rx.push(AfXdpRx::new(rx, fill, may_be_unfinished, rx_end));
            let parts = Parts::new(umem, env.port, several_buffers);
            let max_frame = Arc::clone(&self.max_frame);
            rings.tx.push(AfXdpTx::new((tx, completion), Custody::new(umem), parts, max_frame, end));
        }
        rings
    }

    /// Wakes the kernel for what it left over: nobody else may come to do so.
    fn wake_left_over(&self) {
        let ends = self.running.iter().flat_map(|r| &r.ends);
        for end in ends.filter(|e| e.zero_copy || e.left_over.load(Ordering::Relaxed)) {
            if end.zero_copy {
                end.wake_rx();
            }
            // The next look tries again.
            end.wake_tx();
        }
    }
}

fn frame_of(interface: &Interface) -> usize {
    interface.mtu().unwrap_or(1500) + HEADER
}

impl NicDriver for AfXdp {
    type Rx = AfXdpRx;
    type Tx = AfXdpTx;

    fn name(&self) -> &'static str {
        "af_xdp"
    }

    fn queue_pairs(&self) -> usize {
        self.config.queues
    }

    fn start(&mut self, env: QueueEnv) -> Result<Rings<AfXdpRx, AfXdpTx>, NicError> {
        if self.look() == Health::Gone {
            return Err(BusError::Gone(self.config.interface.clone()).into());
        }
        let (opened, running) = self.bring_up(env)?;
        let rings = self.rings(opened, &running, env);
        self.running = Some(running);
        Ok(rings)
    }

    /// Ends the frames' way to us. The memory is safe until the rings are dropped: see [`QueueEnd`].
    fn stop(&mut self) {
        self.running = None;
    }

    /// An interface of the same name may be another one: its index tells.
    fn look(&mut self) -> Health {
        if !self.interface.index().is_ok_and(|i| i == self.index) {
            self.link = Link::Down;
            return Health::Gone;
        }
        self.link = self.interface.link();
        self.max_frame.store(frame_of(&self.interface), Ordering::Relaxed);
        self.wake_left_over();
        if let Some(running) = self.running.as_ref().filter(|_| self.looks.is_multiple_of(LOOKS)) {
            self.totals = Totals::of(&running.ends);
        }
        self.looks = self.looks.wrapping_add(1);
        Health::Good
    }

    fn link(&self) -> Link {
        self.link
    }

    fn max_frame(&self) -> usize {
        self.max_frame.load(Ordering::Relaxed)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let Some(running) = &self.running else { return Vec::new() };
        let Mode { several_buffers, umem, .. } = running.mode;
        let zero_copy = running.ends.iter().all(|e| e.zero_copy);
        let pieces = if several_buffers { "several buffers" } else { "one buffer" };
        let mut details = vec![
            ("mode", if zero_copy { "zero_copy" } else { "copy" }.to_owned()),
            ("program", running.place.attached.name().to_owned()),
            ("frames", format!("{pieces} of {} bytes", umem.frame_room())),
        ];
        details.extend(self.totals.details());
        details
    }

    fn rx_event(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        self.running.as_ref()?.ends.get(pair)?.event()
    }
}
