//! The FDB against a hash map with the same rules.

mod fake;

use std::collections::HashMap;
use std::time::Duration;

use fake::mac;
use proptest::prelude::*;
use vswitch::fdb::{Learn, Sweep};
use vswitch::{Fdb, FdbConfig, PortId};

const QUOTA: usize = 20;
const AGE_S: u32 = 10;

#[derive(Debug, Clone)]
enum Op {
    Learn(u32, u16),
    AddStatic(u32, u16),
    Remove(u32),
    FlushPort(u16),
    Flush,
    Pass(u32),
}

#[derive(Debug, Clone, Copy)]
struct Known {
    port: u16,
    seen_s: u32,
    fixed: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let (station, port) = (0..60u32, 0..4u16);
    prop_oneof![
        20 => (station.clone(), port.clone()).prop_map(|(s, p)| Op::Learn(s, p)),
        2 => (station.clone(), port.clone()).prop_map(|(s, p)| Op::AddStatic(s, p)),
        2 => station.prop_map(Op::Remove),
        1 => port.prop_map(Op::FlushPort),
        1 => Just(Op::Flush),
        3 => (0..8u32).prop_map(Op::Pass),
    ]
}

/// The rules, told by a map that has room for all (so that nobody has to make room).
#[derive(Default)]
struct Model {
    known: HashMap<u32, Known>,
    now_s: u32,
}

impl Model {
    fn learn(&mut self, station: u32, port: u16) -> Learn {
        let held = self.known.values().filter(|k| k.port == port && !k.fixed).count();
        let seen_s = self.now_s;
        match self.known.get_mut(&station) {
            Some(k) if k.port == port => {
                k.seen_s = seen_s;
                Learn::Known
            }
            Some(k) if k.fixed => Learn::RefusedStatic,
            _ if held >= QUOTA => Learn::RefusedQuota,
            found => {
                let answer = if found.is_some() { Learn::Moved } else { Learn::Learned };
                self.known.insert(station, Known { port, seen_s, fixed: false });
                answer
            }
        }
    }

    fn retain(&mut self, stays: impl Fn(&Known) -> bool) -> u64 {
        let before = self.known.len();
        self.known.retain(|_, k| stays(k));
        (before - self.known.len()) as u64
    }
}

fn sweep_all(fdb: &Fdb, sweep: &mut Sweep, now_s: u32) {
    (0..200).for_each(|_| fdb.sweep_step(sweep, now_s));
}

proptest! {
    #[test]
    fn does_what_the_map_does(ops in proptest::collection::vec(op(), 1..300)) {
        let age = Duration::from_secs(u64::from(AGE_S));
        let config = FdbConfig { capacity: 128, age, port_quota: Some(QUOTA), secret: None };
        let fdb = Fdb::new(&config).unwrap();
        let (mut model, mut sweep) = (Model::default(), Sweep::default());
        for op in ops {
            match op {
                Op::Learn(station, port) => {
                    let answer = fdb.learn(mac(station), 0, PortId::for_test(port), model.now_s);
                    prop_assert_eq!(answer, model.learn(station, port));
                }
                Op::AddStatic(station, port) => {
                    fdb.add_static(mac(station), 0, PortId::for_test(port)).unwrap();
                    model.known.insert(station, Known { port, seen_s: 0, fixed: true });
                }
                Op::Remove(station) => {
                    prop_assert_eq!(fdb.remove(mac(station), 0), model.known.remove(&station).is_some());
                }
                Op::FlushPort(port) => {
                    prop_assert_eq!(fdb.flush_port(PortId::for_test(port)), model.retain(|k| k.port != port));
                }
                Op::Flush => prop_assert_eq!(fdb.flush(), model.retain(|k| k.fixed)),
                Op::Pass(seconds) => {
                    model.now_s += seconds;
                    sweep_all(&fdb, &mut sweep, model.now_s);
                    let now_s = model.now_s;
                    model.retain(|k| k.fixed || now_s - k.seen_s <= AGE_S);
                }
            }
            for station in 0..60 {
                let port = model.known.get(&station).map(|k| PortId::for_test(k.port));
                prop_assert_eq!(fdb.lookup(mac(station), 0), port);
            }
            prop_assert_eq!(fdb.list(model.now_s).len(), model.known.len());
            prop_assert_eq!(fdb.stats().entries as usize, model.known.len());
        }
    }
}

#[test]
fn the_same_address_in_two_vlans_is_two_stations() {
    let fdb = Fdb::new(&FdbConfig::default()).unwrap();
    let (one, two) = (PortId::for_test(1), PortId::for_test(2));
    fdb.learn(mac(1), 10, one, 0);
    fdb.learn(mac(1), 20, two, 0);
    assert_eq!(
        (fdb.lookup(mac(1), 10), fdb.lookup(mac(1), 20), fdb.lookup(mac(1), 0)),
        (Some(one), Some(two), None)
    );
}

#[test]
fn numbers_out_of_range_are_named() {
    let bad = [
        FdbConfig { capacity: 63, ..FdbConfig::default() },
        FdbConfig { capacity: 1 << 40, ..FdbConfig::default() },
        FdbConfig { age: Duration::ZERO, ..FdbConfig::default() },
        FdbConfig { port_quota: Some(0), ..FdbConfig::default() },
    ];
    for config in bad {
        let error = Fdb::new(&config).unwrap_err().to_string();
        assert!(error.contains("out of range"), "{error}");
    }
}
