//! The daemon that all cases meet, and the oracle that judges them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mbuf::{Mempool, MempoolConfig};
use pmd::{DropReason, Port, QueueEnv};
use tempfile::TempDir;
use vhost::driver::traffic::{Checker, Mode, Sender, StreamConfig};
use vhost::driver::{BufferConfig, NetHdr, VirtioNet, VirtioNetConfig};
use vhost::wire::net::F_RING_PACKED;
use vhost::{VhostUserPort, VhostUserSpec};
use vswitch::{FdbConfig, LcoreConfig, Mac, PortId, Switch, SwitchConfig, Totals};

use crate::attacker::{Attacker, CANARY, Plan};
use crate::frames;
use crate::victims::{Talking, Victims};

/// The victims' ports, the attacker's and its partner's: their places in [`Scene::ports`].
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const X: usize = 2;
pub(crate) const Y: usize = 3;
const NAMES: [&str; 4] = ["a", "b", "x", "y"];

/// How long something may take that does come: the machine may be busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// O7: longer than that nobody waits for an lcore's turn, debug build, two busy cores and all. A turn that a guest can make
/// long was seen to take minutes.
const LONGEST_GAP: Duration = Duration::from_secs(3);
/// Frames that the victims exchange in each case, at least.
const PROGRESS: u64 = 256;
/// The stream of the sane driver.
const SANE: u16 = 99;

/// A station's address.
pub(crate) fn mac(n: usize) -> [u8; 6] {
    [0x02, 0x90, 0x1d, 0xe2, 0, n as u8]
}

/// Waits until `done`, for a long time.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// How long a race lasts.
pub(crate) fn race_time() -> Duration {
    let factor = std::env::var("POLDER_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    Duration::from_millis(1000) * factor
}

/// O3: what a port holds of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footprint {
    descriptors: usize,
    guest_mappings: usize,
}

impl Footprint {
    fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            descriptors,
            guest_mappings: maps.lines().filter(|l| l.contains("/memfd:polder-driver")).count(),
        }
    }
}

/// The daemon, its victims, and the attacker's partner.
pub(crate) struct Scene {
    pub(crate) switch: Switch,
    pub(crate) pool: &'static Mempool,
    ports: Vec<(PortId, VhostUserPort)>,
    directory: TempDir,
    victims: Option<Victims>,
    talking: Option<Talking>,
    y: VirtioNet,
    /// What came to `y` and was not asked for yet.
    at_y: Vec<Vec<u8>>,
    /// The attacker's port when the case began.
    before: Totals,
    baseline: Footprint,
    /// Whether the last sane driver had packed rings.
    packed: bool,
}

static SCENE: OnceLock<Mutex<Scene>> = OnceLock::new();

/// Plays one case and judges it.
pub(crate) fn case(body: impl FnOnce(&mut Scene)) {
    let scene = SCENE.get_or_init(|| Mutex::new(Scene::warm()));
    let scene = &mut *scene.lock().unwrap_or_else(PoisonError::into_inner);
    scene.begin();
    let played = catch_unwind(AssertUnwindSafe(|| {
        body(scene);
        scene.expect_sane();
        scene.expect_progress();
    }));
    let judged = catch_unwind(AssertUnwindSafe(|| scene.end()));
    for outcome in [played, judged] {
        if let Err(why) = outcome {
            resume_unwind(why);
        }
    }
}

/// The same on split rings, then on packed ones: for cases that only need what both formats have.
pub(crate) fn both(body: impl Fn(&mut Scene, Plan)) {
    for plan in [Plan::default(), Plan::packed()] {
        println!("{} rings", if plan.is_packed() { "packed" } else { "split" });
        case(|scene| body(scene, plan));
    }
}

/// A directory for the sockets, with the build's files if their path is short enough for a socket's.
fn directory() -> TempDir {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let short = built.as_os_str().len() < 80;
    if short { tempfile::tempdir_in(built) } else { tempfile::tempdir() }.expect("a directory")
}

impl Scene {
    fn new() -> Self {
        let pool = Mempool::new(&MempoolConfig::default()).expect("a mempool");
        let lcores = vec![LcoreConfig { id: 0, cpu: None }];
        // Small, so that its quotas are reached soon.
        let fdb = FdbConfig { capacity: 4096, ..FdbConfig::default() };
        let switch =
            Switch::start(SwitchConfig { lcores, fdb, ..SwitchConfig::default() }).expect("a switch");
        let directory = directory();
        let (mut switch, mut ports) = (switch, Vec::new());
        for name in NAMES {
            let path = directory.path().join(name).with_extension("sock");
            let spec = VhostUserSpec { queues: 2, ..VhostUserSpec::new(path) };
            ports.push(attach(&mut switch, pool, name, &spec));
        }
        // The operator's own entries: no frame of the victims is ever flooded, and nobody else gets their addresses.
        for (n, (id, _)) in ports.iter().enumerate() {
            switch.fdb().add_static(Mac(mac(n)), 0, *id).expect("a static entry");
        }
        // The attacker's RAM is full of these: what a race makes a frame of goes to its partner.
        switch.fdb().add_static(Mac([CANARY; 6]), 0, ports[Y].0).expect("a static entry");
        let socket = |n: usize| directory.path().join(NAMES[n]).with_extension("sock");
        // It sends jumbo frames, too.
        let tx = BufferConfig { bytes: 10_240, ..BufferConfig::default() };
        let config =
            VirtioNetConfig { queue_size: 1024, tx, timeout: PATIENCE, ..VirtioNetConfig::default() };
        let y = VirtioNet::connect(socket(Y), config).expect("the partner connects");
        let victims = Some(Victims::connect(&socket(A), &socket(B)));
        let (before, baseline) = (Totals::default(), Footprint::now());
        let at_y = Vec::new();
        let (talking, packed) = (None, false);
        Self { switch, pool, ports, directory, victims, talking, y, at_y, before, baseline, packed }
    }

    /// A scene in which everything has happened once: some things are made when they are needed first, and stay.
    fn warm() -> Self {
        let mut scene = Self::new();
        scene.begin();
        let mut attacker = Attacker::usual(&scene);
        attacker.send(&frames::plain(60, 0));
        scene.frames_at_y(1);
        attacker.tx.expect_used(1);
        drop(attacker);
        scene.expect_sane();
        scene.expect_progress();
        scene.victims = scene.talking.take().map(Talking::stop);
        eventually("nobody is at x", || {
            scene.x_detail("front end").is_some_and(|who| who == "not connected")
        });
        // The connection itself is closed a moment after that.
        std::thread::sleep(Duration::from_millis(200));
        scene.baseline = Footprint::now();
        scene
    }

    pub(crate) fn socket(&self, n: usize) -> PathBuf {
        self.directory.path().join(NAMES[n]).with_extension("sock")
    }

    /// A place for one more port's socket.
    pub(crate) fn another_socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn begin(&mut self) {
        self.at_y.clear();
        self.before = self.x_totals();
        self.talking = self.victims.take().map(Victims::start);
    }

    /// O1, and O7 in part: the victims' streams go on.
    fn expect_progress(&self) {
        eventually("the victims' streams go on", || self.victims_received() >= PROGRESS);
    }

    /// Frames that the victims received since the case began.
    pub(crate) fn victims_received(&self) -> u64 {
        self.talking.as_ref().map_or(0, Talking::received)
    }

    /// O2, O3, O7 and the balance of all packets, at a quiet point.
    fn end(&mut self) {
        let mut victims = self.talking.take().expect("they talk").stop();
        let (harm, gap) = (victims.harm(), victims.longest_gap());
        if !harm.is_empty() {
            victims.forget();
        }
        self.victims = Some(victims);
        assert!(harm.is_empty(), "O2: {harm:?}");
        assert!(gap < LONGEST_GAP, "O7: no frame for {gap:?}");
        self.drain_y();
        self.switch.fdb().flush();
        eventually("O3: all mbufs are back", || self.pool.balance().out == 0);
        let balance = self.pool.balance();
        assert_eq!(balance.free + balance.cached, balance.total, "O3: {balance:?}");
        eventually("S21: all packets are accounted for", || self.switch.stats().totals().unaccounted() == 0);
        let end = Instant::now() + PATIENCE;
        while Footprint::now() != self.baseline && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What one case left over is not the next one's fault.
        let before = std::mem::replace(&mut self.baseline, Footprint::now());
        assert_eq!(self.baseline, before, "O3");
    }

    /// O8: a sane driver at the attacker's port exchanges frames with `y`.
    pub(crate) fn expect_sane(&mut self) {
        const FRAMES: u64 = 48;
        // With packed rings every other time.
        self.packed = !self.packed;
        let defaults = VirtioNetConfig::default();
        let features = defaults.features | if self.packed { F_RING_PACKED } else { 0 };
        let config = VirtioNetConfig { features, timeout: PATIENCE, ..defaults };
        // What `y` sent in the case is nothing to the sane driver.
        eventually("y's frames are gone", || {
            let tx = &mut self.y.pairs()[0].tx;
            tx.reclaim().expect("y's ring is sound");
            tx.queue().in_flight() == 0
        });
        let mut x = VirtioNet::connect(self.socket(X), config).expect("O8: a sane driver connects");
        self.drain_y();
        self.at_y.clear();
        let stream = |src, dst| StreamConfig {
            src: mac(src),
            dst: mac(dst),
            stream: SANE,
            size: 200,
            mode: Mode::Verify,
        };
        let (mut sender, mut checker) = (Sender::new(stream(X, Y)), Checker::new(SANE, Mode::Verify));
        for _ in 0..FRAMES {
            x.send(sender.next_frame(), NetHdr::default()).expect("O8: it sends");
        }
        eventually("O8: its frames arrive", || {
            self.drain_y();
            self.at_y.drain(..).for_each(|frame| checker.check_bytes(&frame));
            checker.tally().received >= FRAMES
        });
        assert!(checker.settle(FRAMES).is_clean(FRAMES), "O8: {:?}", checker.tally());
        let (mut sender, mut checker) = (Sender::new(stream(Y, X)), Checker::new(SANE, Mode::Verify));
        for _ in 0..FRAMES {
            self.y.send(sender.next_frame(), NetHdr::default()).expect("O8: its partner sends");
        }
        let mut frame = Vec::new();
        eventually("O8: frames arrive at it", || {
            while x.recv(&mut frame).expect("O8: its ring is sound").is_some() {
                checker.check_bytes(&frame);
            }
            checker.tally().received >= FRAMES
        });
        assert!(checker.settle(FRAMES).is_clean(FRAMES), "O8: {:?}", checker.tally());
        x.disconnect().expect("O8: it goes in order");
    }
}

/// Makes a port and attaches it.
pub(crate) fn attach(
    switch: &mut Switch,
    pool: &'static Mempool,
    name: &str,
    spec: &VhostUserSpec,
) -> (PortId, VhostUserPort) {
    let id = switch.reserve_port(name).expect("a number");
    let mut port = VhostUserPort::new(spec).expect("a port");
    let queues = port.open(QueueEnv { pool, port: id.number() }).expect("its queues");
    switch.attach(id, queues, port.counters()).expect("attached");
    (id, port)
}

/// What cases look at.
impl Scene {
    /// The counters of the attacker's port.
    pub(crate) fn x_totals(&self) -> Totals {
        let stats = self.switch.stats();
        stats.ports.into_iter().find(|p| p.id == self.ports[X].0).expect("port x").totals
    }

    /// Packets dropped at the attacker's port since the case began.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.x_totals().dropped(reason) - self.before.dropped(reason)
    }

    /// O6: so many packets are dropped for this reason, and no more.
    pub(crate) fn expect_dropped(&self, reason: DropReason, n: u64) {
        eventually(&format!("{n} dropped for {}", reason.name()), || self.dropped(reason) >= n);
        assert_eq!(self.dropped(reason), n, "{}", reason.name());
    }

    /// A line of the attacker's port's details.
    pub(crate) fn x_detail(&self, name: &str) -> Option<String> {
        self.ports[X].1.details().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// A counter among them.
    pub(crate) fn x_count(&self, name: &str) -> u64 {
        self.x_detail(name).map_or(0, |n| n.parse().expect("a number"))
    }

    /// The state of one of the attacker's rings (`rx0`, `tx0`): running, disabled, stopped, or a fault's name.
    pub(crate) fn x_ring(&self, ring: &str) -> String {
        let rings = self.x_detail("rings").unwrap_or_default();
        let words = rings.split(", ").find_map(|r| r.strip_prefix(ring));
        words.map_or("none", |r| r.split_whitespace().next().unwrap_or("none")).to_owned()
    }

    /// O6: the ring comes into this state.
    pub(crate) fn expect_ring(&self, ring: &str, state: &str) {
        let end = Instant::now() + PATIENCE;
        while self.x_ring(ring) != state {
            assert!(Instant::now() < end, "{ring} is {}, not {state}", self.x_ring(ring));
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    /// Takes what came to `y`. Whatever was sent, `y` negotiated no offload and must see none (H12).
    pub(crate) fn drain_y(&mut self) {
        let mut frame = Vec::new();
        while let Some(header) = self.y.recv(&mut frame).expect("y's ring is sound") {
            assert!(header.flags == 0 && header.gso_type == 0, "H12: {header:?}");
            self.at_y.push(frame.clone());
        }
    }

    /// Takes what came to `y`; returns how many frames that were.
    pub(crate) fn discard_at_y(&mut self) -> usize {
        self.take_at_y().len()
    }

    /// Takes what came to `y`.
    pub(crate) fn take_at_y(&mut self) -> Vec<Vec<u8>> {
        self.drain_y();
        std::mem::take(&mut self.at_y)
    }

    /// The next `n` frames that come to `y`.
    pub(crate) fn frames_at_y(&mut self, n: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        while self.at_y.len() < n {
            assert!(Instant::now() < end, "{} frames of {n} came to y", self.at_y.len());
            self.drain_y();
            std::thread::yield_now();
        }
        self.at_y.drain(..n).collect()
    }

    /// The next frames that come to `y` are these.
    pub(crate) fn expect_at_y(&mut self, frames: &[Vec<u8>]) {
        let got = self.frames_at_y(frames.len());
        for (i, (got, want)) in got.iter().zip(frames).enumerate() {
            assert!(
                got == want,
                "frame {i} at y: {} bytes, not the {} that were sent",
                got.len(),
                want.len()
            );
        }
    }

    /// Nothing has come to `y`, and nothing is on its way: a burst from anybody before has been dealt with.
    pub(crate) fn expect_nothing_at_y(&mut self) {
        let polls = self.switch.stats().lcores[0].polls;
        eventually("the lcore turns", || self.switch.stats().lcores[0].polls > polls + 8);
        self.drain_y();
        assert!(
            self.at_y.is_empty(),
            "{} frames came to y, one of {} bytes",
            self.at_y.len(),
            self.at_y[0].len()
        );
    }

    /// Sends from `y` to `x`; waits for room.
    pub(crate) fn y_sends(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            eventually("y's ring has room", || self.y.send(frame, NetHdr::default()).is_ok());
        }
    }

    /// Sends from `y` to `x`, in one burst.
    pub(crate) fn y_sends_at_once(&mut self, frames: &[Vec<u8>]) {
        let tx = &mut self.y.pairs()[0].tx;
        for frame in frames {
            tx.post(NetHdr::default(), frame).expect("y's ring has room");
        }
        tx.publish();
    }

    /// All that `y` sent has been dealt with.
    pub(crate) fn expect_y_sent(&mut self) {
        let tx = &mut self.y.pairs()[0].tx;
        eventually("what y sent is dealt with", || {
            tx.reclaim().expect("y's ring is sound");
            tx.queue().in_flight() == 0
        });
    }

    /// Sends `n` frames of `len` bytes from `y` to `x`; returns them.
    pub(crate) fn y_sends_plain(&mut self, n: u32, len: usize) -> Vec<Vec<u8>> {
        let all: Vec<_> = (0..n).map(|tag| frames::between(Y, X, len, tag)).collect();
        self.y_sends(&all);
        all
    }
}
