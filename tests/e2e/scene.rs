//! Guests on one switch that many tests share: booted once, replaced after a test that failed.

use std::path::Path;
use std::sync::Mutex;

use crate::guest::{Guest, Spec};
use crate::polder::{Polder, Port, socket_path, vhost_user};
use crate::process::timed;

/// The scenes there are; one stands at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Guests a, b and c with one queue pair each.
    OneQueuePair,
    /// Guests a and b with four queue pairs each, on a device that offers an MTU of 9000.
    FourQueuePairs,
    /// Guests a and b with two queue pairs each, of packed rings.
    PackedRings,
}

impl Kind {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::OneQueuePair => &["a", "b", "c"],
            Self::FourQueuePairs | Self::PackedRings => &["a", "b"],
        }
    }

    pub(crate) fn queue_pairs(self) -> u16 {
        match self {
            Self::OneQueuePair => 1,
            Self::FourQueuePairs => 4,
            Self::PackedRings => 2,
        }
    }

    fn spec(self, name: &'static str, number: usize, socket: &Path) -> Spec {
        let number = u8::try_from(number).expect("a few guests");
        let host_mtu = (self == Self::FourQueuePairs).then_some(9000);
        let packed = self == Self::PackedRings;
        Spec { queue_pairs: self.queue_pairs(), host_mtu, packed, ..Spec::new(name, number, socket) }
    }
}

pub(crate) struct Scene {
    pub(crate) kind: Kind,
    // Guests leave before the switch does: fields drop in order.
    pub(crate) guests: Vec<Guest>,
    pub(crate) polder: Polder,
}

impl Scene {
    fn set_up(kind: Kind) -> Self {
        let names = kind.names();
        let sockets: Vec<_> = names.iter().map(|n| socket_path(n)).collect();
        let ports: Vec<_> = names
            .iter()
            .zip(&sockets)
            .map(|(n, s)| Port::new(n, vhost_user(s, kind.queue_pairs())))
            .collect();
        let polder = Polder::run(&ports);
        let specs =
            names.iter().zip(&sockets).enumerate().map(|(i, (n, s))| kind.spec(n, i + 1, s)).collect();
        let (guests, took) = timed(|| Guest::boot_all(specs));
        eprintln!("{} guests booted in {:.1} s", guests.len(), took.as_secs_f64());
        Self { kind, guests, polder }
    }

    fn is_whole(&mut self) -> bool {
        self.polder.is_running()
            && self.guests.len() == self.kind.names().len()
            && self.guests.iter_mut().all(Guest::is_running)
    }

    /// The first two guests.
    pub(crate) fn pair(&mut self) -> (&mut Guest, &mut Guest) {
        let [a, b, ..] = &mut self.guests[..] else { panic!("a scene has two guests") };
        (a, b)
    }

    /// The first three guests.
    pub(crate) fn three(&mut self) -> (&mut Guest, &mut Guest, &mut Guest) {
        let [a, b, c, ..] = &mut self.guests[..] else { panic!("this scene has three guests") };
        (a, b, c)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() && self.polder.is_running() {
            eprintln!("--- the switch's counts when the test failed:\n{}", self.polder.stats_text());
        }
    }
}

/// Runs a test on the guests of `kind`, then compares the switch's counts.
pub(crate) fn on(kind: Kind, test: impl FnOnce(&mut Scene)) {
    static SCENE: Mutex<Option<Scene>> = Mutex::new(None);
    // A test that panicked has taken its scene with it: what the lock holds is sound.
    let mut stage = SCENE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let standing = stage.take().filter(|s| s.kind == kind);
    let mut scene = standing.unwrap_or_else(|| Scene::set_up(kind));
    let ((), took) = timed(|| test(&mut scene));
    eprintln!("test itself: {:.1} s", took.as_secs_f64());
    scene.polder.assert_every_packet_counted();
    if scene.is_whole() {
        *stage = Some(scene);
    }
}
