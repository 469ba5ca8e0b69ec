//! Bring-up: what a device must have, and what becomes of one that has it not, or goes away in the middle.

use std::time::{Duration, Instant};

use pmd::QueueEnv;
use pmd::bus::BusError;
use pmd::nic::{NicDriver, NicError, NicOptions};

use crate::model::{Card, CardConfig, ConfigSpace, Structure, feature};
use crate::scene::{KINDS, PORT, Scene, pool};

const OPTIONS: NicOptions = NicOptions::DEFAULT;

/// Why a card cannot be brought up; nothing may be left of the attempt.
fn refusal(card: &Card, options: &NicOptions) -> String {
    let pool = pool(1024);
    let error = match card.driver(options) {
        Err(error) => error,
        Ok(mut driver) => driver.start(QueueEnv { pool, port: PORT }).map(drop).expect_err("it is refused"),
    };
    assert_eq!((pool.balance().out, card.memory.mappings()), (0, 0), "{error}");
    assert_eq!(card.memory.faults(), []);
    error.to_string()
}

fn refused(config: CardConfig) -> String {
    refusal(&Card::new(config), &OPTIONS)
}

#[test]
fn a_device_that_lacks_something_is_refused_by_name() {
    let usual = CardConfig::default();
    let without = |gone: u64| CardConfig { features: feature::USUAL & !gone, ..CardConfig::default() };
    assert!(refused(without(feature::VERSION_1)).contains("VIRTIO_F_VERSION_1"));
    // Behind an IOMMU whose addresses are too few for a process's own, packet memory is mapped at an offset.
    for offset in [0, CardConfig::default().offset] {
        let told = refused(CardConfig { offset, ..without(feature::ACCESS_PLATFORM) });
        assert!(told.contains("iommu_platform=on"), "offset {offset:#x}: {told}");
    }
    // Where none is, physical addresses are what the device is given.
    Scene::of(CardConfig { iommu: false, ..without(feature::ACCESS_PLATFORM) }, OPTIONS).end();
    let jumbo = CardConfig { mtu: 9000, ..without(feature::MRG_RXBUF) };
    let told = refused(CardConfig { features: jumbo.features | feature::MTU, ..jumbo });
    assert!(told.contains("MRG_RXBUF") && told.contains("9018"), "{told}");
    let told = refusal(&Card::new(usual), &NicOptions { queues: Some(2), ..OPTIONS });
    assert!(told.contains("has 1 queue pairs, not 2"), "{told}");
}

#[test]
fn rings_are_as_large_as_the_device_has_them() {
    let config = CardConfig { queue_size: 1000, ..CardConfig::default() };
    let scene = Scene::of(config, NicOptions { rx_descriptors: 2048, tx_descriptors: 128, ..OPTIONS });
    let sizes = |scene: &Scene| [0, 1].map(|q| scene.card.state().queues[q].size);
    assert_eq!(sizes(&scene), [512, 128], "a power of two, and no more than was asked for");
    scene.end();
}

#[test]
fn n12_capabilities_that_lie_are_refused() {
    let good = [(1, 0), (3, 0x1000), (4, 0x2000), (2, 0x3000)].map(|(cfg_type, offset)| Structure {
        cfg_type,
        bar: 4,
        offset,
        length: 0x1000,
    });
    let told = |structures: &[Structure]| {
        let card = Card::new(CardConfig::default());
        card.state().space = ConfigSpace::of(structures);
        refusal(&card, &OPTIONS)
    };
    for missing in 0..4 {
        let mut some = good.to_vec();
        some.remove(missing);
        assert!(told(&some).contains("no virtio capability of type"));
    }
    for (bent, bad) in [
        (Structure { offset: 0x4000, ..good[0] }, "BAR 4"),
        (Structure { offset: u32::MAX, ..good[0] }, "BAR 4"),
        (Structure { length: u32::MAX, ..good[0] }, "BAR 4"),
        (Structure { length: 0x37, ..good[0] }, "BAR 4"),
        (Structure { offset: 2, ..good[0] }, "BAR 4"),
        (Structure { bar: 5, ..good[0] }, "no virtio capability"),
        (Structure { bar: 255, ..good[0] }, "no virtio capability"),
    ] {
        let said = told(&[bent, good[1], good[2], good[3]]);
        assert!(said.contains(bad), "{bent:?}: {said}");
    }
    let said = told(&[good[0], good[1], good[2], Structure { length: 4, ..good[3] }]);
    assert!(said.contains("doorbell"), "{said}");
}

#[test]
fn the_first_structure_that_can_be_used_is_used() {
    let card = Card::new(CardConfig::default());
    let at = |cfg_type, bar, offset| Structure { cfg_type, bar, offset, length: 0x1000 };
    let list = [at(1, 0, 0), at(1, 4, 0), at(3, 4, 0x1000), at(4, 4, 0x2000), at(2, 4, 0x3000)];
    card.state().space = ConfigSpace::of(&list);
    Scene::on(card, OPTIONS, pool(1024)).end();
}

#[test]
fn a_list_of_capabilities_that_runs_in_a_circle_ends() {
    let card = Card::new(CardConfig::default());
    card.state().space.0[0x41] = 0x40;
    assert!(refusal(&card, &OPTIONS).contains("no virtio capability of type"));
}

#[test]
fn n12_doorbells_outside_of_the_bar_are_refused() {
    let card = Card::new(CardConfig::default());
    card.state().notify_off = Some(0xffff);
    assert!(refusal(&card, &OPTIONS).contains("doorbell"));
}

#[test]
fn a_device_that_will_not_is_given_up() {
    type Bend = fn(&Card);
    let bends: [(&str, Bend); 5] = [
        ("did not reset within 1000 ms", |c| {
            c.state().status = 1;
            c.state().deaf = true;
        }),
        ("does not agree", |c| c.state().disagrees = true),
        ("changes its configuration", |c| c.state().restless = true),
        ("did not answer Promiscuous", |c| c.state().answer = None),
        ("does not run 2 queue pairs", |c| {
            let mut state = c.state();
            state.config.max_pairs = 2;
            state.set_status(0);
            state.answer = Some(1);
        }),
    ];
    for (expected, bend) in bends {
        let card = Card::new(CardConfig::default());
        bend(&card);
        let told = refusal(&card, &OPTIONS);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn one_that_refuses_to_be_promiscuous_says_so() {
    let card = Card::new(CardConfig::default());
    card.state().answer = Some(1);
    let scene = Scene::on(card, OPTIONS, pool(1024));
    let refused: Vec<_> = scene.driver.details().into_iter().filter(|(n, _)| *n == "refused").collect();
    assert_eq!(refused.len(), 2);
    scene.end();
}

#[test]
fn without_a_control_queue_there_is_one_pair() {
    let features = feature::USUAL & !feature::CTRL_VQ;
    let config = CardConfig { features, max_pairs: 4, ..CardConfig::default() };
    let scene = Scene::of(config, OPTIONS);
    assert_eq!(scene.driver.queue_pairs(), 1);
    scene.end();
}

#[test]
fn too_few_mbufs_are_named() {
    let (card, pool) = (Card::new(CardConfig::default()), pool(16));
    let mut driver = card.driver(&OPTIONS).unwrap();
    let told = driver.start(QueueEnv { pool, port: PORT }).map(drop).unwrap_err().to_string();
    assert!(told.contains("--memory"), "{told}");
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn n02_a_device_may_be_gone_at_any_register() {
    let pool = pool(512);
    for (kind, features) in [KINDS[0], KINDS[4]] {
        let mut came_up = false;
        for lives in 0.. {
            let card = Card::with_features(features);
            card.state().lives = Some(lives);
            let begun = Instant::now();
            let started = card.driver(&OPTIONS).and_then(|mut driver| {
                let started = driver.start(QueueEnv { pool, port: PORT });
                driver.stop();
                started.map(drop)
            });
            assert!(begun.elapsed() < Duration::from_secs(2), "{kind}: {lives} accesses");
            assert_eq!((pool.balance().out, card.memory.mappings()), (0, 0), "{kind}: {lives} accesses");
            if let Err(error) = &started {
                assert!(!matches!(error, NicError::Bus(BusError::Os { .. })), "{error}");
            }
            if started.is_ok() && card.state().present {
                came_up = true;
                break;
            }
            assert!(lives < 1000, "{kind}: {started:?}");
        }
        assert!(came_up);
    }
}

#[test]
fn only_network_cards_match() {
    let ids = |vendor, device| pmd::bus::PciIds { vendor, device, ..Default::default() };
    assert!(pmd::virtio_pci::matches(&ids(0x1af4, 0x1041)) && pmd::virtio_pci::matches(&ids(0x1af4, 0x1000)));
    assert!(
        !pmd::virtio_pci::matches(&ids(0x1af4, 0x1042)) && !pmd::virtio_pci::matches(&ids(0x8086, 0x1041))
    );
}
