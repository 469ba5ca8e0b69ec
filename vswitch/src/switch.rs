//! The control path: lcores are started, ports come and go, numbers are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pmd::{PortCounters, Queues, RxQueue, TxQueue};

use crate::fdb::{Fdb, FdbConfig};
use crate::forward::Input;
use crate::handover::{self, Inlet};
use crate::lcore::{Command, Common, Lcore, Parts};
use crate::output::{Output, TxSlot};
use crate::ports::{PortInfo, PortRecord, State};
use crate::stages::LcoreStages;
use crate::stats::SwitchStats;
use crate::{Clock, PortId, SwitchError, View, cpu};

/// How long the control path waits for an lcore, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// One lcore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LcoreConfig {
    /// Its name in statistics.
    pub id: usize,
    /// The CPU it is pinned to; `None`: wherever the scheduler puts it.
    pub cpu: Option<usize>,
}

/// What an lcore does when nothing comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Polls on, then lets others run, then sleeps until something comes. As long as there is a receive half that nothing
    /// wakes for, or a peer that wakes for nothing again and again, it sleeps 50 us at a time.
    #[default]
    Adaptive,
    /// Polls on: lowest latency, a whole CPU.
    Spin,
}

/// What a switch is made of.
#[derive(Clone, Debug, Default)]
pub struct SwitchConfig {
    /// Its lcores: one to [`mbuf::MAX_LCORES`].
    pub lcores: Vec<LcoreConfig>,
    /// Its forwarding database.
    pub fdb: FdbConfig,
    /// What its lcores do when nothing comes.
    pub idle: IdlePolicy,
    /// What ages go by.
    pub clock: Clock,
    /// Who is told of an lcore that died.
    pub on_death: OnDeath,
}

/// What is called, on the dying thread, when an lcore's thread ends without having been asked to: it panicked, and its queues
/// are lost. The default calls nothing; then the next change of a port fails with [`SwitchError::LcoreDied`].
#[derive(Clone, Default)]
pub struct OnDeath(Option<Arc<dyn Fn(usize) + Send + Sync>>);

impl OnDeath {
    /// Calls `tell` with the lcore's id.
    pub fn call(tell: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, lcore: usize) {
        if let Some(tell) = &self.0 {
            tell(lcore);
        }
    }
}

impl core::fmt::Debug for OnDeath {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("OnDeath").field(&self.0.is_some()).finish()
    }
}

/// Which lcores a port's queues go to, by their ids: queue `j` to the `j`-th, beginning anew after the last.
/// Empty: all of the switch's, beginning at a place that differs from port to port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// For both kinds of halves.
    pub lcores: Vec<usize>,
}

/// A learning switch and its lcores. Dropping it ends the lcores' threads, and with them the queues they hold.
pub struct Switch {
    lcores: Lcores,
    view: View,
    /// Of the ports that are leaving.
    leaving: BTreeMap<PortId, Leaving>,
}

/// The lcores, which end when it is dropped.
struct Lcores {
    all: Vec<Lcore>,
    patience: Duration,
}

/// A port's halves on their way home: what has come, and from which lcores more is to come.
#[derive(Default)]
struct Leaving {
    home: Parts,
    pending: Vec<(usize, Receiver<Parts>)>,
}

impl Switch {
    /// Starts the lcores.
    ///
    /// # Errors
    /// A bad number, a CPU that may not be used, a thread that could not be started. Nothing runs then.
    pub fn start(config: SwitchConfig) -> Result<Self, SwitchError> {
        check_lcores(&config.lcores)?;
        let fdb = Arc::new(Fdb::new(&config.fdb)?);
        let clock = config.clock;
        let common = Common {
            fdb: Arc::clone(&fdb),
            idle: config.idle,
            clock: clock.clone(),
            on_death: config.on_death,
        };
        let mut lcores = Lcores { all: Vec::with_capacity(config.lcores.len()), patience: PATIENCE };
        for (at, lcore) in config.lcores.iter().enumerate() {
            lcores.all.push(Lcore::start(lcore, &common, at == 0)?);
        }
        let ends = lcores.all.iter().map(|lcore| lcore.end.clone()).collect();
        let view = View::new(ends, fdb, clock, cpu::cycles_per_us());
        Ok(Self { lcores, view, leaving: BTreeMap::new() })
    }

    /// How long to wait for an lcore before an error says which one does not answer; 10 s at first.
    pub fn set_patience(&mut self, patience: Duration) {
        self.lcores.patience = patience;
    }

    /// Gives a new port its id; its number is for [`pmd::QueueEnv::port`]. [`attach`](Self::attach) comes next, or
    /// [`remove_port`](Self::remove_port) if the port cannot be opened.
    ///
    /// # Errors
    /// The name is taken, or all numbers are.
    pub fn reserve_port(&mut self, name: &str) -> Result<PortId, SwitchError> {
        self.view.table().ports.reserve(name, |number| self.view.of_number(number))
    }

    /// Gives a port's halves to the lcores: packets flow.
    ///
    /// # Errors
    /// There is no such port, or it is attached. With [`SwitchError::NotQuiescing`] the port is attached all the same, as
    /// soon as that lcore runs again.
    pub fn attach(&mut self, id: PortId, queues: Queues, counters: PortCounters) -> Result<(), SwitchError> {
        self.attach_placed(id, queues, counters, &Placement::default())
    }

    /// [`attach`](Self::attach) with a say in which lcores get which queues.
    ///
    /// # Errors
    /// As there; or there is no such lcore.
    pub fn attach_placed(
        &mut self,
        id: PortId,
        queues: Queues,
        counters: PortCounters,
        placement: &Placement,
    ) -> Result<(), SwitchError> {
        match self.state(id)? {
            State::Reserved => {}
            State::Attached => return Err(SwitchError::AlreadyAttached(id)),
            State::Leaving => return Err(SwitchError::Leaving(id)),
        }
        let places = self.places(id, placement)?;
        let (rx_queues, tx_queues) = (queues.rx.len(), queues.tx.len());
        let outputs = self.make_outputs(id, queues.tx, &places)?;
        self.change(id, |port| {
            (port.rx_queues, port.tx_queues, port.counters) = (rx_queues, tx_queues, counters);
            port.state = State::Attached;
        })?;
        // Each lcore knows the way to the port before any can learn that somebody is behind it.
        let known = self.post_outputs(id, outputs);
        let polled = self.post_inputs(id, queues.rx, &places);
        known.and(polled)
    }

    /// Takes a port out while packets flow: nobody else loses one. Its halves come home when every lcore has passed
    /// between two bursts; what was on its way to it is dropped and counted. Of a port that was only reserved there are none.
    ///
    /// # Errors
    /// There is no such port. With [`SwitchError::NotQuiescing`] the port stays, attached to nothing but that lcore: ask again.
    pub fn remove_port(&mut self, id: PortId) -> Result<Queues, SwitchError> {
        self.begin_leaving(id)?;
        self.wait_for_leaving(id)?;
        let mut home = self.leaving.remove(&id).unwrap_or_default().home;
        // No lcore can learn of it any more; before this, its number must not be used again.
        self.fdb().flush_port(id);
        self.view.retire(id, home.drain_inlets());
        Ok(home.into_queues())
    }

    /// What can be read of it also by whoever does not have the switch itself, while somebody attaches or removes a port.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// [`View::ports`]
    #[must_use]
    pub fn ports(&self) -> Vec<PortInfo> {
        self.view.ports()
    }

    /// [`View::port_by_name`]
    #[must_use]
    pub fn port_by_name(&self, name: &str) -> Option<PortId> {
        self.view.port_by_name(name)
    }

    /// [`View::fdb`]
    #[must_use]
    pub fn fdb(&self) -> &Arc<Fdb> {
        self.view.fdb()
    }

    /// [`View::now_s`]
    #[must_use]
    pub fn now_s(&self) -> u32 {
        self.view.now_s()
    }

    /// [`View::stats`]
    #[must_use]
    pub fn stats(&self) -> SwitchStats {
        self.view.stats()
    }

    /// [`View::set_stages`]
    pub fn set_stages(&self, on: bool) {
        self.view.set_stages(on);
    }

    /// [`View::stages`]
    #[must_use]
    pub fn stages(&self) -> Vec<LcoreStages> {
        self.view.stages()
    }

    /// Takes all ports out and ends the lcores.
    ///
    /// # Errors
    /// An lcore that does not answer; its queues are lost with it, and those of the ports not yet taken out.
    pub fn stop(mut self) -> Result<Vec<(PortId, Queues)>, SwitchError> {
        let ids: Vec<_> = self.ports().into_iter().map(|p| p.id).collect();
        ids.into_iter().map(|id| self.remove_port(id).map(|queues| (id, queues))).collect()
    }
}

/// The table, a moment at a time.
impl Switch {
    fn state(&self, id: PortId) -> Result<State, SwitchError> {
        self.change(id, |port| port.state)
    }

    fn change<T>(&self, id: PortId, what: impl FnOnce(&mut PortRecord) -> T) -> Result<T, SwitchError> {
        self.view.table().ports.get_mut(id).map(what)
    }
}

/// Attaching.
impl Switch {
    /// For each queue in turn the lcore's place in the list, as often as there are any.
    fn places(&self, id: PortId, placement: &Placement) -> Result<Vec<usize>, SwitchError> {
        let all = self.lcores.all.len();
        if placement.lcores.is_empty() {
            return Ok((0..all).map(|at| (at + usize::from(id.number())) % all).collect());
        }
        let place = |wanted: &usize| {
            let at = self.lcores.all.iter().position(|l| l.end.config.id == *wanted);
            at.ok_or(SwitchError::NoSuchLcore(*wanted))
        };
        placement.lcores.iter().map(place).collect()
    }

    /// What each lcore needs to send to the port: its own of the transmit halves, and a ring to the owner of the first,
    /// which is ready whenever any is.
    fn make_outputs(
        &self,
        id: PortId,
        queues: Vec<Box<dyn TxQueue>>,
        places: &[usize],
    ) -> Result<Vec<(Output, Vec<Inlet>)>, SwitchError> {
        let mut txs: Vec<Vec<TxSlot>> = self.lcores.all.iter().map(|_| Vec::new()).collect();
        let owner = (!queues.is_empty()).then_some(places[0]);
        for (number, queue) in queues.into_iter().enumerate() {
            txs[places[number % places.len()]].push(TxSlot::new(number, queue));
        }
        let mut inlets = Vec::new();
        let mut outputs = Vec::new();
        for (at, txs) in txs.into_iter().enumerate() {
            let mut handover = None;
            if let Some(owner) = owner.filter(|owner| *owner != at) {
                let (from, to) = (&self.lcores.all[at].end, &self.lcores.all[owner].end);
                let (way, inlet) = handover::channel(id.number(), &from.tally, &to.bell)?;
                inlets.push(inlet);
                handover = Some(way);
            }
            outputs.push((Output::new(id.number(), txs, handover), Vec::new()));
        }
        if let Some(owner) = owner {
            outputs[owner].1 = inlets;
        }
        Ok(outputs)
    }

    fn post_outputs(&self, id: PortId, outputs: Vec<(Output, Vec<Inlet>)>) -> Result<(), SwitchError> {
        let mut answers = Vec::new();
        for (lcore, (output, inlets)) in self.lcores.all.iter().zip(outputs) {
            let (done, answer) = channel();
            lcore.end.post(Command::AddOutput {
                number: id.number(),
                output: Box::new(output),
                inlets,
                done,
            });
            answers.push((lcore, answer));
        }
        answers.iter().try_for_each(|(lcore, answer)| lcore.answer(answer, self.lcores.patience))
    }

    fn post_inputs(
        &self,
        id: PortId,
        queues: Vec<Box<dyn RxQueue>>,
        places: &[usize],
    ) -> Result<(), SwitchError> {
        let mut inputs: Vec<Vec<Input>> = self.lcores.all.iter().map(|_| Vec::new()).collect();
        for (number, queue) in queues.into_iter().enumerate() {
            inputs[places[number % places.len()]].push(Input::new(id, number, queue));
        }
        let mut answers = Vec::new();
        for (lcore, inputs) in self.lcores.all.iter().zip(inputs).filter(|(_, inputs)| !inputs.is_empty()) {
            let (done, answer) = channel();
            lcore.end.post(Command::AddInputs { inputs, done });
            answers.push((lcore, answer));
        }
        answers.iter().try_for_each(|(lcore, answer)| lcore.answer(answer, self.lcores.patience))
    }
}

/// Removing.
impl Switch {
    /// Tells all lcores to give the port up, unless they were told before.
    fn begin_leaving(&mut self, id: PortId) -> Result<(), SwitchError> {
        if self.state(id)? != State::Attached {
            return Ok(());
        }
        let mut leaving = Leaving::default();
        for (at, lcore) in self.lcores.all.iter().enumerate() {
            let (parts, answer) = channel();
            lcore.end.post(Command::Detach { number: id.number(), parts });
            leaving.pending.push((at, answer));
        }
        self.leaving.insert(id, leaving);
        self.change(id, |port| port.state = State::Leaving)
    }

    /// Waits until all its halves have come home, as far as the lcores answer. Nobody who looks is held up by this.
    fn wait_for_leaving(&mut self, id: PortId) -> Result<(), SwitchError> {
        let Some(leaving) = self.leaving.get_mut(&id) else { return Ok(()) };
        while let Some((at, answer)) = leaving.pending.last() {
            let lcore = &self.lcores.all[*at];
            leaving.home.add(lcore.answer(answer, self.lcores.patience)?);
            leaving.pending.pop();
        }
        Ok(())
    }
}

impl Drop for Lcores {
    fn drop(&mut self) {
        for lcore in self.all.drain(..) {
            lcore.stop(self.patience);
        }
    }
}

impl Parts {
    fn add(&mut self, more: Self) {
        self.inputs.extend(more.inputs);
        self.txs.extend(more.txs);
        self.inlets.extend(more.inlets);
    }

    /// Drops what is in the rings to the port; no lcore can put more in. Returns how many packets.
    fn drain_inlets(&mut self) -> u64 {
        self.inlets.iter_mut().map(Inlet::drain).sum()
    }

    /// The halves, in the order in which they were attached.
    fn into_queues(mut self) -> Queues {
        self.inputs.sort_by_key(|input| input.number);
        self.txs.sort_by_key(|tx| tx.number);
        Queues {
            rx: self.inputs.into_iter().map(|input| input.queue).collect(),
            tx: self.txs.into_iter().map(|tx| tx.queue).collect(),
        }
    }
}

fn check_lcores(lcores: &[LcoreConfig]) -> Result<(), SwitchError> {
    match lcores.len() {
        0 => return Err(SwitchError::NoLcores),
        n if n > mbuf::MAX_LCORES => return Err(SwitchError::TooManyLcores(n)),
        _ => {}
    }
    for (at, lcore) in lcores.iter().enumerate() {
        if lcores[..at].iter().any(|l| l.id == lcore.id) {
            return Err(SwitchError::DuplicateLcore(lcore.id));
        }
    }
    Ok(())
}
