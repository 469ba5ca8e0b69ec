//! S1, S2: who floods the table with made-up addresses hurts nobody else.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use fake::{mac, numbers, random_macs};
use vswitch::fdb::Learn;
use vswitch::{Fdb, FdbConfig, Mac, PortId};

const HONEST_PORTS: u16 = 8;
const STATIONS: u32 = 100;

fn honest(port: u16, station: u32) -> Mac {
    mac(u32::from(port) << 16 | station)
}

fn learn_honest(fdb: &Fdb, now_s: u32) {
    for port in 0..HONEST_PORTS {
        for station in 0..STATIONS {
            let learned = fdb.learn(honest(port, station), 0, PortId::for_test(port), now_s);
            assert!(matches!(learned, Learn::Learned | Learn::Known), "{learned:?}");
        }
    }
}

fn assert_all_there(fdb: &Fdb) {
    for port in 0..HONEST_PORTS {
        let id = PortId::for_test(port);
        assert!(
            (0..STATIONS).all(|s| fdb.lookup(honest(port, s), 0) == Some(id)),
            "port {port} lost a station"
        );
    }
}

#[test]
fn s01_a_million_addresses_evict_no_honest_one() {
    let fdb = Fdb::new(&FdbConfig::default()).unwrap();
    learn_honest(&fdb, 1);
    let attacker = PortId::for_test(99);
    let mut random = random_macs(1);
    for n in 0..1_000_000u32 {
        fdb.learn(random(), 0, attacker, 1 + n / 10_000);
    }
    assert_all_there(&fdb);
    assert_eq!(fdb.held_by(attacker), 32_768, "its quota, half of the table");
    assert_eq!(fdb.stats().evicted, 0);
}

#[test]
fn s01_attackers_together_evict_each_other_alone() {
    let fdb =
        Fdb::new(&FdbConfig { capacity: 4096, port_quota: Some(4096), ..FdbConfig::default() }).unwrap();
    learn_honest(&fdb, 1);
    let mut random = random_macs(1);
    for n in 0..200_000u32 {
        fdb.learn(random(), 0, PortId::for_test(90 + (n % 5) as u16), 2);
    }
    assert_all_there(&fdb);
    assert_eq!(fdb.stats().entries, 4096);
    // One that comes late still finds room: the heaviest give way.
    let late = PortId::for_test(200);
    for station in 0..STATIONS {
        assert_eq!(fdb.learn(honest(200, station), 0, late, 3), Learn::Learned);
    }
    assert!(fdb.stats().evicted >= u64::from(STATIONS));
    assert_all_there(&fdb);
}

#[test]
fn s02_learning_at_the_limit_by_four_threads_never_exceeds_it() {
    let config = FdbConfig { capacity: 1024, port_quota: Some(200), ..FdbConfig::default() };
    let fdb = Arc::new(Fdb::new(&config).unwrap());
    let threads: Vec<_> = (0..4u16)
        .map(|who| {
            let fdb = Arc::clone(&fdb);
            std::thread::spawn(move || {
                for n in 0..100_000u32 {
                    // Stations of each thread's own, and some that all claim.
                    let station = if n % 3 == 0 { n % 64 } else { u32::from(who + 1) << 20 | n };
                    fdb.learn(mac(station), 0, PortId::for_test(who % 3), n / 20_000);
                    assert!(fdb.held_by(PortId::for_test(who % 3)) <= 200);
                    assert!(fdb.stats().entries <= 1024);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let listed = fdb.list(9);
    let stations: std::collections::HashSet<_> = listed.iter().map(|e| e.mac).collect();
    assert_eq!(stations.len(), listed.len(), "no station is there twice");
    assert_eq!(listed.len() as u64, fdb.stats().entries);
    for port in (0..3).map(PortId::for_test) {
        assert_eq!(listed.iter().filter(|e| e.port == port).count(), fdb.held_by(port));
    }
}

#[test]
fn the_table_holds_what_it_says() {
    let fdb = Fdb::new(&FdbConfig { port_quota: Some(65_536), ..FdbConfig::default() }).unwrap();
    let mut random = random_macs(1);
    let stations: Vec<_> = std::iter::repeat_with(&mut random).take(65_536).collect();
    let port = PortId::for_test(1);
    assert!(stations.iter().all(|m| fdb.learn(*m, 0, port, 1) == Learn::Learned), "all 64k find room");
    assert!(stations.iter().all(|m| fdb.lookup(*m, 0) == Some(port)));
    assert_eq!(fdb.learn(random(), 0, port, 1), Learn::RefusedQuota);
    assert_eq!(fdb.learn(random(), 0, PortId::for_test(2), 1), Learn::Learned, "from who holds most");
}

#[test]
fn a_reader_never_sees_a_station_behind_anothers_port() {
    let fdb = Fdb::new(&FdbConfig { capacity: 256, port_quota: Some(200), ..FdbConfig::default() }).unwrap();
    let port_of = |station: u32| PortId::for_test((station % 7) as u16);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (fdb, done) = (&fdb, &done);
            scope.spawn(move || {
                let mut next = numbers(seed);
                for n in 0..300_000u32 {
                    let station = next() as u32 % 2000;
                    fdb.learn(mac(station), 0, port_of(station), n / 1000);
                    if n % 16 == 0 {
                        fdb.remove(mac(next() as u32 % 2000), 0);
                    }
                }
                done.store(true, SeqCst);
            });
        }
        let mut found = 0;
        while !done.load(SeqCst) {
            for station in 0..2000 {
                if let Some(port) = fdb.lookup(mac(station), 0) {
                    assert_eq!(port, port_of(station), "station {station}");
                    found += 1;
                }
            }
        }
        assert_ne!(found, 0);
    });
}
