//! The attacker: a front end and a guest's driver in one, which writes what it likes.

use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use vhost::driver::{FrontEnd, GuestRam, NetHdr, RamConfig, Span};
use vhost::wire::message::protocol;
use vhost::wire::net::{
    F_INDIRECT_DESC, F_MRG_RXBUF, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1, hdr_len,
};
use vhost::wire::ring::{DESC_F_WRITE, DESC_SIZE, Desc, MAX_SIZE};

pub(crate) use crate::raw::{Raw, Side, event, set_entry};
use crate::scene::{PATIENCE, Scene, X};

/// Every byte of the attacker's RAM that it wrote nothing else to. As a frame it is one from and to 02:02:02:02:02:02,
/// which the operator says is at `y`.
pub(crate) const CANARY: u8 = 0x02;

/// Guest-physical start of the attacker's RAM: not 0, so that address 0 is outside.
pub(crate) const GPA: u64 = 0x10_0000;

/// What most cases negotiate.
pub(crate) const FEATURES: u64 = F_VERSION_1 | F_MRG_RXBUF | F_INDIRECT_DESC | F_PROTOCOL_FEATURES;

/// What an attacker is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Descriptors of each ring.
    pub(crate) size: u16,
    pub(crate) features: u64,
    /// The rings' first position.
    pub(crate) base: u16,
    pub(crate) ram_bytes: usize,
    /// Whether the RAM's size is sealed.
    pub(crate) sealed: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { size: 256, features: FEATURES, base: 0, ram_bytes: 1 << 20, sealed: true }
    }
}

impl Plan {
    /// The usual one, with packed rings.
    pub(crate) fn packed() -> Self {
        Self::default().with(F_RING_PACKED)
    }

    /// With these features, too.
    pub(crate) fn with(self, features: u64) -> Self {
        Self { features: self.features | features, ..self }
    }

    /// Without these features.
    pub(crate) fn without(self, features: u64) -> Self {
        Self { features: self.features & !features, ..self }
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.features & F_RING_PACKED != 0
    }

    /// The largest rings there are, and RAM for two of them.
    pub(crate) fn largest(self) -> Self {
        Self { size: MAX_SIZE, ram_bytes: 4 << 20, ..self }
    }
}

/// The attacker, connected to port `x`.
#[derive(Debug)]
pub(crate) struct Attacker {
    pub(crate) front: FrontEnd,
    pub(crate) ram: GuestRam,
    pub(crate) rx: Raw,
    pub(crate) tx: Raw,
    pub(crate) plan: Plan,
    /// O5: the RAM as it was, and what of it the device may have written since.
    snapshot: Vec<u8>,
    allowed: Vec<Range<usize>>,
}

impl Attacker {
    /// Negotiates, hands over memory and both rings.
    pub(crate) fn start(scene: &Scene, plan: Plan) -> Self {
        let mut attacker = Self::negotiate(scene, plan);
        attacker.start_ring(Side::Rx);
        attacker.start_ring(Side::Tx);
        attacker.arm();
        attacker
    }

    /// The usual one.
    pub(crate) fn usual(scene: &Scene) -> Self {
        Self::start(scene, Plan::default())
    }

    /// Negotiates and hands over memory. No ring runs yet.
    pub(crate) fn negotiate(scene: &Scene, plan: Plan) -> Self {
        Self::negotiate_at(&scene.socket(X), plan)
    }

    /// The same at another port than `x`.
    pub(crate) fn negotiate_at(socket: &Path, plan: Plan) -> Self {
        let mut front = FrontEnd::connect(socket, PATIENCE).expect("the attacker connects");
        negotiate(&mut front, plan.features);
        let config =
            RamConfig { bytes: plan.ram_bytes, gpa_base: GPA, sealed: plan.sealed, ..RamConfig::default() };
        let ram = GuestRam::new(config).expect("RAM");
        front.set_mem_table(&[(ram.region(), ram.as_fd())]).expect("the table is sound");
        let rx = Raw::new(&ram, Side::Rx, &plan);
        let tx = Raw::new(&ram, Side::Tx, &plan);
        let rings =
            tx.areas().1.iter().map(|area| (area.gpa() - GPA) as usize + area.len()).max().unwrap_or(0);
        ram.span(rings, ram.bytes() - rings).fill(0, ram.bytes() - rings, CANARY);
        Self { front, ram, rx, tx, plan, snapshot: Vec::new(), allowed: Vec::new() }
    }

    pub(crate) fn side(&mut self, side: Side) -> &mut Raw {
        if side == Side::Rx { &mut self.rx } else { &mut self.tx }
    }

    /// Tells of one ring, its kick last: that one starts it.
    pub(crate) fn start_ring(&mut self, side: Side) {
        let (index, size) = (side.index(), self.plan.size);
        let raw = if side == Side::Rx { &self.rx } else { &self.tx };
        let (addr, base) = (raw.addr(index), raw.vring_base());
        self.front.set_vring_num(index, size.into()).expect("NUM");
        self.front.set_vring_base(index, base).expect("BASE");
        self.front.set_vring_addr(addr).expect("ADDR");
        self.front.set_vring_call(index, Some(raw.call.as_fd())).expect("CALL");
        self.front.set_vring_kick(index, Some(raw.kick.as_fd())).expect("KICK");
        if self.plan.features & F_PROTOCOL_FEATURES != 0 {
            self.front.set_vring_enable(index, true).expect("ENABLE");
        }
    }

    /// Sets a ring up anew after it broke, from position `base` on: one message is enough.
    pub(crate) fn revive(&mut self, side: Side, base: u16) {
        self.side(side).rebase(base);
        let base = self.side(side).vring_base();
        self.front.set_vring_base(side.index(), base).expect("BASE");
    }

    pub(crate) fn hdr_len(&self) -> usize {
        hdr_len(self.plan.features)
    }

    /// Puts bytes somewhere into RAM.
    pub(crate) fn place(&self, bytes: &[u8]) -> Span {
        let span = self.ram.alloc(bytes.len(), 64).expect("room in RAM");
        span.write(0, bytes);
        span
    }

    /// Header and frame, as one run of bytes.
    pub(crate) fn packet(&self, hdr: NetHdr, frame: &[u8]) -> Vec<u8> {
        [&hdr.to_bytes()[..self.hdr_len()], frame].concat()
    }

    /// A buffer with header and frame for the TX ring.
    pub(crate) fn frame(&self, frame: &[u8]) -> Desc {
        read(&self.place(&self.packet(NetHdr::default(), frame)))
    }

    /// Sends one good frame.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let buffer = self.frame(frame);
        self.tx.post(&[buffer]);
    }

    /// A table of descriptors in RAM, in order; returns the descriptor that names it.
    pub(crate) fn indirect(&self, buffers: &[Desc]) -> Desc {
        let table = self.ram.alloc(buffers.len() * DESC_SIZE, 64).expect("room for a table");
        self.tx.write_table(&table, buffers)
    }

    /// `n` buffers of `len` bytes each for the RX ring, which the device may write; posts them.
    pub(crate) fn post_buffers(&mut self, n: u16, len: usize) -> Vec<Span> {
        let spans: Vec<_> = (0..n).map(|_| self.ram.alloc(len, 64).expect("room in RAM")).collect();
        for span in &spans {
            self.allow(span);
            self.rx.post(&[write(span)]);
        }
        spans
    }

    /// O5: the device may write here.
    pub(crate) fn allow(&mut self, span: &Span) {
        let start = (span.gpa() - GPA) as usize;
        self.allowed.push(start..start + span.len());
    }

    /// O5: from now on, what is not allowed must stay as it is.
    pub(crate) fn arm(&mut self) {
        self.allowed.clear();
        for area in [self.rx.areas().1, self.tx.areas().1].concat() {
            self.allow(&area);
        }
        // What the attacker writes itself is no news: its own rings and all that it will hand out.
        self.snapshot.clear();
    }

    /// The RAM as it is.
    pub(crate) fn look(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.ram.bytes()];
        self.ram.span(0, bytes.len()).read(0, &mut bytes);
        bytes
    }

    /// O5: takes the picture that the RAM is compared to. All that the attacker writes itself must be written by then, but
    /// for its available rings, or a packed ring's descriptors.
    pub(crate) fn picture(&mut self) {
        self.snapshot = self.look();
        for own in [self.rx.areas().0, self.tx.areas().0].concat() {
            self.allow(&own);
        }
    }

    /// O5: nothing was written but what was allowed, since the picture was taken.
    pub(crate) fn judge(&mut self) {
        assert!(!self.snapshot.is_empty(), "no picture was taken");
        let now = self.look();
        self.allowed.sort_unstable_by_key(|range| range.start);
        let mut from = 0;
        for range in self.allowed.iter().cloned().chain(std::iter::once(now.len()..now.len())) {
            let gap = from..range.start.max(from);
            if now[gap.clone()] != self.snapshot[gap.clone()] {
                let at = gap.clone().find(|&at| now[at] != self.snapshot[at]);
                panic!("O5: RAM changed at {at:x?}, which nobody allowed");
            }
            from = from.max(range.end);
        }
    }
}

/// Features and protocol features, all that a sane front end would take.
pub(crate) fn negotiate(front: &mut FrontEnd, features: u64) {
    front.set_owner().expect("OWNER");
    let offered = front.features().expect("FEATURES");
    assert_eq!(features & !offered, 0, "the port offers what the case wants");
    if features & F_PROTOCOL_FEATURES != 0 {
        let wanted = protocol::F_MQ
            | protocol::F_REPLY_ACK
            | protocol::F_MTU
            | protocol::F_STATUS
            | protocol::F_RARP
            | protocol::F_RESET_DEVICE
            | protocol::F_CONFIGURE_MEM_SLOTS;
        let offered = front.protocol_features().expect("PROTOCOL_FEATURES");
        front.set_protocol_features(offered & wanted).expect("PROTOCOL_FEATURES");
    }
    front.set_features(features).expect("FEATURES");
}

/// A buffer that the device reads.
pub(crate) fn read(span: &Span) -> Desc {
    Desc { addr: span.gpa(), len: span.len() as u32, flags: 0, next: 0 }
}

/// A buffer that the device writes.
pub(crate) fn write(span: &Span) -> Desc {
    Desc { flags: DESC_F_WRITE, ..read(span) }
}

/// Part of a buffer.
pub(crate) fn part(desc: Desc, at: u32, len: u32) -> Desc {
    Desc { addr: desc.addr + u64::from(at), len, ..desc }
}

/// A buffer in pieces of so many bytes; the last piece is what is left.
pub(crate) fn cut(desc: Desc, piece: u32) -> Vec<Desc> {
    (0..desc.len).step_by(piece as usize).map(|at| part(desc, at, piece.min(desc.len - at))).collect()
}

/// The largest ring there is, and RAM for two of them.
pub(crate) fn largest() -> Plan {
    Plan::default().largest()
}
