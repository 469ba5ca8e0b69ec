//! One front end's session: messages in, state, replies out.
//!
//! A port has one [`Session`] for its whole life, and one thread that runs it ([`control`]); a front end that goes away
//! leaves it as fresh as it was. [`Session::handle`] takes one message, routes it to the method of its name in the file
//! of its subject, and answers by this rule:
//!
//! | the message | REPLY_ACK negotiated and reply wanted | otherwise |
//! |---|---|---|
//! | done | its own reply, or 0 | its own reply, or nothing |
//! | malformed: version, reply flag, payload's size, number of descriptors, too slow | disconnect | disconnect |
//! | unknown request, or one that belongs to a feature that is not offered | 1, and go on | disconnect |
//! | refused: a value, the state, the memory behind it | 1, and go on | disconnect |
//! | refused, and its own reply is no `u64` (GET_VRING_BASE) | disconnect | disconnect |
//!
//! Who does not wait for an answer would go on as if all were well; so a refusal that cannot be told ends the session.
//! What was refused changed nothing, but for a ring whose new place turned out to be outside of memory: that ring stays
//! stopped. Each refusal is counted by name and logged, at a limited rate.

pub(crate) mod announce;
mod bucket;
mod calls;
mod closer;
mod config;
mod connection;
mod control;
mod details;
mod eventfd;
mod features;
mod limit;
mod log;
mod memory;
mod message;
mod net;
mod peer;
mod received;
mod reset;
mod ring;
mod socket;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use closer::give_up_descriptors;
pub(crate) use control::{Control, Endpoint, UidPolicy};
pub(crate) use net::MIN_MTU;
pub(crate) use socket::{Listener, MAX_PATH};

use crate::memory::{Allowance, GuestMemory};
use crate::vring::{Fault, VringSlot};
use crate::wire::message::{Header, Request, UnknownRequest, flags, protocol};
use announce::AnnounceSlot;
use limit::LogLimit;
use message::{Message, Reply, encode, has_own_reply};
use peer::Peer;
use ring::Ring;
use trouble::{Refusal, Trouble};

/// What the port's owner decided, once.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// The port's name in the log.
    pub(crate) name: String,
    /// Queue pairs.
    pub(crate) pairs: u16,
    /// The largest MTU that a front end may set.
    pub(crate) max_mtu: u16,
}

/// How a message ended.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing to say.
    Quiet,
    /// These bytes are the answer.
    Answer(Vec<u8>),
    /// The session ends.
    End(Trouble),
}

/// What one front end negotiated and set up, and the rings that run by it.
#[derive(Debug)]
pub(crate) struct Session {
    offer: Offer,
    slots: Vec<Arc<VringSlot>>,
    announce: Arc<AnnounceSlot>,
    rings: Vec<Ring>,
    /// `None` until SET_FEATURES.
    features: Option<u64>,
    protocol_features: u64,
    memory: Arc<GuestMemory>,
    /// What a guest's memory may take up.
    allowance: Arc<Allowance>,
    /// Virtio device status.
    status: u8,
    mtu: Option<u16>,
    /// Who is connected.
    peer: Option<Peer>,
    /// What went wrong, by name, for the port's whole life.
    tally: BTreeMap<&'static str, u64>,
    log: LogLimit,
}

impl Session {
    /// `slots` are the port's vrings, two for each pair of queues.
    pub(crate) fn new(offer: Offer, slots: Vec<Arc<VringSlot>>, announce: Arc<AnnounceSlot>) -> Self {
        assert_eq!(slots.len(), 2 * usize::from(offer.pairs), "two rings a pair");
        let rings = slots.iter().map(|_| Ring::default()).collect();
        let allowance = Arc::<Allowance>::default();
        Self {
            offer,
            slots,
            announce,
            rings,
            features: None,
            protocol_features: 0,
            memory: Arc::new(GuestMemory::empty(Arc::clone(&allowance))),
            allowance,
            status: 0,
            mtu: None,
            peer: None,
            tally: BTreeMap::new(),
            log: LogLimit::default(),
        }
    }

    /// The same, with this allowance of guest memory instead of the usual one.
    pub(crate) fn allowed(mut self, allowance: Arc<Allowance>) -> Self {
        self.allowance = allowance;
        self.forget_memory();
        self
    }

    fn forget_memory(&mut self) {
        self.memory = Arc::new(GuestMemory::empty(Arc::clone(&self.allowance)));
    }

    /// A front end is there.
    pub(crate) fn begin(&mut self, peer: Peer) {
        self.count("sessions");
        if let Some(suppressed) = self.log.allow(Instant::now()) {
            let Peer { pid, uid } = peer;
            tracing::info!(port = self.offer.name, suppressed, pid, uid, "front end connected");
        }
        self.peer = Some(peer);
    }

    /// The front end is gone: stops everything and forgets everything, its memory above all.
    pub(crate) fn end(&mut self) {
        for i in 0..self.rings.len() {
            self.stop_ring(i);
            self.rings[i] = Ring::default();
        }
        self.features = None;
        self.protocol_features = 0;
        self.forget_memory();
        self.status = 0;
        self.mtu = None;
        self.peer = None;
    }

    /// Deals with one message.
    pub(crate) fn handle(&mut self, mut message: Message) -> Step {
        let header = message.header;
        match Request::try_from(header.request) {
            Ok(request) => {
                let outcome = self.route(request, &mut message);
                self.answer(&header, !has_own_reply(request), request.name(), outcome)
            }
            Err(UnknownRequest(_)) => {
                self.answer(&header, true, "UNKNOWN", Err(Refusal::UnknownRequest.into()))
            }
        }
    }

    fn route(&mut self, request: Request, m: &mut Message) -> Result<Reply, Trouble> {
        use Request as R;
        match request {
            R::GetFeatures => self.get_features(m),
            R::SetFeatures => self.set_features(m),
            R::SetOwner => self.set_owner(m),
            R::ResetOwner => self.reset_owner(m),
            R::SetMemTable => self.set_mem_table(m),
            R::SetLogBase => self.set_log_base(m),
            R::SetLogFd => self.set_log_fd(m),
            R::SetVringNum => self.set_vring_num(m),
            R::SetVringAddr => self.set_vring_addr(m),
            R::SetVringBase => self.set_vring_base(m),
            R::GetVringBase => self.get_vring_base(m),
            R::SetVringKick => self.set_vring_kick(m),
            R::SetVringCall => self.set_vring_call(m),
            R::SetVringErr => self.set_vring_err(m),
            R::GetProtocolFeatures => self.get_protocol_features(m),
            R::SetProtocolFeatures => self.set_protocol_features(m),
            R::GetQueueNum => self.get_queue_num(m),
            R::SetVringEnable => self.set_vring_enable(m),
            R::SendRarp => self.send_rarp(m),
            R::NetSetMtu => self.net_set_mtu(m),
            R::GetConfig => self.get_config(m),
            R::SetConfig => self.set_config(m),
            R::ResetDevice => self.reset_device(m),
            R::GetMaxMemSlots => self.get_max_mem_slots(m),
            R::AddMemReg => self.add_mem_reg(m),
            R::RemMemReg => self.rem_mem_reg(m),
            R::SetStatus => self.set_status(m),
            R::GetStatus => self.get_status(m),
            R::SetBackendReqFd
            | R::IotlbMsg
            | R::SetVringEndian
            | R::CreateCryptoSession
            | R::CloseCryptoSession
            | R::PostcopyAdvise
            | R::PostcopyListen
            | R::PostcopyEnd
            | R::GetInflightFd
            | R::SetInflightFd
            | R::GpuSetSocket
            | R::VringKick
            | R::GetSharedObject
            | R::SetDeviceStateFd
            | R::CheckDeviceState => Err(Refusal::NotOffered.into()),
        }
    }

    /// The rule at the head of this file.
    fn answer(
        &mut self,
        header: &Header,
        deniable: bool,
        name: &str,
        outcome: Result<Reply, Trouble>,
    ) -> Step {
        let wanted =
            header.flags & flags::NEED_REPLY != 0 && self.protocol_features & protocol::F_REPLY_ACK != 0;
        match outcome {
            Ok(Reply::Done) if !wanted => Step::Quiet,
            Ok(Reply::Done) => Step::Answer(encode(header.request, &0u64)),
            Ok(Reply::U64(value)) => Step::Answer(encode(header.request, &value)),
            Ok(Reply::State(state)) => Step::Answer(encode(header.request, &state)),
            Ok(Reply::Bytes(bytes)) => Step::Answer(encode(header.request, bytes.as_slice())),
            Err(trouble @ Trouble::Refused(_)) if wanted && deniable => {
                self.note(name, trouble.name(), &trouble);
                Step::Answer(encode(header.request, &1u64))
            }
            Err(trouble) => {
                self.note(name, trouble.name(), &trouble);
                Step::End(trouble)
            }
        }
    }

    /// Whether the front end negotiated a protocol feature.
    fn require(&self, bit: u64, name: &'static str) -> Result<(), Refusal> {
        if self.protocol_features & bit == 0 { Err(Refusal::NotNegotiated(name)) } else { Ok(()) }
    }

    /// Counts what went wrong and logs it if the port has a line left.
    pub(crate) fn note(&mut self, what: &str, name: &'static str, why: &dyn std::fmt::Display) {
        self.count(name);
        if let Some(suppressed) = self.log.allow(Instant::now()) {
            tracing::warn!(port = self.offer.name, suppressed, "{what}: {why} ({name})");
        }
    }

    /// Counts and logs the end of a session. A front end that leaves is no trouble: guests are shut down every day.
    pub(crate) fn farewell(&mut self, name: &'static str, why: &dyn std::fmt::Display) {
        if name != connection::CLOSED_BY_FRONT_END {
            return self.note("session ended", name, why);
        }
        self.count(name);
        if let Some(suppressed) = self.log.allow(Instant::now()) {
            tracing::info!(port = self.offer.name, suppressed, "session ended: {why}");
        }
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.tally.entry(name).or_default() += 1;
    }

    /// Looks at rings that broke since the last time: counts and logs each once, and has its err eventfd signalled. The fault
    /// for which the session must end, if there is one: the guest's memory is gone, or takes too much time.
    pub(crate) fn see_faults(&mut self) -> Option<Fault> {
        let mut ends = None;
        for i in 0..self.rings.len() {
            let fault = self.slots[i].fault().filter(|_| self.rings[i].running);
            ends = ends.or(fault.filter(|fault| *fault == Fault::SlowMemory));
            if fault.is_some() && fault != self.rings[i].seen_fault {
                self.rings[i].seen_fault = fault;
                self.rings[i].err_due = true;
                let name = fault.map_or("", Fault::name);
                self.note(&format!("ring {i}"), name, &"stopped by what the guest wrote");
            }
        }
        if self.memory.is_gone() { Some(Fault::MemoryGone) } else { ends }
    }

    /// How long no front end is admitted, if the last one's memory took too much time.
    pub(crate) fn closed_for(&self) -> Option<Duration> {
        self.slots.first()?.account().closed_for()
    }

    /// Whether a ring runs and is enabled: the guest's driver is up.
    pub(crate) fn is_up(&self) -> bool {
        (0..self.rings.len())
            .any(|i| self.rings[i].running && self.ring_is_enabled(i) && self.slots[i].fault().is_none())
    }
}
