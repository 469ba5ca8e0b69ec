//! A VF's coming up, and a PF that helps or does not.

use super::*;
use crate::igbvf::model::{Mood, Vf};
use crate::nic::{Health, NicError};

fn driver(card: &Card) -> Igbvf<ModelVf> {
    let mut driver = Igbvf::new(card.open(0).unwrap(), &OPTIONS).unwrap();
    driver.mailbox.set_patience(Duration::from_millis(20));
    driver
}

fn try_start(card: &Card) -> Result<Igbvf<ModelVf>, NicError> {
    let mut driver = driver(card);
    let pool = frames::pool(256, 2048);
    let rings = driver.start(QueueEnv { pool, port: 7 });
    rings.map(|_| driver)
}

fn detail(driver: &Igbvf<ModelVf>, name: &str) -> String {
    driver.details().into_iter().find(|(n, _)| *n == name).unwrap().1
}

#[test]
fn it_asks_the_pf_for_mac_frame_size_and_all_multicast() {
    let card = Card::new(1);
    let driver = try_start(&card).unwrap();
    assert_eq!((driver.mac, driver.max_frame()), ([2, 0, 0, 0, 0, 0], 9014));
    assert_eq!(detail(&driver, "receives"), "unicast to its MAC, all multicast");
    let kinds: Vec<_> = card.with(0, |vf| vf.pf.asked.iter().map(|a| a[0]).collect());
    assert_eq!(kinds, [1, 5, 0x3_0006, 0x2_0006]);
    drop(driver);
    card.with(0, |vf| (vf.pf.grants_unicast, vf.pf.asked) = (true, Vec::new()));
    assert_eq!(detail(&try_start(&card).unwrap(), "receives"), "all unicast, all multicast");
    card.with(0, |vf| vf.pf.knows_promiscuous = false);
    assert_eq!(detail(&try_start(&card).unwrap(), "receives"), "unicast to its MAC, all multicast");
    assert_eq!(card.with(0, |vf| vf.pf.asked.last().unwrap()[0]), 0x80_0003, "more groups than can be named");
}

#[test]
fn a_pf_that_refuses_everything_leaves_a_plain_vf() {
    let card = Card::new(1);
    card.with(0, |vf| vf.pf.mood = Mood::Refuses);
    let driver = try_start(&card).unwrap();
    assert_eq!(driver.max_frame(), 1514);
    assert_eq!(detail(&driver, "receives"), "unicast to its MAC, broadcasts only");
}

#[test]
fn without_a_mac_it_makes_one_up_and_keeps_it() {
    let card = Card::new(1);
    card.with(0, |vf| vf.pf.mac = None);
    let mut driver = try_start(&card).unwrap();
    let mac = driver.mac;
    assert_eq!(mac[0] & 3, 2, "unicast, locally administered");
    assert_eq!(card.with(0, |vf| vf.pf.vf_mac), Some(mac));
    assert!(detail(&driver, "mac").contains("ip link set PF vf N mac"));
    let pool = frames::pool(256, 2048);
    drop(driver.start(QueueEnv { pool, port: 7 }).unwrap());
    assert_eq!((driver.mac, card.with(0, |vf| vf.pf.vf_mac)), (mac, Some(mac)));
    driver.stop();
    card.with(0, |vf| vf.pf.mood = Mood::Refuses);
    let error = try_start(&card).unwrap_err().to_string();
    assert!(error.contains("`ip link set PF vf N mac MAC`"), "{error}");
}

#[test]
fn n06_a_silent_pf_is_named_and_no_mbuf_is_lost() {
    for mood in [Mood::Silent, Mood::OnlyReads, Mood::HoldsTheMailbox] {
        let card = Card::new(1);
        card.with(0, |vf| vf.pf.mood = mood);
        let began = Instant::now();
        let error = try_start(&card).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(matches!(error, NicError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("ip link set PF up"), "{error}");
        assert!(!card.with(0, |vf| vf.has_memory()));
    }
}

#[test]
fn n06_a_pf_in_reset_is_waited_for() {
    let card = Card::new(1);
    card.with(0, |vf| vf.set_pf_in_reset(true));
    assert!(try_start(&card).unwrap_err().to_string().contains("reset"));
    let mut driver = driver(&card);
    driver.mailbox.set_patience(Duration::from_secs(5));
    let other = card.clone();
    let mender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        other.with(0, |vf| vf.set_pf_in_reset(false));
    });
    let pool = frames::pool(256, 2048);
    let rings = driver.start(QueueEnv { pool, port: 7 }).unwrap();
    mender.join().unwrap();
    driver.stop();
    drop(rings);
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn n06_a_pf_that_forgets_in_the_middle_is_met_again() {
    for after in 1..4 {
        let card = Card::new(1);
        card.with(0, |vf| vf.pf.mood = Mood::ForgetsAfter(after));
        // Either it fails here and is tried again by the port, or it is seen at the first look.
        match try_start(&card) {
            Err(error) => assert!(error.to_string().contains("within"), "{error}"),
            Ok(mut driver) => assert!(matches!(driver.look(), Health::Reset(_))),
        }
        try_start(&card).unwrap();
    }
}

#[test]
fn news_of_the_pf() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    assert_eq!(bare.driver.look(), Health::Good);
    card.set_link(0, false);
    assert_eq!((bare.driver.look(), bare.driver.link()), (Health::Good, Link::Down), "a ping with CTS");
    card.set_link(0, true);
    assert_eq!((bare.driver.look(), bare.driver.link()), (Health::Good, Link::Up));
    card.with(0, Vf::reset_pf);
    assert!(matches!(bare.driver.look(), Health::Reset(_)), "a ping without CTS");
    bare.stop();
    bare.start();
    assert_eq!(bare.driver.look(), Health::Good);
    card.with(0, |vf| vf.set_pf_in_reset(true));
    assert_eq!(bare.driver.look(), Health::Reset("the PF is in reset"));
    card.with(0, |vf| vf.set_pf_in_reset(false));
    assert_eq!(bare.driver.look(), Health::Reset("the PF was reset"));
    bare.stop();
    bare.start();
    card.with(0, Vf::reset);
    assert!(matches!(bare.driver.look(), Health::Reset(_)), "N8: a reset by somebody else");
    bare.stop();
    bare.start();
    card.unplug(0);
    assert_eq!(bare.driver.look(), Health::Gone);
    bare.stop();
}

#[test]
fn queues_that_do_not_come_on_and_options_that_cannot_be() {
    let card = Card::new(1);
    card.with(0, |vf| vf.queues_stay_off = true);
    let error = try_start(&card).unwrap_err().to_string();
    assert!(error.contains("switch transmit queue 0 on"), "{error}");
    let refused = |options: NicOptions| Igbvf::new(card.open(0).unwrap(), &options).unwrap_err().to_string();
    assert!(refused(NicOptions { queues: Some(3), ..OPTIONS }).contains("has 2 queue pairs"));
    assert!(refused(NicOptions { rx_descriptors: 100, ..OPTIONS }).contains("not 100"));
    card.with(0, |vf| vf.device_id = 0x10c9);
    assert!(refused(OPTIONS).contains("8086:10c9"));
}

#[test]
fn too_few_mbufs_are_named_and_given_back() {
    let card = Card::new(1);
    let mut driver = driver(&card);
    for (pool, words) in
        [(frames::pool(100, 2048), "needs 128 mbufs"), (frames::pool(256, 512), "1024 bytes")]
    {
        let error = driver.start(QueueEnv { pool, port: 7 }).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(pool.balance().out, 0);
    }
    assert!(!card.with(0, |vf| vf.has_memory()));
}
