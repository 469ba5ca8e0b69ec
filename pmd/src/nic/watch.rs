//! The thread that looks after a NIC: brings its device up, resets it, lets go of it, takes it back.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::slot::Slot;
use super::{Health, NicDriver, NicError, Rings};
use crate::alarm::Alarm;
use crate::wake::{Wake, is_readable};
use crate::{Link, QueueEnv};

/// Time between two looks at a device that works.
const TICK: Duration = Duration::from_millis(10);
/// Time between two tries to bring a device up that does not, or to find one that is gone: doubled from the first to the
/// second.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_AT_MOST: Duration = Duration::from_secs(1);

/// Opens the device again, by name.
pub(super) type Opener<D> = Box<dyn Fn() -> Result<D, NicError> + Send>;

/// What a port tells of its device, written by the watch thread.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) state: State,
    pub(super) link: Link,
    pub(super) max_frame: usize,
    pub(super) details: Vec<(&'static str, String)>,
    /// How often the device was brought up again.
    pub(super) resets: u64,
    /// Why, the last time; or why it cannot be.
    pub(super) trouble: Option<String>,
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its rings run.
    Running,
    /// It is there, and is being brought up again.
    Resetting,
    /// It is not there.
    Absent,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Resetting => "resetting",
            Self::Absent => "absent",
        }
    }
}

/// A pair's places.
#[derive(Debug)]
pub(super) struct Pair<R, T> {
    pub(super) rx: Arc<Slot<R>>,
    pub(super) tx: Arc<Slot<T>>,
    pub(super) wake: Option<Arc<Wake>>,
}

/// All that the thread owns.
pub(super) struct Watch<D: NicDriver> {
    pub(super) name: String,
    pub(super) opener: Opener<D>,
    /// None while the device is absent.
    pub(super) driver: Option<D>,
    pub(super) env: QueueEnv,
    pub(super) pairs: Vec<Pair<D::Rx, D::Tx>>,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) stop: Arc<Alarm>,
    pub(super) retry: Duration,
}

impl<D: NicDriver> Watch<D> {
    /// Brings the device up for the first time: whoever makes the port is told why it does not come.
    pub(super) fn first_start(&mut self) -> Result<(), NicError> {
        self.start()
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        while !self.wait() {
            let state = lock(&self.status).state;
            match state {
                State::Running => self.look(),
                State::Resetting => self.try_to_start(),
                State::Absent => self.try_to_open(),
            }
        }
        self.stop_device();
    }

    /// Sleeps until there is something to do; whether it is to end.
    fn wait(&self) -> bool {
        let running = lock(&self.status).state == State::Running;
        let mut fds = vec![self.stop.as_fd()];
        if let Some(driver) = self.driver.as_ref().filter(|_| running) {
            fds.extend(driver.events());
            fds.extend(driver.removal());
        }
        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = timespec(if running { TICK } else { self.retry });
        if poll(&mut polled, Some(&timeout)).is_err() {
            return false;
        }
        polled.first().is_some_and(|stop| !stop.revents().is_empty())
    }

    /// Looks at a device that runs.
    fn look(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        if driver.removal().is_some_and(is_readable) {
            return self.let_go("the system wants it back");
        }
        let trouble = self.pairs.iter().find_map(|p| p.rx.trouble().or(p.tx.trouble()));
        match (driver.look(), trouble) {
            (Health::Gone, _) => self.let_go("it is gone"),
            (Health::Reset(why), _) | (Health::Good, Some(why)) => self.reset(why),
            (Health::Good, None) => self.tell(),
        }
    }

    /// Brings the status, and what the halves know, up to date.
    fn tell(&mut self) {
        let Some(driver) = &self.driver else { return };
        let link = driver.link();
        let mut status = lock(&self.status);
        if status.link != link {
            tracing::info!(port = self.name, %link, "link");
        }
        (status.link, status.max_frame, status.details) = (link, driver.max_frame(), driver.details());
        drop(status);
        for pair in &self.pairs {
            pair.rx.set_ready(link == Link::Up);
            pair.tx.set_ready(link == Link::Up);
        }
    }

    /// Stops the device and brings it up again.
    fn reset(&mut self, why: &'static str) {
        tracing::warn!(port = self.name, why, "the device is reset");
        self.stop_device();
        {
            let mut status = lock(&self.status);
            status.trouble = Some(why.to_owned());
            status.resets += 1;
        }
        self.set_state(State::Resetting);
        self.try_to_start();
    }

    fn try_to_start(&mut self) {
        match self.start() {
            Ok(()) => tracing::info!(port = self.name, "the device runs"),
            Err(error) => self.come_to_nothing(&error),
        }
    }

    /// Makes rings and lends them to the halves.
    fn start(&mut self) -> Result<(), NicError> {
        let Some(driver) = &mut self.driver else { return Ok(()) };
        let Rings { rx, tx } = driver.start(self.env)?;
        for (number, (pair, (rx, tx))) in self.pairs.iter().zip(rx.into_iter().zip(tx)).enumerate() {
            if let (Some(wake), Some(event)) = (&pair.wake, driver.rx_event(number))
                && let Err(error) = wake.hang_in(event)
            {
                tracing::warn!(port = self.name, %error, "no interrupts: lcores will not sleep long");
            }
            pair.rx.put(rx);
            pair.tx.put(tx);
        }
        self.retry = RETRY;
        self.set_state(State::Running);
        self.tell();
        // Whoever sleeps, sleeps on the interrupt of a ring that is no more.
        self.pairs.iter().filter_map(|p| p.wake.as_ref()).for_each(|wake| wake.nudge());
        Ok(())
    }

    /// Takes the rings back, stops the device, and only then frees what it could write to.
    fn stop_device(&mut self) {
        let rings: Vec<_> = self.pairs.iter().map(|p| (p.rx.take(), p.tx.take())).collect();
        if let Some(driver) = &mut self.driver {
            for (number, pair) in self.pairs.iter().enumerate() {
                if let (Some(wake), Some(event)) = (&pair.wake, driver.rx_event(number)) {
                    wake.take_out(event);
                }
            }
            driver.stop();
        }
        drop(rings);
        lock(&self.status).link = Link::Down;
    }

    /// Gives the device up until it comes back.
    fn let_go(&mut self, why: &str) {
        tracing::warn!(port = self.name, why, "the device is let go of");
        self.stop_device();
        self.driver = None;
        lock(&self.status).trouble = Some(why.to_owned());
        self.set_state(State::Absent);
    }

    fn try_to_open(&mut self) {
        match (self.opener)() {
            Ok(driver) => {
                self.driver = Some(driver);
                self.set_state(State::Resetting);
                lock(&self.status).resets += 1;
                self.try_to_start();
            }
            Err(error) => self.come_to_nothing(&error),
        }
    }

    /// A try has failed: the next one is later. Says so once for each kind of failure.
    fn come_to_nothing(&mut self, error: &NicError) {
        self.retry = (self.retry * 2).min(RETRY_AT_MOST);
        let text = error.to_string();
        let mut status = lock(&self.status);
        if status.trouble.as_ref() != Some(&text) {
            tracing::warn!(port = self.name, error = text, "the device cannot be brought up; trying again");
            status.trouble = Some(text);
        }
        drop(status);
        if matches!(error, NicError::Bus(crate::bus::BusError::Gone(_))) {
            self.driver = None;
            self.set_state(State::Absent);
        }
    }

    fn set_state(&self, state: State) {
        lock(&self.status).state = state;
    }
}

/// A thread that panicked while it held the status left one that is still to be read.
pub(super) fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}
