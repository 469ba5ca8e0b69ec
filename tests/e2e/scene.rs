//! Guests on one switch that many tests share: booted once, replaced after a test that failed.

use std::path::Path;
use std::sync::Mutex;

use crate::guest::{Guest, Spec};
use crate::polder::{Polder, Port, socket_path, vhost_user};
use crate::process::timed;

/// What a scene is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The guests' names.
    pub(crate) guests: &'static [&'static str],
    /// Queue pairs of each guest.
    pub(crate) queue_pairs: u16,
    /// The MTU that the devices offer, if any.
    pub(crate) host_mtu: Option<u16>,
    /// Whether the rings are packed.
    pub(crate) packed: bool,
}

impl Kind {
    /// Two guests with one queue pair each, of split rings.
    pub(crate) const PLAIN: Self =
        Self { guests: &["a", "b"], queue_pairs: 1, host_mtu: None, packed: false };

    fn spec(self, name: &'static str, number: usize, socket: &Path) -> Spec {
        let number = u8::try_from(number).expect("a few guests");
        let Self { queue_pairs, host_mtu, packed, .. } = self;
        Spec { queue_pairs, host_mtu, packed, ..Spec::new(name, number, socket) }
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
        let names = kind.guests;
        let sockets: Vec<_> = names.iter().map(|n| socket_path(n)).collect();
        let ports: Vec<_> =
            names.iter().zip(&sockets).map(|(n, s)| Port::new(n, vhost_user(s, kind.queue_pairs))).collect();
        let polder = Polder::run(&ports);
        let specs =
            names.iter().zip(&sockets).enumerate().map(|(i, (n, s))| kind.spec(n, i + 1, s)).collect();
        let (guests, took) = timed(|| Guest::boot_all(specs));
        eprintln!("{} guests booted in {:.1} s", guests.len(), took.as_secs_f64());
        Self { kind, guests, polder }
    }

    fn is_whole(&mut self) -> bool {
        self.polder.is_running()
            && self.guests.len() == self.kind.guests.len()
            && self.guests.iter_mut().all(Guest::is_running)
    }

    /// The first two guests.
    pub(crate) fn pair(&mut self) -> (&mut Guest, &mut Guest) {
        let [a, b, ..] = &mut self.guests[..] else { panic!("a scene has two guests") };
        (a, b)
    }

    /// The first two guests, and the third if there is one.
    pub(crate) fn pair_and_bystander(&mut self) -> (&mut Guest, &mut Guest, Option<&mut Guest>) {
        let [a, b, more @ ..] = &mut self.guests[..] else { panic!("a scene has two guests") };
        (a, b, more.first_mut())
    }

    /// The guests' drivers took the rings that the scene is about.
    fn assert_ring_format(&mut self) {
        let asked = if self.kind.packed { "1" } else { "0" };
        for guest in &mut self.guests {
            // VIRTIO_F_RING_PACKED is bit 34.
            let negotiated = guest.sh("cut -c 35 /sys/class/net/eth0/device/features");
            assert_eq!(negotiated.trim(), asked, "{}: packed rings", guest.name());
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() && self.polder.is_running() {
            eprintln!("--- the switch's counts when the test failed:\n{}", self.polder.stats_text());
        }
    }
}

/// Runs a test on the guests of `kind`, one scene at a time, then compares the switch's counts.
pub(crate) fn on(kind: Kind, test: impl FnOnce(&mut Scene)) {
    static SCENE: Mutex<Option<Scene>> = Mutex::new(None);
    // A test that panicked has taken its scene with it: what the lock holds is sound.
    let mut stage = SCENE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let standing = stage.take().filter(|s| s.kind == kind);
    let mut scene = standing.unwrap_or_else(|| Scene::set_up(kind));
    scene.assert_ring_format();
    let ((), took) = timed(|| test(&mut scene));
    eprintln!("test itself: {:.1} s", took.as_secs_f64());
    scene.polder.assert_every_packet_counted();
    if scene.is_whole() {
        *stage = Some(scene);
    }
}
