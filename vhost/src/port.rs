//! The vhost-user port: a guest's virtio-net device as one more port of the switch.

mod descriptors;
mod spec;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pmd::{Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

use descriptors::Descriptors;
pub use spec::VhostUserSpec;

use crate::memory::{Allowance, DEFAULT_LIMIT};
use crate::session::announce::AnnounceSlot;
use crate::session::{Control, Endpoint, Listener, Offer, Session};
use crate::vring::{Account, GuestRx, GuestTx, PortNotifier, RingNotifier, VringSlot};
use pmd::alarm::Alarm;
use pmd::socket_file::SocketFile;
use pmd::threads::{Role, spawn};
use pmd::wake::Wake;

/// How long who only looks waits for the session. Its thread has it for as long as a message takes; only if that waits for an
/// lcore in the middle of a burst which the system does not let run, longer.
const GLANCE: Duration = Duration::from_millis(50);

/// How long a port that ends waits for its control thread.
const PATIENCE: Duration = Duration::from_secs(1);

/// Control threads that were left behind, of all ports.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// A port whose peer is a guest, through its VMM's vhost-user front end. The guest's transmit queues are our receive
/// halves, and the other way round.
///
/// It exists whether a front end is there or not: front ends come and go, the halves stay.
#[derive(Debug)]
pub struct VhostUserPort {
    /// Its name in the log.
    name: String,
    slots: Vec<Arc<VringSlot>>,
    announce: Arc<AnnounceSlot>,
    counters: PortCounters,
    session: Arc<Mutex<Session>>,
    /// Whether the session's thread was at something that takes long when somebody last looked.
    was_busy: AtomicBool,
    /// The link, as it was last seen.
    was_up: AtomicBool,
    stop: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
    /// A server's socket and its file, which go with the port: its thread has no right to remove files, and may be stuck.
    file: Option<SocketFile>,
    opened: bool,
    _descriptors: Descriptors,
}

impl VhostUserPort {
    /// Makes the socket (server) and starts the control thread. Front ends are served from now on.
    ///
    /// # Errors
    /// [`PortError`] if the socket cannot be made, or the system is out of descriptors or threads.
    pub fn new(spec: &VhostUserSpec) -> Result<Self, PortError> {
        spec.check()?;
        pmd::notify::prepare_process()?;
        let descriptors = Descriptors::set_aside(&spec.path, spec.queues)?;
        let os = |what: &str| {
            let what = format!("vhost-user port {}: {what}", spec.path.display());
            move |source| PortError::Os { what, source }
        };
        let allowance = Arc::new(Allowance::new(spec.memory).map_err(|left| too_much_memory(spec, left))?);
        let (endpoint, file, role) = if spec.client {
            (Endpoint::Client(spec.path.clone()), None, Role::ClientSession)
        } else {
            let (listener, file) = Listener::bind(&spec.path)?;
            (Endpoint::Server(listener), Some(file), Role::Session)
        };
        let alarm = Arc::new(Alarm::new().map_err(os("eventfd"))?);
        let stop = Arc::new(Alarm::new().map_err(os("eventfd"))?);
        let pairs = usize::from(spec.queues);
        let notifier = Arc::new(PortNotifier::new(Arc::clone(&alarm)));
        let slots = make_slots(pairs, &notifier).map_err(os("what wakes an lcore"))?;
        let announce = Arc::new(AnnounceSlot::default());
        let offer = Offer {
            name: spec.path.display().to_string(),
            pairs: spec.queues,
            max_mtu: spec.mtu.unwrap_or(u16::MAX),
        };
        let session = Session::new(offer, slots.clone(), Arc::clone(&announce)).allowed(allowance);
        let session = Arc::new(Mutex::new(session));
        let control = Control::new(
            endpoint,
            spec.uid_policy(),
            Arc::clone(&session),
            alarm,
            Arc::clone(&stop),
            notifier,
        );
        let thread = spawn(spec.thread_name(), role, move || control.run());
        let thread = Some(thread.map_err(os("cannot start its thread"))?);
        let counters = PortCounters::new(pairs, pairs);
        let (was_up, was_busy) = (AtomicBool::new(false), AtomicBool::new(false));
        let name = spec.path.display().to_string();
        Ok(Self {
            name,
            slots,
            announce,
            counters,
            session,
            file,
            was_busy,
            was_up,
            stop,
            thread,
            opened: false,
            _descriptors: descriptors,
        })
    }

    /// The session, unless its thread is at something that takes long. Only the first to find it so waits.
    fn glance(&self) -> Option<MutexGuard<'_, Session>> {
        let patience = if self.was_busy.load(Ordering::Relaxed) { Duration::ZERO } else { GLANCE };
        let session = self.try_lock_for(patience);
        self.was_busy.store(session.is_none(), Ordering::Relaxed);
        session
    }

    fn try_lock_for(&self, patience: Duration) -> Option<MutexGuard<'_, Session>> {
        let end = Instant::now() + patience;
        loop {
            match self.session.try_lock() {
                Ok(session) => return Some(session),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Waits for the control thread, until `end` at most.
    fn leave(&self, thread: JoinHandle<()>, end: Instant) {
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        if !thread.is_finished() {
            let left = LEFT.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!(
                port = self.name,
                left,
                "its control thread is stuck in the kernel and was left behind; what its front end gave it is freed when \
                 that process lets go of it"
            );
        } else if thread.join().is_err() {
            tracing::error!(port = self.name, "a vhost-user control thread panicked");
        }
    }
}

/// What was to be set aside for a port's guest is not there.
fn too_much_memory(spec: &VhostUserSpec, left: u64) -> PortError {
    let (path, asked) = (spec.path.display(), spec.memory.unwrap_or(DEFAULT_LIMIT));
    PortError::Os {
        what: format!(
            "vhost-user port {path}: memory={asked}: only {left} bytes of address space are left to be set aside; give this \
             port or others a smaller memory=SIZE, or none"
        ),
        source: io::ErrorKind::OutOfMemory.into(),
    }
}

/// The vrings of so many pairs. Lcores sleep for the odd ones alone: what the guest sends (virtio 1.3 §5.1.2).
fn make_slots(pairs: usize, notifier: &Arc<PortNotifier>) -> io::Result<Vec<Arc<VringSlot>>> {
    let account = Arc::<Account>::default();
    let slot = |ring: usize| {
        let wake = if ring % 2 == 1 { Some(Wake::new()?) } else { None };
        let slot = VringSlot::new(RingNotifier::new(Arc::clone(notifier)), wake);
        Ok(Arc::new(slot.charged_to(Arc::clone(&account))))
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
        if let Some(session) = self.glance() {
            self.was_up.store(session.is_up(), Ordering::Relaxed);
        }
        if self.was_up.load(Ordering::Relaxed) { Link::Up } else { Link::Down }
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let busy = || vec![("front end", "a message of its is being carried out; ask again".to_owned())];
        self.glance().map_or_else(busy, |session| session.details())
    }
}

impl Drop for VhostUserPort {
    /// Whatever the control thread is at: the path is free, the rings are stopped for good, and a thread that does not end
    /// is left behind. It has nothing then that another port could have.
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(file) = self.file.take() {
            file.close();
        }
        let end = Instant::now() + PATIENCE;
        let inside = self.slots.iter().filter(|slot| !slot.retire(end)).count();
        if inside > 0 {
            tracing::error!(port = self.name, rings = inside, "an lcore does not leave its rings");
        }
        if let Some(thread) = self.thread.take() {
            self.leave(thread, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_does_not_wait_for_the_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm").display().to_string();
        let port = VhostUserPort::new(&path.parse().unwrap()).unwrap();
        assert_eq!((port.link(), port.details()[0].1.as_str()), (Link::Down, "not connected"));
        // As its thread holds it while it waits for something.
        let held = port.session.lock().unwrap();
        assert_eq!(port.link(), Link::Down);
        port.was_up.store(true, Ordering::Relaxed);
        assert_eq!(port.link(), Link::Up, "as it was last seen");
        assert!(port.details()[0].1.contains("ask again"));
        drop(held);
        assert_eq!(port.link(), Link::Down);
    }

    /// A7: whatever keeps the control thread, its port ends, and its path is free. When it goes on it finds its port gone.
    #[test]
    fn a07_a_control_thread_that_is_stuck_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm");
        let spec: VhostUserSpec = path.display().to_string().parse().unwrap();
        let port = VhostUserPort::new(&spec).unwrap();
        let (session, slots) = (Arc::clone(&port.session), port.slots.clone());
        let held = session.lock().unwrap();
        let (start, left) = (Instant::now(), LEFT.load(Ordering::Relaxed));
        drop(port);
        assert!(start.elapsed() < PATIENCE * 5, "{:?}", start.elapsed());
        assert_eq!(LEFT.load(Ordering::Relaxed), left + 1);
        assert!(!path.exists() && slots.iter().all(|slot| !slot.is_running()));
        let next = VhostUserPort::new(&spec).unwrap();
        drop(held);
        let end = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&session) > 1 {
            assert!(Instant::now() < end, "the thread that was left does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(path.exists(), "the socket is the next port's");
        drop(next);
        assert!(!path.exists());
    }

    /// An lcore that never leaves a ring does not keep its port.
    #[test]
    fn a07_an_lcore_that_stays_in_a_ring_keeps_no_port() {
        let folder = tempfile::tempdir().unwrap();
        let spec: VhostUserSpec = folder.path().join("vm").display().to_string().parse().unwrap();
        let port = VhostUserPort::new(&spec).unwrap();
        let slot = Arc::clone(&port.slots[1]);
        let inside = slot.try_enter().unwrap();
        let start = Instant::now();
        drop(port);
        assert!(start.elapsed() < PATIENCE * 5, "{:?}", start.elapsed());
        drop(inside);
        assert!(!folder.path().join("vm").exists());
    }
}
