//! The vhost-user port: a guest's virtio-net device as one more port of the switch.

mod spec;

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pmd::{Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

pub use spec::VhostUserSpec;

use crate::session::announce::AnnounceSlot;
use crate::session::{Control, Endpoint, Listener, Offer, Session, lock};
use crate::vring::{GuestRx, GuestTx, VringSlot};
use pmd::alarm::Alarm;
use pmd::wake::Wake;

/// A port whose peer is a guest, through its VMM's vhost-user front end. The guest's transmit queues are our receive
/// halves, and the other way round.
///
/// It exists whether a front end is there or not: front ends come and go, the halves stay.
#[derive(Debug)]
pub struct VhostUserPort {
    slots: Vec<Arc<VringSlot>>,
    announce: Arc<AnnounceSlot>,
    counters: PortCounters,
    session: Arc<Mutex<Session>>,
    stop: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
    opened: bool,
}

impl VhostUserPort {
    /// Makes the socket (server) and starts the control thread. Front ends are served from now on.
    ///
    /// # Errors
    /// [`PortError`] if the socket cannot be made, or the system is out of descriptors or threads.
    pub fn new(spec: &VhostUserSpec) -> Result<Self, PortError> {
        spec.check()?;
        let os = |what: &str| {
            let what = format!("vhost-user port {}: {what}", spec.path.display());
            move |source| PortError::Os { what, source }
        };
        let endpoint = if spec.client {
            Endpoint::Client(spec.path.clone())
        } else {
            Endpoint::Server(Listener::bind(&spec.path)?)
        };
        let alarm = Arc::new(Alarm::new().map_err(os("eventfd"))?);
        let stop = Arc::new(Alarm::new().map_err(os("eventfd"))?);
        let pairs = usize::from(spec.queues);
        let slots = make_slots(pairs, &alarm).map_err(os("what wakes an lcore"))?;
        let announce = Arc::new(AnnounceSlot::default());
        let offer = Offer {
            name: spec.path.display().to_string(),
            pairs: spec.queues,
            max_mtu: spec.mtu.unwrap_or(u16::MAX),
        };
        let session = Arc::new(Mutex::new(Session::new(offer, slots.clone(), Arc::clone(&announce))));
        let control =
            Control::new(endpoint, spec.uid_policy(), Arc::clone(&session), alarm, Arc::clone(&stop));
        let thread = std::thread::Builder::new().name(spec.thread_name()).spawn(move || control.run());
        let thread = Some(thread.map_err(os("cannot start its thread"))?);
        let counters = PortCounters::new(pairs, pairs);
        Ok(Self { slots, announce, counters, session, stop, thread, opened: false })
    }
}

/// The vrings of so many pairs. Lcores sleep for the odd ones alone: what the guest sends (virtio 1.3 §5.1.2).
fn make_slots(pairs: usize, alarm: &Arc<Alarm>) -> io::Result<Vec<Arc<VringSlot>>> {
    let slot = |ring: usize| {
        let wake = if ring % 2 == 1 { Some(Wake::new()?) } else { None };
        Ok(Arc::new(VringSlot::new(Arc::clone(alarm), wake)))
    };
    (0..2 * pairs).map(slot).collect()
}

impl Port for VhostUserPort {
    fn kind(&self) -> &'static str {
        "vhost-user"
    }

    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError> {
        if std::mem::replace(&mut self.opened, true) {
            return Err(PortError::QueuesTaken);
        }
        let mut queues = Queues::default();
        for (pair, rings) in self.slots.chunks_exact(2).enumerate() {
            // The guest receives on even rings and sends on odd ones (virtio 1.3 §5.1.2).
            let (guest_rx, guest_tx) = (Arc::clone(&rings[0]), Arc::clone(&rings[1]));
            let rx_counters = Arc::clone(&self.counters.rx[pair]);
            let tx_counters = Arc::clone(&self.counters.tx[pair]);
            let rx = GuestTx::new(guest_tx, env, rx_counters, Arc::clone(&self.announce));
            let tx = GuestRx::new(guest_rx, tx_counters);
            queues.rx.push(Box::new(rx) as Box<dyn RxQueue>);
            queues.tx.push(Box::new(tx) as Box<dyn TxQueue>);
        }
        Ok(queues)
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        if lock(&self.session).is_up() { Link::Up } else { Link::Down }
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        lock(&self.session).details()
    }
}

impl Drop for VhostUserPort {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a vhost-user control thread panicked");
        }
    }
}
