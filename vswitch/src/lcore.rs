//! A pinned thread that owns receive halves and turns them in a loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use mbuf::LcoreId;
use pmd::threads::{Role, begin};

use crate::cpu::ThreadId;
use crate::fdb::{Fdb, Sweep};
use crate::forward::{Forwarder, Input};
use crate::handover::Inlet;
use crate::mailbox::Mailbox;
use crate::meter::Meter;
use crate::output::{Output, TxSlot};
use crate::pause::Others;
use crate::roster::Roster;
use crate::sleep::{Doorbell, Patience, Sleeper};
use crate::stages::{Laps, Probe, Untimed};
use crate::stats::LcoreTally;
use crate::timer::TimerWheel;
use crate::{Clock, IdlePolicy, LcoreConfig, OnDeath, SwitchError, cpu};

/// Time without packets before an idle lcore lets others run, and before it sleeps: some times as long as a sleep costs, so
/// that a steady stream is polled and a trickle is slept for.
const YIELD_AFTER_NS: u64 = 50_000;
const SLEEP_AFTER_NS: u64 = 200_000;
/// A sleep that hears nothing.
const NAP: Duration = Duration::from_micros(50);
/// Receive halves that an lcore can take without allocating.
const ROOM_FOR_INPUTS: usize = 1024;
/// The timer wheel's tick.
const TICK_NS: u64 = 1_000_000;
/// Ticks between two steps of the FDB's sweep.
const SWEEP_TICKS: u64 = 10;
const TIMERS: u32 = 64;

/// What an lcore hands back of a port.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) inputs: Vec<Input>,
    pub(crate) txs: Vec<TxSlot>,
    pub(crate) inlets: Vec<Inlet>,
}

/// What the control path asks of an lcore.
pub(crate) enum Command {
    AddOutput { number: u16, output: Box<Output>, inlets: Vec<Inlet>, done: Sender<()> },
    AddInputs { inputs: Vec<Input>, done: Sender<()> },
    Detach { number: u16, parts: Sender<Parts> },
    SetStages(bool),
    Stop,
}

/// What happens at a time.
enum Task {
    SweepFdb,
}

/// What all lcores of a switch have in common.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) fdb: Arc<Fdb>,
    pub(crate) idle: IdlePolicy,
    pub(crate) clock: Clock,
    pub(crate) on_death: OnDeath,
}

/// The control path's end of an lcore: its numbers, and the way to tell it something.
#[derive(Clone)]
pub(crate) struct LcoreEnd {
    pub(crate) config: LcoreConfig,
    pub(crate) tally: Arc<CachePadded<LcoreTally>>,
    pub(crate) bell: Arc<Doorbell>,
    pub(crate) thread_id: ThreadId,
    mailbox: Arc<Mailbox<Command>>,
    thread: Thread,
}

impl LcoreEnd {
    /// Puts a command into its mailbox and wakes it.
    pub(crate) fn post(&self, command: Command) {
        self.mailbox.post(command);
        self.bell.ring();
        self.thread.unpark();
    }
}

/// An lcore, as the switch has it.
pub(crate) struct Lcore {
    pub(crate) end: LcoreEnd,
    thread: JoinHandle<()>,
}

impl Lcore {
    /// Starts the thread; returns once it is pinned. The first one of a switch sweeps the FDB.
    pub(crate) fn start(config: &LcoreConfig, common: &Common, sweeps: bool) -> Result<Self, SwitchError> {
        let (tally, mailbox) = (LcoreTally::new(), Arc::<Mailbox<Command>>::default());
        let (ready, started) = channel();
        let (cpu, common) = (config.cpu, common.clone());
        let bell = Arc::new(Doorbell::new().map_err(SwitchError::Wake)?);
        let sleeper = Sleeper::new(Arc::clone(&bell)).map_err(SwitchError::Wake)?;
        let turner = Turner::new(&common, Arc::clone(&tally), Arc::clone(&mailbox), sleeper, sweeps);
        let id = config.id;
        let body = move || match settle(cpu, common.idle) {
            Ok(_identity) => {
                // Nobody listens any more if the switch gave up starting.
                if ready.send(Ok(ThreadId::current())).is_ok() {
                    let _watch = DeathWatch { lcore: id, on_death: common.on_death };
                    turner.run();
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        let name = format!("lcore{}", config.id);
        let thread = std::thread::Builder::new().name(name).spawn(body).map_err(SwitchError::Thread)?;
        let thread_id = started.recv().unwrap_or(Err(SwitchError::LcoreDied(config.id)))?;
        let (config, unparks) = (config.clone(), thread.thread().clone());
        Ok(Self { end: LcoreEnd { config, tally, bell, thread_id, mailbox, thread: unparks }, thread })
    }

    /// Waits for its answer.
    pub(crate) fn answer<T>(&self, from: &Receiver<T>, patience: Duration) -> Result<T, SwitchError> {
        const LOOK: Duration = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        loop {
            if let Ok(answer) = from.recv_timeout(LOOK) {
                return Ok(answer);
            }
            if self.thread.is_finished() {
                return Err(SwitchError::LcoreDied(self.end.config.id));
            }
            waited += LOOK;
            if waited >= patience {
                return Err(SwitchError::NotQuiescing(self.end.config.id, patience));
            }
        }
    }

    /// Asks it to end, and waits for that as long as it seems to run.
    pub(crate) fn stop(self, patience: Duration) {
        self.end.post(Command::Stop);
        let end = std::time::Instant::now() + patience;
        while !self.thread.is_finished() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        if self.thread.is_finished() {
            // A panic was reported when it happened; there is nothing left to do about it.
            drop(self.thread.join());
        }
    }
}

/// Tells of an lcore whose thread unwinds.
struct DeathWatch {
    lcore: usize,
    on_death: OnDeath,
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.on_death.tell(self.lcore);
        }
    }
}

/// Gives the thread its CPU, that by which it calls guests, an identity for the mempools' caches and, if it sleeps, a timer
/// that is punctual.
fn settle(cpu: Option<usize>, idle: IdlePolicy) -> Result<LcoreId, SwitchError> {
    if let Some(cpu) = cpu {
        cpu::pin(cpu)?;
    }
    if idle == IdlePolicy::Adaptive {
        // Without it naps last 50 us longer, which is no reason to fail.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
    }
    pmd::notify::prepare_thread()?;
    let identity = LcoreId::claim().ok_or(SwitchError::TooManyLcores(mbuf::MAX_LCORES + 1))?;
    begin(Role::Lcore).map_err(SwitchError::Thread)?;
    Ok(identity)
}

/// The thread's own end.
struct Turner {
    inputs: Vec<Input>,
    roster: Roster,
    forwarder: Forwarder,
    tally: Arc<CachePadded<LcoreTally>>,
    mailbox: Arc<Mailbox<Command>>,
    meter: Meter,
    clock: Clock,
    wheel: TimerWheel<Task>,
    sweep: Sweep,
    fdb: Arc<Fdb>,
    idle: IdlePolicy,
    sleeper: Sleeper,
    patience: Patience,
    empty_turns: u32,
    /// Cycles are counted by stage.
    timed: bool,
    stopped: bool,
}

impl Turner {
    fn new(
        common: &Common,
        tally: Arc<CachePadded<LcoreTally>>,
        mailbox: Arc<Mailbox<Command>>,
        sleeper: Sleeper,
        sweeps: bool,
    ) -> Self {
        let mut wheel = TimerWheel::with_capacity(TIMERS);
        if sweeps {
            let set = wheel.set(SWEEP_TICKS, Task::SweepFdb);
            debug_assert!(set.is_ok(), "the wheel is empty");
        }
        Self {
            inputs: Vec::with_capacity(ROOM_FOR_INPUTS),
            roster: Roster::with_capacity(ROOM_FOR_INPUTS),
            forwarder: Forwarder::with_tally(Arc::clone(&common.fdb), Arc::clone(&tally)),
            tally,
            mailbox,
            meter: Meter::new(),
            clock: common.clock.clone(),
            wheel,
            sweep: Sweep::default(),
            fdb: Arc::clone(&common.fdb),
            idle: common.idle,
            sleeper,
            patience: Patience::default(),
            empty_turns: 0,
            timed: false,
            stopped: false,
        }
    }

    fn run(mut self) {
        while !self.stopped {
            if self.timed {
                self.run_until_mail(&mut Laps::new(Arc::clone(&self.tally)));
            } else {
                self.run_until_mail(&mut Untimed);
            }
            self.read_mail();
        }
    }

    /// Turns, at least once, until the control path wants something: a mailbox that cannot be read just now holds up nothing.
    #[inline(never)]
    fn run_until_mail(&mut self, probe: &mut impl Probe) {
        loop {
            let packets = self.turn(probe);
            if self.meter.note(packets != 0, &self.tally) {
                self.look_at_clock();
            }
            if packets == 0 {
                self.rest();
            } else {
                self.empty_turns = 0;
            }
            if self.mailbox.has_mail() {
                return;
            }
        }
    }

    /// One turn: a burst from each receive queue, then what others handed over, then receivers are told.
    #[inline(always)]
    fn turn(&mut self, probe: &mut impl Probe) -> usize {
        probe.begin();
        let mut packets = 0;
        for i in 0..self.roster.begin(self.empty_turns == 0) {
            if let Some(at) = self.roster.visit(i) {
                packets += self.visit(at, probe);
            }
        }
        self.roster.end(packets);
        let Self { inputs, roster, forwarder, .. } = self;
        let mut others = Others::all(inputs, roster);
        packets += forwarder.take_handovers(probe, &mut others) + others.packets;
        self.forwarder.end_turn_with(probe);
        self.tally.polls.add(1);
        self.tally.packets.add(packets as u64);
        packets
    }

    /// A burst from the receive queue at `at`, and from others if that takes long; returns how many packets.
    #[inline(always)]
    fn visit(&mut self, at: usize, probe: &mut impl Probe) -> usize {
        let Self { inputs, roster, forwarder, .. } = self;
        let Some((input, mut others)) = Others::than(at, inputs, roster) else { return 0 };
        let count = forwarder.poll_with(input, probe, &mut others);
        others.account(forwarder, input, at, count);
        if count != 0 {
            others.visited(forwarder, probe);
        }
        count + others.packets
    }

    /// Spins, lets others run, sleeps: the longer nothing comes, the more.
    #[inline]
    fn rest(&mut self) {
        self.empty_turns = self.empty_turns.saturating_add(1);
        match self.meter.idle_for_ns() {
            _ if self.idle == IdlePolicy::Spin => std::hint::spin_loop(),
            ..YIELD_AFTER_NS => std::hint::spin_loop(),
            YIELD_AFTER_NS..SLEEP_AFTER_NS => std::thread::yield_now(),
            SLEEP_AFTER_NS.. => self.lie_down(),
        }
    }

    /// Sleeps until something comes or is due. If that is not possible, or does not pay, naps.
    #[cold]
    fn lie_down(&mut self) {
        let may_sleep = self.patience.may_sleep(self.meter.now_ns(), self.tally.packets.get());
        if !(may_sleep && self.sleep()) {
            std::thread::park_timeout(NAP);
        }
        self.meter.look(false, &self.tally);
        self.look_at_clock();
    }

    /// Arms all receive halves and sleeps. False if it is no use to try that again soon.
    fn sleep(&mut self) -> bool {
        let most = self.until_next_timer();
        let Self { inputs, sleeper, patience, forwarder, mailbox, .. } = self;
        // Those that nothing wakes for first: mostly they refuse.
        let armed = inputs.iter_mut().all(|i| i.watched || i.queue.arm())
            && inputs.iter_mut().all(|i| !i.watched || i.queue.arm());
        if armed {
            patience.slept(sleeper.sleep(most, || !forwarder.has_handovers() && !mailbox.has_mail()));
        }
        inputs.iter_mut().for_each(|input| input.queue.disarm());
        armed || patience.try_again()
    }

    fn until_next_timer(&self) -> Duration {
        let due_ns = self.wheel.next_tick().map_or(u64::MAX, |tick| tick.saturating_mul(TICK_NS));
        Duration::from_nanos(due_ns.saturating_sub(self.clock.now_ns()))
    }

    /// Does what is due.
    fn look_at_clock(&mut self) {
        let tick = self.clock.now_ns() / TICK_NS;
        if tick == self.wheel.now() {
            return;
        }
        // Ages count from second 1 on, so that second 0 is before anything was seen.
        let now_s = (tick * TICK_NS / 1_000_000_000) as u32 + 1;
        self.forwarder.set_now_s(now_s);
        while let Some(task) = self.wheel.pop_expired(tick) {
            match task {
                Task::SweepFdb => self.fdb.sweep_step(&mut self.sweep, now_s),
            }
            let set = self.wheel.set(tick + SWEEP_TICKS, task);
            debug_assert!(set.is_ok(), "it was taken out just now");
        }
    }

    /// Between turns nothing is in hand: halves may come and go.
    #[cold]
    fn read_mail(&mut self) {
        while let Some(command) = self.mailbox.take() {
            // An answer that nobody waits for any more is no error: what was asked for is done.
            match command {
                Command::AddOutput { number, output, inlets, done } => {
                    self.forwarder.set_output(number, output, inlets);
                    let _ = done.send(());
                }
                Command::AddInputs { inputs, done } => {
                    self.inputs.extend(inputs.into_iter().map(|mut input| {
                        input.watched = self.sleeper.watch(&*input.queue);
                        input
                    }));
                    self.roster.reset(self.inputs.len());
                    let _ = done.send(());
                }
                Command::Detach { number, parts } => {
                    let _ = parts.send(self.detach(number));
                }
                Command::SetStages(on) => self.timed = on,
                Command::Stop => self.stopped = true,
            }
        }
    }

    fn detach(&mut self, number: u16) -> Parts {
        let inputs: Vec<_> = self.inputs.extract_if(.., |input| input.port.number() == number).collect();
        inputs.iter().for_each(|input| self.sleeper.unwatch(&*input.queue));
        self.roster.reset(self.inputs.len());
        let (txs, inlets) = self.forwarder.take_output(number);
        Parts { inputs, txs, inlets }
    }
}
