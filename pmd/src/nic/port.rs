//! A NIC as a port.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::halves::{NicRx, NicTx};
use super::slot::Slot;
use super::watch::{Opener, Pair, State, Status, Watch, lock};
use super::{NicDriver, NicError};
use crate::alarm::Alarm;
use crate::threads::{Role, spawn};
use crate::wake::Wake;
use crate::{Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

/// A port whose device is a NIC under `D`.
///
/// It exists as long as it is not removed, whether its device is there or not: a device that is unplugged is let go of within
/// a moment, and taken back when it returns under its name and is bound to us again. Its halves stay; without a device they
/// see nothing, and drop what is sent under `tx_not_ready`.
pub struct NicPort<D: NicDriver> {
    name: String,
    kind: &'static str,
    /// The device, until the halves are made.
    fresh: Option<(D, Opener<D>)>,
    counters: PortCounters,
    status: Arc<Mutex<Status>>,
    stop: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
}

impl<D: NicDriver> std::fmt::Debug for NicPort<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NicPort")
            .field("name", &self.name)
            .field("status", &lock(&self.status))
            .finish_non_exhaustive()
    }
}

impl<D: NicDriver> NicPort<D> {
    /// Opens the device `name` by `opener`, now and whenever it was lost and may be back. `kind` is the port specification's
    /// word.
    ///
    /// # Errors
    /// [`PortError`] if it cannot be opened.
    pub fn new(
        kind: &'static str,
        name: &str,
        opener: impl Fn() -> Result<D, NicError> + Send + 'static,
    ) -> Result<Self, PortError> {
        let driver = opener().map_err(PortError::from)?;
        let pairs = driver.queue_pairs();
        let status = Status {
            state: State::Resetting,
            link: Link::Down,
            max_frame: driver.max_frame(),
            details: driver.details(),
            resets: 0,
            trouble: None,
        };
        let stop = Alarm::new().map_err(|source| PortError::Os { what: "eventfd".into(), source })?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            fresh: Some((driver, Box::new(opener))),
            counters: PortCounters::new(pairs, pairs),
            status: Arc::new(Mutex::new(status)),
            stop: Arc::new(stop),
            thread: None,
        })
    }

    fn pairs(&self) -> Vec<Pair<D::Rx, D::Tx>> {
        let pair = || Pair {
            rx: Arc::new(Slot::new()),
            tx: Arc::new(Slot::new()),
            wake: Wake::new().ok().map(Arc::new),
        };
        self.counters.rx.iter().map(|_| pair()).collect()
    }

    fn halves(&self, pairs: &[Pair<D::Rx, D::Tx>], reflects: bool) -> Queues {
        let mut queues = Queues::default();
        for (number, pair) in pairs.iter().enumerate() {
            let rx = NicRx {
                slot: Arc::clone(&pair.rx),
                counters: Arc::clone(&self.counters.rx[number]),
                wake: pair.wake.clone(),
                reflects,
            };
            let tx = NicTx { slot: Arc::clone(&pair.tx), counters: Arc::clone(&self.counters.tx[number]) };
            queues.rx.push(Box::new(rx) as Box<dyn RxQueue>);
            queues.tx.push(Box::new(tx) as Box<dyn TxQueue>);
        }
        queues
    }
}

impl<D: NicDriver> Port for NicPort<D> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    /// Brings the device up, and starts the thread that looks after it.
    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError> {
        let Some((driver, opener)) = self.fresh.take() else { return Err(PortError::QueuesTaken) };
        let pairs = self.pairs();
        let queues = self.halves(&pairs, driver.reflects());
        let mut watch = Watch {
            name: self.name.clone(),
            opener,
            driver: Some(driver),
            env,
            pairs,
            status: Arc::clone(&self.status),
            stop: Arc::clone(&self.stop),
            retry: Duration::ZERO,
        };
        watch.first_start()?;
        let thread = spawn(format!("nic {}", self.name), Role::Nic, move || watch.run());
        let no_thread = |source| PortError::Os { what: "cannot start a NIC's thread".into(), source };
        self.thread = Some(thread.map_err(no_thread)?);
        Ok(queues)
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        lock(&self.status).link
    }

    fn max_frame(&self) -> usize {
        lock(&self.status).max_frame
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let status = lock(&self.status);
        let mut details = vec![("device", self.name.clone()), ("state", status.state.name().to_owned())];
        details.extend(status.details.iter().cloned());
        details.push(("resets", status.resets.to_string()));
        details.extend(status.trouble.clone().map(|why| ("last trouble", why)));
        details
    }
}

impl<D: NicDriver> Drop for NicPort<D> {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(port = self.name, "a NIC's thread panicked");
        }
    }
}
