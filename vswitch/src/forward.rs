//! Pass two: sort the burst by output, then send.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use mbuf::{Burst, GsoKind, MAX_BURST, Mbuf};
use pmd::offload::{Adapted, OffloadSet, Segmenter, adapt};
use pmd::{DropReason, RxQueue, TxQueue};

use crate::classify::{Classifier, Memo, Verdicts};
use crate::fdb::Fdb;
use crate::groups::{Groups, Places};
use crate::handover::Inlet;
use crate::hash::KeyedHash;
use crate::output::{Output, SendEnv, TxSlot};
use crate::pause::{NoPause, Pause};
use crate::stages::{Probe, Stage, Untimed};
use crate::stats::LcoreTally;
use crate::verdict::{Action, Verdict};
use crate::weight::{Piece, Scale, weight_of};
use crate::{MAX_PORTS, PortId};

/// A receive half, and what is remembered from its last packet.
pub struct Input {
    pub(crate) port: PortId,
    pub(crate) number: usize,
    pub(crate) queue: Box<dyn RxQueue>,
    memo: Memo,
    /// Its signals wake its lcore.
    pub(crate) watched: bool,
    /// See [`RxQueue::reflects`].
    reflects: bool,
    /// It was asked for shorter bursts.
    limited: bool,
}

impl Input {
    /// Receive half `number` of `port`.
    #[must_use]
    pub fn new(port: PortId, number: usize, queue: Box<dyn RxQueue>) -> Self {
        let reflects = queue.reflects();
        Self { port, number, queue, memo: Memo::default(), watched: false, reflects, limited: false }
    }

    #[inline(always)]
    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    /// See [`RxQueue::limit_bursts`].
    #[cold]
    pub(crate) fn limit_bursts(&mut self, packets: usize) {
        self.limited = packets < MAX_BURST;
        self.queue.limit_bursts(packets);
    }
}

/// One lcore's forwarding, without its thread. [`Switch`](crate::Switch) runs it; a program with a loop of its own may too.
pub struct Forwarder {
    fdb: Arc<Fdb>,
    tally: Arc<CachePadded<LcoreTally>>,
    outputs: Vec<Option<Box<Output>>>,
    /// Numbers of the ports that a flood goes to.
    members: Vec<u16>,
    /// Numbers of the outputs used in this turn.
    used: Vec<u16>,
    inlets: Vec<Inlet>,
    flow: KeyedHash,
    /// For sorting by output, and then by an output's queues.
    places: Places,
    scratch: Vec<Mbuf<'static>>,
    turn: u64,
    now_s: u32,
    /// What was forwarded since this was last taken, if it was much: by [weight](crate::weight).
    work: u64,
}

impl Forwarder {
    /// Without any output yet.
    #[must_use]
    pub fn new(fdb: Arc<Fdb>) -> Self {
        Self::with_tally(fdb, LcoreTally::new())
    }

    pub(crate) fn with_tally(fdb: Arc<Fdb>, tally: Arc<CachePadded<LcoreTally>>) -> Self {
        Self {
            fdb,
            tally,
            outputs: (0..MAX_PORTS).map(|_| None).collect(),
            members: Vec::with_capacity(MAX_PORTS),
            used: Vec::with_capacity(MAX_PORTS),
            inlets: Vec::new(),
            flow: KeyedHash::random(),
            places: Places::default(),
            scratch: Vec::with_capacity(MAX_BURST),
            turn: 0,
            now_s: 0,
            work: 0,
        }
    }

    /// Makes `queues` the way to `port`.
    pub fn add_output(&mut self, port: PortId, queues: Vec<Box<dyn TxQueue>>) {
        let txs = queues.into_iter().enumerate().map(|(number, queue)| TxSlot::new(number, queue)).collect();
        self.set_output(port.number(), Box::new(Output::new(port.number(), txs, None)), Vec::new());
    }

    pub(crate) fn set_output(&mut self, number: u16, output: Box<Output>, inlets: Vec<Inlet>) {
        if output.leads_somewhere() {
            self.members.push(number);
        }
        if let Some(place) = self.outputs.get_mut(usize::from(number)) {
            *place = Some(output);
        }
        self.inlets.extend(inlets);
    }

    /// Takes the way to a port out, with what is on its way to it from other lcores.
    pub(crate) fn take_output(&mut self, number: u16) -> (Vec<TxSlot>, Vec<Inlet>) {
        self.members.retain(|m| *m != number);
        let output = self.outputs.get_mut(usize::from(number)).and_then(Option::take);
        let (gone, stay) = std::mem::take(&mut self.inlets).into_iter().partition(|i| i.number == number);
        self.inlets = stay;
        (output.map_or_else(Vec::new, |o| o.into_txs()), gone)
    }

    /// Tells the time, in seconds of the FDB's clock.
    pub fn set_now_s(&mut self, now_s: u32) {
        self.now_s = now_s;
    }

    /// Takes one burst from `input`, forwards it and gives the sender its buffers back; returns how many packets came.
    #[inline(always)]
    pub fn poll(&mut self, input: &mut Input) -> usize {
        self.poll_with(input, &mut Untimed, &mut NoPause)
    }

    #[inline(always)]
    pub(crate) fn poll_with(
        &mut self,
        input: &mut Input,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) -> usize {
        let mut burst = Burst::new();
        let count = input.queue.rx_burst(&mut burst);
        if count == 0 {
            probe.lap(Stage::Empty, 0);
            return 0;
        }
        probe.lap(Stage::Receive(input.port.number()), count);
        self.forward(&mut burst, input.port, input.reflects, &mut input.memo, probe, pause);
        drop(burst);
        probe.lap(Stage::Sort, 0);
        input.queue.complete();
        probe.lap(Stage::Publish, count);
        count
    }

    /// Both passes over a burst that came in by `port`.
    #[inline(always)]
    fn forward(
        &mut self,
        burst: &mut Burst<'_>,
        port: PortId,
        reflects: bool,
        memo: &mut Memo,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        let (tally, now_s) = (&self.tally.learn, self.now_s);
        let classifier = Classifier { fdb: &self.fdb, tally, port, now_s, reflects };
        let mut scale = Scale::default();
        let verdicts = classifier.classify(burst, memo, &mut scale);
        probe.lap(Stage::LookUp, burst.len());
        if scale.is_heavy() {
            return self.forward_pieces(&verdicts, burst, port, probe, pause);
        }
        match verdicts {
            Verdicts::Same(verdict) => self.carry_out(verdict, burst, port, probe, pause),
            Verdicts::Each(verdicts) => self.sort_and_send(&verdicts, burst, port, probe, pause),
        }
    }

    /// The second pass over a burst that may take long: piece by piece, with pauses between.
    #[inline(never)]
    fn forward_pieces(
        &mut self,
        verdicts: &Verdicts,
        burst: &mut Burst<'_>,
        port: PortId,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        let (mut piece, mut piece_verdicts) = (Piece::default(), [Verdict::FLOOD; MAX_BURST]);
        for (at, mbuf) in burst.drain().enumerate() {
            if piece.is_full_for(&mbuf) {
                let mut full = std::mem::take(&mut piece);
                self.work += full.weight as u64;
                self.sort_and_send(&piece_verdicts, &mut full.burst, port, probe, pause);
                pause.pause(self, probe);
            }
            piece_verdicts[piece.burst.len()] = verdicts.of(at);
            piece.push(mbuf);
        }
        self.work += piece.weight as u64;
        self.sort_and_send(&piece_verdicts, &mut piece.burst, port, probe, pause);
    }

    /// One burst for each verdict; packets of one flow have one verdict and keep their order.
    #[inline(never)]
    fn sort_and_send(
        &mut self,
        verdicts: &[Verdict; MAX_BURST],
        burst: &mut Burst<'_>,
        port: PortId,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        let mut groups = Groups::new();
        for (mbuf, verdict) in burst.drain().zip(verdicts) {
            groups.push(&mut self.places, verdict.to_word(), mbuf);
        }
        for (word, group) in groups.iter_mut() {
            self.carry_out(Verdict::from_word(word), group, port, probe, pause);
        }
    }

    #[inline(always)]
    fn carry_out(
        &mut self,
        verdict: Verdict,
        burst: &mut Burst<'_>,
        from: PortId,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        match verdict.action() {
            Action::Port(number) => self.send(number, burst, from.number(), probe),
            Action::Flood => self.flood_all(burst, from.number(), probe, pause),
            Action::Drop(reason) => self.drop_all(burst, from.number(), reason),
        }
    }

    /// Sends a burst that came in by port `from` to port `number`.
    #[inline(always)]
    fn send(&mut self, number: u16, burst: &mut Burst<'_>, from: u16, probe: &mut impl Probe) {
        let Some(Some(output)) = self.outputs.get_mut(usize::from(number)) else {
            return self.drop_all(burst, from, DropReason::PortRemoved);
        };
        if output.mark_used() {
            self.used.push(number);
        }
        let (flow, scratch, places) = (&self.flow, &mut self.scratch, &mut self.places);
        let mut env = SendEnv { flow, scratch, places, turn: self.turn };
        output.send(burst, &mut env, self.tally.input(from), probe);
    }

    /// To all ports but the one it came from. What some of them would have to cut is cut once, for all.
    #[inline(never)]
    fn flood_all(
        &mut self,
        burst: &mut Burst<'_>,
        from: u16,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        let is_cut = |mbuf: &Mbuf<'_>| mbuf.offload().gso != GsoKind::None;
        if !burst.iter().any(is_cut) || self.members.iter().filter(|m| **m != from).count() < 2 {
            return self.flood(burst, from, probe, pause);
        }
        for mbuf in burst.drain() {
            match adapt(mbuf, OffloadSet::NONE) {
                Ok(Adapted::One(mbuf)) => {
                    let mut one = Burst::new();
                    let pushed = one.push(mbuf);
                    debug_assert!(pushed.is_ok(), "the first");
                    self.flood(&mut one, from, probe, pause);
                }
                Ok(Adapted::Many(segments)) => self.flood_segments(segments, from, probe, pause),
                Err(reason) => self.tally.input(from).drops[reason as usize].add(1),
            }
        }
    }

    /// Floods what a packet is cut into. Each segment beyond the first counts as a copy that the flood made.
    fn flood_segments(
        &mut self,
        mut segments: Segmenter<'_>,
        from: u16,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        let mut copies = 0;
        while segments.remaining() > 0 {
            let mut burst = Burst::new();
            let filled = segments.fill(&mut burst);
            copies += burst.len() as u64;
            self.flood(&mut burst, from, probe, pause);
            if filled.is_err() {
                self.tally.input(from).drops[DropReason::NoMbufs as usize].add(1);
                copies += 1;
                break;
            }
        }
        self.tally.input(from).flood_copies.add(copies - 1);
    }

    /// Shares to all but the last, which gets the packets themselves.
    fn flood(&mut self, burst: &mut Burst<'_>, from: u16, probe: &mut impl Probe, pause: &mut impl Pause) {
        let Some(last) = self.members.iter().rposition(|m| *m != from) else {
            return self.drop_all(burst, from, DropReason::NoOutput);
        };
        burst.iter_mut().for_each(Mbuf::set_unqueued);
        let (mut owned, weight) = (None, weight_of(burst));
        for at in 0..last {
            let number = self.members[at];
            if number != from {
                self.tally.input(from).flood_copies.add(burst.len() as u64);
                self.send_shares(number, burst, &mut owned, from, probe);
                self.work += weight;
                pause.pause(self, probe);
            }
        }
        let number = self.members[last];
        if owned.is_some() {
            self.send_shares(number, burst, &mut owned, from, probe);
            burst.clear();
        } else {
            self.send(number, burst, from, probe);
        }
        pause.pause(self, probe);
    }

    /// Sends shares of a flooded burst. Bytes that a guest may still change are copied for the first port that keeps packets;
    /// what was `owned` then is shared by all of those.
    fn send_shares<'t>(
        &mut self,
        number: u16,
        burst: &Burst<'t>,
        owned: &mut Option<Burst<'static>>,
        from: u16,
        probe: &mut impl Probe,
    ) {
        let output = self.outputs.get_mut(usize::from(number)).and_then(Option::as_mut);
        if !output.is_some_and(|output| output.keeps(self.turn)) {
            return self.send(number, &mut share(burst), from, probe);
        }
        let owned = owned.get_or_insert_with(|| own_shares(burst));
        let lost = burst.len() - owned.len();
        self.tally.input(from).drops[DropReason::NoMbufs as usize].add(lost as u64);
        self.send(number, &mut share(owned), from, probe);
    }

    #[cold]
    fn drop_all(&mut self, burst: &mut Burst<'_>, from: u16, reason: DropReason) {
        self.tally.input(from).drops[reason as usize].add(burst.len() as u64);
        burst.clear();
    }

    /// Whether other lcores handed something over.
    pub(crate) fn has_handovers(&self) -> bool {
        self.inlets.iter().any(|inlet| !inlet.is_empty())
    }

    /// Sends what other lcores handed over, a burst from each of them; returns how many packets. What is long is sent in
    /// pieces, and its ring pays back by turns: the rings of others, and receive queues, do not wait for it.
    pub(crate) fn take_handovers(&mut self, probe: &mut impl Probe, pause: &mut impl Pause) -> usize {
        let mut count = 0;
        for at in 0..self.inlets.len() {
            let inlet = &mut self.inlets[at];
            if inlet.is_empty() || inlet.pays_back() {
                continue;
            }
            let number = inlet.number;
            let mut burst = Burst::new();
            inlet.take(&mut burst, &mut self.scratch);
            count += burst.len();
            probe.lap(Stage::TakeOver, burst.len());
            // Only an output with queues of its own has inlets: `send` counts nothing against the port that is named here.
            if burst.iter().fold(Scale::default(), Scale::with).is_heavy() {
                self.send_pieces(at, &mut burst, probe, pause);
            } else {
                self.send(number, &mut burst, number, probe);
            }
        }
        count
    }

    /// Sends a burst out of an inlet that may take long.
    #[inline(never)]
    fn send_pieces(
        &mut self,
        at: usize,
        burst: &mut Burst<'static>,
        probe: &mut impl Probe,
        pause: &mut impl Pause,
    ) {
        let number = self.inlets[at].number;
        self.inlets[at].overdraw(weight_of(burst));
        let mut piece = Piece::default();
        for mbuf in burst.drain() {
            if piece.is_full_for(&mbuf) {
                let mut full = std::mem::take(&mut piece);
                self.send(number, &mut full.burst, number, probe);
                pause.pause(self, probe);
            }
            piece.push(mbuf);
        }
        self.send(number, &mut piece.burst, number, probe);
        pause.pause(self, probe);
    }

    /// What was forwarded since the last call, if it was much: in bytes, see [`weight`](crate::weight).
    #[inline(always)]
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    /// Gives back what was taken.
    pub(crate) fn add_work(&mut self, work: u64) {
        self.work += work;
    }

    /// Ends a turn: receivers that got something are told.
    #[inline(always)]
    pub fn end_turn(&mut self) {
        self.end_turn_with(&mut Untimed);
    }

    #[inline(always)]
    pub(crate) fn end_turn_with(&mut self, probe: &mut impl Probe) {
        self.turn += 1;
        while let Some(number) = self.used.pop() {
            if let Some(Some(output)) = self.outputs.get_mut(usize::from(number)) {
                output.flush();
            }
            probe.lap(Stage::Publish, 0);
        }
    }
}

/// Another handle on each packet.
fn share<'t>(burst: &Burst<'t>) -> Burst<'t> {
    let mut shares = Burst::new();
    for mbuf in burst.iter() {
        let pushed = shares.push(mbuf.share());
        debug_assert!(pushed.is_ok(), "as many slots as before");
    }
    shares
}

/// Packets of the same bytes that own them, those for which there are mbufs.
fn own_shares(burst: &Burst<'_>) -> Burst<'static> {
    let (mut owned, _) = share(burst).own();
    // Those that were copied are shared by nobody yet, the others are as the flood has marked them.
    owned.iter_mut().for_each(Mbuf::set_unqueued);
    owned
}
