//! The control thread of one port: it waits for its own front end, and for nobody else's.
//!
//! It sleeps in poll(2) on what tells it to stop, the alarm of the data plane, the connection, and the listener or the time
//! of the next try to connect. Nothing that a front end is known to do, or leaves undone, makes it wait elsewhere; if
//! something does, the port leaves it behind (docs/decisions/0018).
//!
//! It takes messages and connections at a rate: a front end that wants more waits, and nobody else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::bucket::Bucket;
use super::calls::Calls;
use super::closer::Closer;
use super::connection::{Closed, Connection, DEADLINE};
use super::message::Message;
use super::peer::Peer;
use super::socket::connect_to;
use super::trouble::Malformed;
use super::{Listener, Session, Step};
use crate::vring::{Fault, PortNotifier};
use crate::wire::message::Request;
use pmd::alarm::Alarm;

/// Time between two tries to connect. A peer that comes back is found within it.
const RETRY: Duration = Duration::from_millis(50);

/// Messages a second, and at once: more than twice as many as a VMM sends to set up 128 queue pairs.
const MESSAGES: (u32, u32) = (10_000, 32_768);
/// So many count as one that changes the memory table: mapping and unmapping interrupt all CPUs that lcores run on.
const MEMORY_MESSAGE: u32 = 16;
/// With no message left, how long to wait for some more than one.
const PAUSE: Duration = Duration::from_millis(5);
/// Connections a second, and at once.
const CONNECTIONS: (u32, u32) = (250, 250);
/// How often to look whether descriptors that are closed elsewhere were.
const STUCK_LOOK: Duration = Duration::from_millis(100);

/// How the port meets its front end.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// The front end connects to us.
    Server(Listener),
    /// We connect to the front end, again and again.
    Client(PathBuf),
}

/// Whose processes may be front ends.
#[derive(Clone, Debug)]
pub(crate) enum UidPolicy {
    /// Whoever the mode of our socket's file lets in.
    Any,
    /// These.
    Listed(Vec<u32>),
}

impl UidPolicy {
    fn allows(&self, uid: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(uids) => uids.contains(&uid),
        }
    }
}

/// All that the thread owns.
#[derive(Debug)]
pub(crate) struct Control {
    endpoint: Endpoint,
    policy: UidPolicy,
    session: Arc<Mutex<Session>>,
    alarm: Arc<Alarm>,
    stop: Arc<Alarm>,
    connection: Option<Connection>,
    calls: Calls,
    closer: Closer,
    messages: Bucket,
    connections: Bucket,
    /// When to connect or accept again.
    not_before: Instant,
    /// When to read on.
    read_at: Instant,
}

/// What woke the thread.
#[derive(Debug, Default)]
struct Woken {
    stop: bool,
    alarm: bool,
    connection: bool,
    listener: bool,
}

impl Control {
    pub(crate) fn new(
        endpoint: Endpoint,
        policy: UidPolicy,
        session: Arc<Mutex<Session>>,
        alarm: Arc<Alarm>,
        stop: Arc<Alarm>,
        notifier: Arc<PortNotifier>,
    ) -> Self {
        Self {
            endpoint,
            policy,
            session,
            alarm,
            stop,
            connection: None,
            calls: Calls::new(notifier),
            closer: Closer::default(),
            messages: Bucket::new(MESSAGES.0, MESSAGES.1),
            connections: Bucket::new(CONNECTIONS.0, CONNECTIONS.1),
            not_before: Instant::now(),
            read_at: Instant::now(),
        }
    }

    /// Runs until told to stop. The port's rings may have been stopped for good by then, and its socket closed.
    pub(crate) fn run(mut self) {
        loop {
            let woken = self.wait();
            if woken.stop {
                break;
            }
            self.turn(&woken);
        }
        lock(&self.session).end();
        self.turn_away();
    }

    /// Hangs up on those who wait to be accepted: what they sent already is not to be dropped with the listener.
    fn turn_away(&self) {
        let Endpoint::Server(listener) = &self.endpoint else { return };
        while let Ok(Some(socket)) = listener.accept() {
            drop(Connection::new(socket, self.closer.clone()));
        }
    }

    fn turn(&mut self, woken: &Woken) {
        if woken.alarm {
            self.alarm.clear();
        }
        // Without an alarm, too: whoever notices first that memory is gone.
        let fault = lock(&self.session).see_faults();
        self.calls.make(&self.session);
        if let Some(fault) = fault
            && self.connection.is_some()
        {
            let why = match fault {
                Fault::SlowMemory => {
                    "page faults on guest memory took too much time: see docs/operations/memory.md"
                }
                _ => "the front end took guest memory away",
            };
            self.disconnect(fault.name(), &why);
        }
        if self.connection.is_some() && !self.closer.has_room() {
            self.disconnect(
                "descriptors_stuck",
                &"descriptors that it sent cannot be closed: their files do not answer",
            );
        }
        if woken.connection && self.connection.as_ref().is_some_and(|connection| !self.may_read(connection)) {
            // It hung up while it had to wait; what it sent before that has no effect any more.
            self.closed(&Closed::ByPeer);
        } else if woken.connection {
            self.serve();
        } else if woken.listener {
            self.accept();
        }
        self.enforce_deadline();
        if matches!(self.endpoint, Endpoint::Client(_)) && self.connection.is_none() && self.may_connect() {
            self.try_to_connect();
        }
    }

    /// Sleeps until there is something to do. A hung-up connection is served before a new one is looked at.
    fn wait(&self) -> Woken {
        let mut fds: [Option<(BorrowedFd<'_>, PollFlags)>; 4] = [None; 4];
        fds[0] = Some((self.stop.as_fd(), PollFlags::IN));
        fds[1] = Some((self.alarm.as_fd(), PollFlags::IN));
        if let Some(connection) = &self.connection {
            // Without interest it is heard all the same when it hangs up.
            let interest = if self.may_read(connection) { connection.interest() } else { PollFlags::empty() };
            fds[2] = Some((connection.as_fd(), interest));
        }
        if let Endpoint::Server(listener) = &self.endpoint
            && self.may_connect()
        {
            fds[3] = Some((listener.as_fd(), PollFlags::IN));
        }
        let mut polled: Vec<_> = fds.iter().flatten().map(|(fd, flags)| PollFd::new(fd, *flags)).collect();
        let timeout = self.next_time().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return Woken::default();
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        let mut woken = fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false)).into_iter();
        let mut next = || woken.next().unwrap_or(false);
        Woken { stop: next(), alarm: next(), connection: next(), listener: next() }
    }

    /// Replies go out at any time.
    fn may_read(&self, connection: &Connection) -> bool {
        connection.interest() == PollFlags::OUT || self.read_at <= Instant::now()
    }

    /// Always, but for a moment after it failed, or when there were too many of late; and not while descriptors of the last
    /// front end cannot be closed.
    fn may_connect(&self) -> bool {
        self.not_before <= Instant::now() && self.closer.has_room()
    }

    /// When something is due though nothing happens.
    fn next_time(&self) -> Option<Instant> {
        let deadline = self.connection.as_ref().and_then(Connection::deadline);
        let again = match self.endpoint {
            Endpoint::Client(_) => self.connection.is_none(),
            Endpoint::Server(_) => !self.may_connect(),
        };
        let look_at = Instant::now() + STUCK_LOOK;
        let connect_at = if self.closer.has_room() { self.not_before } else { look_at };
        let connect_at = again.then_some(connect_at);
        let look = self.closer.is_at_work().then_some(look_at);
        let read_at = self.connection.as_ref().filter(|c| !self.may_read(c)).map(|_| self.read_at);
        let times = [deadline, connect_at, look, read_at, self.calls.next_time()];
        times.into_iter().flatten().min()
    }

    /// One message at most, so that stop and alarm have their turn.
    fn serve(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let message = match connection.proceed() {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(closed) => return self.closed(&closed),
        };
        let now = Instant::now();
        self.messages.take(cost(&message), now);
        let wait = self.messages.wait(now);
        let mut session = lock(&self.session);
        if !wait.is_zero() {
            self.read_at = now + wait + PAUSE;
            session.count("messages_delayed");
        }
        let step = session.handle(message);
        drop(session);
        match step {
            Step::Quiet => {}
            Step::Answer(reply) => {
                if let Err(closed) = connection.send(reply) {
                    self.closed(&closed);
                }
            }
            Step::End(trouble) => self.disconnect("disconnected", &trouble),
        }
    }

    /// Looks at who connects: the one front end, one too many, or one that may not.
    fn accept(&mut self) {
        let Endpoint::Server(listener) = &self.endpoint else { return };
        let socket = match listener.accept() {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(e) => return self.cannot_connect(e),
        };
        let now = Instant::now();
        self.connections.take(1, now);
        self.not_before = now + self.connections.wait(now);
        if self.connection.is_some() {
            let _hung_up_last = Connection::new(socket, self.closer.clone());
            let why = "the port has a front end already: closed";
            return lock(&self.session).note("second front end", "second_front_end", &why);
        }
        self.admit(socket);
    }

    fn try_to_connect(&mut self) {
        let Endpoint::Client(path) = &self.endpoint else { return };
        match connect_to(path) {
            Ok(socket) => self.admit(socket),
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => self.retry_later(),
            Err(e) => self.cannot_connect(e),
        }
    }

    /// Starts a session with a peer that may have one.
    fn admit(&mut self, socket: OwnedFd) {
        let socket = Connection::new(socket, self.closer.clone());
        let mut session = lock(&self.session);
        match Peer::of(socket.as_fd()) {
            Ok(peer) if self.policy.allows(peer.uid) && session.closed_for().is_some() => {
                let left = session.closed_for().unwrap_or_default();
                let why = format!(
                    "process {} has to wait {left:.1?}: page faults on this port's guest memory took too much time",
                    peer.pid
                );
                session.note("front end", "slow_memory_wait", &why);
            }
            Ok(peer) if self.policy.allows(peer.uid) => {
                session.begin(peer);
                self.connection = Some(socket);
                return;
            }
            Ok(peer) => {
                let why = format!(
                    "process {} of uid {} is not allowed: add uid={} to the port",
                    peer.pid, peer.uid, peer.uid
                );
                session.note("front end", "uid_refused", &why);
            }
            Err(e) => session.note("front end", "socket_error", &e),
        }
        drop(session);
        if matches!(self.endpoint, Endpoint::Client(_)) {
            self.retry_later();
        }
    }

    fn cannot_connect(&mut self, e: Errno) {
        lock(&self.session).note("connecting", "socket_error", &e);
        self.retry_later();
    }

    fn retry_later(&mut self) {
        self.not_before = Instant::now() + RETRY;
    }

    fn enforce_deadline(&mut self) {
        let Some(connection) = &self.connection else { return };
        if connection.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            self.closed(&Closed::Malformed(Malformed::Slow(DEADLINE)));
        }
    }

    fn closed(&mut self, closed: &Closed) {
        self.disconnect(closed.name(), closed);
    }

    /// Ends the session: rings stopped, memory unmapped, then the connection closed.
    fn disconnect(&mut self, name: &'static str, why: &dyn std::fmt::Display) {
        let mut session = lock(&self.session);
        session.farewell(name, why);
        session.end();
        drop(session);
        self.connection = None;
        if matches!(self.endpoint, Endpoint::Client(_)) {
            self.retry_later();
        }
    }
}

/// What a message takes of the bucket.
fn cost(message: &Message) -> u32 {
    match Request::try_from(message.header.request) {
        Ok(Request::SetMemTable | Request::AddMemReg | Request::RemMemReg) => MEMORY_MESSAGE,
        _ => 1,
    }
}

/// A thread that panicked inside left a session that is still to be stopped: poison changes nothing.
pub(super) fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, lest the thread wakes a moment too early and spins.
    let duration = duration + Duration::from_millis(1);
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}
