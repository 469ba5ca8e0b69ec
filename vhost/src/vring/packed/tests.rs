//! A packed ring against a driver that is told as the specification tells it, one descriptor at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::memory::{GuestMemory, Window};

/// Ring memory on the heap, and the driver's side of it.
struct Driver {
    /// Two words a descriptor.
    desc: Arc<[AtomicU64]>,
    driver: Arc<AtomicU32>,
    device: Arc<AtomicU32>,
    size: u16,
    /// Where the next descriptor is made available, and where the next used one is due.
    available: Position,
    due: Position,
    /// Descriptors that are not the device's.
    free: u16,
    free_ids: VecDeque<u16>,
    /// Chains that are the device's: id and length, in order.
    lent: VecDeque<(u16, u16)>,
}

fn window(start: *const u8, len: usize) -> Window {
    Window { start: NonNull::new(start.cast_mut()).expect("an address"), len }
}

impl Driver {
    fn new(size: u16, start: Position) -> Self {
        // What stands in the ring is what was used there last: before `start` in its round, from there on in the one before.
        let word = |at: u16| {
            let last = Position { at, wrap: start.wrap ^ (at >= start.at) };
            PackedDesc { flags: last.used_flags(), ..PackedDesc::default() }.rest_word()
        };
        let desc = (0..size).flat_map(|at| [AtomicU64::new(0), AtomicU64::new(word(at))]).collect();
        Self {
            desc,
            driver: Arc::default(),
            device: Arc::default(),
            size,
            available: start,
            due: start,
            free: size,
            free_ids: (0..size).collect(),
            lent: VecDeque::new(),
        }
    }

    /// The device's side, which starts where this one does.
    fn device(&self, features: u64) -> Packed {
        Packed::new(&VringSetup {
            size: self.size,
            desc: window(self.desc.as_ptr().cast(), desc_bytes(self.size)),
            avail: window(Arc::as_ptr(&self.driver).cast(), EVENT_SIZE),
            used: window(Arc::as_ptr(&self.device).cast(), EVENT_SIZE),
            base: self.available.base(),
            features: features | net::F_RING_PACKED,
            memory: Arc::new(GuestMemory::default()),
            call: None,
            enabled: true,
        })
        .expect("memory for its bookkeeping")
    }

    fn write(&self, at: u16, desc: PackedDesc) {
        self.desc[usize::from(at) * 2].store(desc.addr, Ordering::Relaxed);
        // ORDERING: pairs with V1.
        self.desc[usize::from(at) * 2 + 1].store(desc.rest_word(), Ordering::Release);
    }

    fn read(&self, at: u16) -> PackedDesc {
        // ORDERING: pairs with V2.
        let rest = self.desc[usize::from(at) * 2 + 1].load(Ordering::Acquire);
        PackedDesc::from_words(self.desc[usize::from(at) * 2].load(Ordering::Relaxed), rest)
    }

    /// Lends a chain of `len` descriptors whose addresses are `tag` and on; false if there is no room.
    fn lend(&mut self, tag: u64, len: u16) -> bool {
        if len > self.free {
            return false;
        }
        let id = self.free_ids.pop_front().expect("an id for each descriptor");
        let first = self.available;
        // The first one last (§2.8.6).
        for i in (0..len).rev() {
            let position = first.after(i, self.size);
            let more = if i + 1 < len { DESC_F_NEXT } else { 0 };
            let flags = position.available_flags() | more;
            let id = if i + 1 == len { id } else { 0xdead };
            self.write(position.at, PackedDesc { addr: tag + u64::from(i), len: i.into(), id, flags });
        }
        self.available = first.after(len, self.size);
        self.free -= len;
        self.lent.push_back((id, len));
        true
    }

    /// Takes back the chain that is due, if it came: how many bytes were written into it.
    fn take_back(&mut self) -> Option<u32> {
        let got = self.read(self.due.at);
        if got.flags & (DESC_F_AVAIL | DESC_F_USED) != self.due.used_flags() {
            return None;
        }
        let (id, len) = self.lent.pop_front().expect("something was lent");
        assert_eq!(got.id, id, "at {:?}, in order", self.due);
        assert_eq!(got.flags & DESC_F_WRITE != 0, got.len > 0);
        self.due = self.due.after(len, self.size);
        self.free += len;
        // As Linux does: the last one back is the next one out.
        self.free_ids.push_front(id);
        Some(got.len)
    }

    fn suppress(&self, flags: u16, event: Position) {
        self.driver.store(u32::from(event.to_bits()) | u32::from(flags) << 16, Ordering::Relaxed);
    }
}

/// Walks on from a head to the end of its chain, three steps at a time.
fn skip(ring: &Packed, at: Place, head: Head) -> Result<Buffer, Fault> {
    let mut long = Long { head, walked: 1, desc: head.desc };
    loop {
        match ring.skip(at, long, 3)? {
            Ok(buffer) => return Ok(buffer),
            Err(further) => {
                assert!(further.walked == long.walked + 3);
                long = further;
            }
        }
    }
}

/// Looks at `most` chains as the data plane does: the tags of their descriptors, and what gives them back.
fn look(ring: &mut Packed, most: usize) -> Result<Vec<(Vec<u64>, Buffer)>, Fault> {
    let (mut at, mut all) = (ring.first(), Vec::new());
    for _ in 0..ring.ready(at, most)? {
        let Some(head) = ring.head(at)? else { break };
        let (mut desc, mut tags) = (head.desc, vec![head.desc.addr]);
        while desc.flags & DESC_F_NEXT != 0 {
            desc = ring.follow(at, tags.len() as u16, desc)?;
            tags.push(desc.addr);
        }
        let slots = NonZeroU16::new(tags.len() as u16).expect("a descriptor at least");
        let buffer = ring.buffer(&head, slots, desc)?;
        assert_eq!(skip(ring, at, head), Ok(buffer));
        at = ring.after(at, buffer);
        all.push((tags, buffer));
    }
    Ok(all)
}

/// One burst: at most `most` chains are looked at and given back, with lengths from `len` on.
fn burst(ring: &mut Packed, most: usize, len: u32) -> Vec<Vec<u64>> {
    let found = look(ring, most).expect("a sound ring");
    for (i, (_, buffer)) in found.iter().enumerate() {
        ring.stage(i, *buffer, len + i as u32);
    }
    ring.publish(found.len()).expect("sound ids");
    found.into_iter().map(|(tags, _)| tags).collect()
}

fn tags(tag: u64, len: u16) -> Vec<u64> {
    (0..len.into()).map(|i| tag + i).collect()
}

/// Every size that is easily got wrong, and the largest.
fn sizes() -> impl Iterator<Item = u16> {
    (1..=33).chain([255, 256, 257, 1000, 32_767, 32_768])
}

#[test]
fn v46_chains_of_all_lengths_at_every_position() {
    for size in (1..=33).chain([256]) {
        for len in [1, 2, 3, size / 2 + 1, size].into_iter().filter(|len| (1..=size).contains(len)) {
            let mut driver = Driver::new(size, Position::START);
            let mut ring = driver.device(0);
            // Two rounds and more, so that each position is met with either wrap counter.
            for n in 0..3 * u64::from(size) {
                let tag = n << 16;
                assert!(driver.lend(tag, len), "size {size}");
                assert_eq!(driver.take_back(), None);
                assert_eq!(burst(&mut ring, 32, 7), [tags(tag, len)], "size {size}, at {:?}", driver.due);
                assert_eq!(driver.take_back(), Some(7));
                assert_eq!(ring.base(), driver.available.base());
            }
        }
    }
}

#[test]
fn v46_full_rings_in_bursts() {
    for size in sizes() {
        let start = Position::START.after(size / 3, size);
        let mut driver = Driver::new(size, start);
        let mut ring = driver.device(0);
        let (mut sent, mut back) = (0u64, 0);
        while back < 2 * u64::from(size) + 64 {
            while driver.lend(sent, 1) {
                sent += 1;
            }
            let got = burst(&mut ring, 32, 1);
            assert_eq!(got.len(), usize::from(size.min(32)));
            assert!(got.iter().zip(back..).all(|(tags, want)| *tags == [want]), "size {size}");
            for i in 0..got.len() {
                assert_eq!(driver.take_back(), Some(1 + i as u32));
                back += 1;
            }
            assert_eq!(driver.take_back(), None);
        }
    }
}

#[test]
fn starts_where_it_is_told() {
    let start = Position { at: 5, wrap: false };
    let in_flight = u32::from(Position { at: 2, wrap: true }.to_bits()) << 16;
    for (base, want) in [
        (start.base(), start),
        // DPDK's front end says nothing of used descriptors.
        (start.to_bits().into(), start),
        (Position::START.to_bits().into(), Position::START),
        // What was in flight begins anew.
        (in_flight | u32::from(start.to_bits()), Position { at: 2, wrap: true }),
    ] {
        assert_eq!(Position::of_base(base), want, "{base:#x}");
    }
    assert!(Position::is_base_within(in_flight | 6, 7) && !Position::is_base_within(6, 6));
    assert!(!Position::is_base_within(6 << 16, 6));
    for size in [6, 7, 32_768] {
        let mut driver = Driver::new(size, start);
        let mut ring = driver.device(0);
        assert_eq!(ring.base(), start.base());
        assert!(look(&mut ring, 32).unwrap().is_empty());
        driver.lend(1, 2);
        assert_eq!(burst(&mut ring, 32, 0), [vec![1, 2]]);
        assert_eq!(driver.take_back(), Some(0));
    }
}

#[test]
fn what_is_staged_can_be_taken_back() {
    let mut driver = Driver::new(8, Position::START);
    let mut ring = driver.device(0);
    (0..4).for_each(|n| assert!(driver.lend(n, 1)));
    let found = look(&mut ring, 4).unwrap();
    // Three for a packet that turns out not to fit, of which one is then used for another.
    for (i, (_, buffer)) in found[..3].iter().enumerate() {
        ring.stage(i, *buffer, 100);
    }
    ring.stage(0, found[0].1, 60);
    ring.publish(1).unwrap();
    assert_eq!(driver.take_back(), Some(60));
    assert_eq!(driver.take_back(), None, "nothing of the others is seen");
    assert_eq!(burst(&mut ring, 4, 1).len(), 3);
    assert_eq!(driver.take_back(), Some(1));
}

#[test]
fn v11_next_in_every_descriptor() {
    for size in [1, 2, 7, 256, 32_768] {
        for at in [0, size / 2, size - 1] {
            let mut driver = Driver::new(size, Position { at, wrap: true });
            let mut ring = driver.device(0);
            driver.lend(0, size);
            let last = driver.available.after(size - 1, size);
            let desc = driver.read(last.at);
            driver.write(last.at, PackedDesc { flags: desc.flags | DESC_F_NEXT, ..desc });
            assert_eq!(look(&mut ring, 32), Err(Fault::ChainTooLong), "size {size} from {at}");
            let head = ring.head(ring.first()).unwrap().expect("a head");
            assert_eq!(skip(&ring, ring.first(), head), Err(Fault::ChainTooLong));
        }
    }
}

#[test]
fn v12_wrap_bit_flipped_in_mid_chain() {
    for at in 0..8u16 {
        for flipped in 1..5u16 {
            let mut driver = Driver::new(8, Position { at, wrap: true });
            let mut ring = driver.device(0);
            let victim = driver.available.after(flipped, 8).at;
            driver.lend(0, 5);
            assert_eq!(look(&mut ring, 32).unwrap()[0].0, tags(0, 5), "legal, across the wrap or not");
            let desc = driver.read(victim);
            for flags in [desc.flags ^ (DESC_F_AVAIL | DESC_F_USED), desc.flags ^ DESC_F_AVAIL] {
                driver.write(victim, PackedDesc { flags, ..desc });
                assert_eq!(look(&mut ring, 32), Err(Fault::ChainBroken));
            }
        }
    }
}

#[test]
fn v36_flags_that_lie() {
    let mut driver = Driver::new(4, Position { at: 2, wrap: false });
    let mut ring = driver.device(0);
    driver.lend(0, 1);
    let desc = driver.read(2);
    for lie in [0, DESC_F_AVAIL, DESC_F_AVAIL | DESC_F_USED] {
        driver.write(2, PackedDesc { flags: lie, ..desc });
        assert_eq!(look(&mut ring, 32), Ok(vec![]), "{lie:#x} is nothing available");
    }
}

/// Every descriptor says that it is available in this round and in the next: a burst takes no more than the ring has.
#[test]
fn v36_available_in_every_round() {
    let mut driver = Driver::new(5, Position { at: 3, wrap: true });
    let mut ring = driver.device(0);
    (0..5).for_each(|n| assert!(driver.lend(n, 1)));
    let mut at = ring.first();
    for n in 0..5u64 {
        let head = ring.head(at).unwrap().expect("available");
        assert_eq!(head.desc.addr, n);
        let buffer = ring.buffer(&head, NonZeroU16::MIN, head.desc).unwrap();
        let here = at.position.at;
        at = ring.after(at, buffer);
        let desc = driver.read(here);
        driver.write(here, PackedDesc { flags: desc.flags ^ (DESC_F_AVAIL | DESC_F_USED), ..desc });
    }
    assert_eq!(ring.ready(at, 32), Ok(0));
    assert_eq!(ring.head(at), Ok(None));
}

#[test]
fn v36_ids_out_of_range() {
    for (size, id) in [(4, 4), (4, 0xffff), (32_768, 32_768), (1, 1)] {
        let mut driver = Driver::new(size, Position::START);
        let mut ring = driver.device(0);
        driver.lend(0, 1);
        let desc = driver.read(0);
        driver.write(0, PackedDesc { id, ..desc });
        assert_eq!(look(&mut ring, 32), Err(Fault::BufferId), "{id} of {size}");
    }
}

/// Ids in all the orders that could be taken for a row: up, down, by steps, round the end, and not quite.
#[test]
fn v36_ids_in_a_row_or_not() {
    let driver = Driver::new(256, Position::START);
    let mut ring = driver.device(0);
    let mut distinct = |ids: &[u16]| {
        for (i, &id) in ids.iter().enumerate() {
            ring.stage(i, Buffer { id, slots: NonZeroU16::MIN }, 0);
        }
        ring.distinct(ids.len())
    };
    for ids in [&[][..], &[3], &[3, 4, 5], &[5, 4, 3], &[0, 2, 4], &[255, 0, 1], &[200, 100, 0], &[7, 8, 6]] {
        assert_eq!(distinct(ids), ids.len(), "{ids:?}");
    }
    for (ids, first) in [(&[3, 3][..], 1), (&[0, 1, 0], 2), (&[9, 8, 9, 8], 2), (&[1, 2, 3, 3], 3)] {
        assert_eq!(distinct(ids), first, "{ids:?}");
    }
}

/// An id that comes twice in a burst: what stands before it comes back, once.
#[test]
fn v36_duplicate_ids() {
    for (size, n, twice) in [(2, 2, 1), (8, 8, 3), (256, 32, 31), (256, 10, 1)] {
        let mut driver = Driver::new(size, Position::START);
        let mut ring = driver.device(0);
        (0..n).for_each(|tag| assert!(driver.lend(tag, 1)));
        let desc = driver.read(twice);
        driver.write(twice, PackedDesc { id: 0, ..desc });
        let found = look(&mut ring, 32).unwrap();
        for (i, (_, buffer)) in found.iter().enumerate() {
            ring.stage(i, *buffer, 0);
        }
        assert_eq!(ring.publish(found.len()), Err(Fault::BufferId));
        (0..twice).for_each(|_| assert_eq!(driver.take_back(), Some(0)));
        assert_eq!(driver.take_back(), None);
        assert!(ring.ids.iter().all(|word| *word == 0), "clear between bursts");
    }
}

#[test]
fn the_device_asks_for_kicks_when_it_is_about_to_sleep() {
    for (features, armed) in [(0, EVENT_F_ENABLE), (net::F_EVENT_IDX, EVENT_F_DESC)] {
        let mut driver = Driver::new(4, Position { at: 3, wrap: true });
        let mut ring = driver.device(features);
        let said = |driver: &Driver| {
            let word = driver.device.load(Ordering::Relaxed);
            (Position::from_bits(word as u16), (word >> 16) as u16)
        };
        assert_eq!(said(&driver).1, EVENT_F_DISABLE, "it polls");
        assert!(ring.arm());
        assert_eq!(said(&driver), (driver.available, armed));
        driver.lend(0, 2);
        assert!(!ring.arm(), "no sleep with something in the ring");
        burst(&mut ring, 1, 0);
        assert!(ring.arm());
        assert_eq!(said(&driver), (Position { at: 1, wrap: false }, armed));
        ring.disarm();
        assert_eq!(said(&driver).1, EVENT_F_DISABLE);
    }
}

#[test]
fn calls_by_flags() {
    for features in [0, net::F_EVENT_IDX] {
        let mut driver = Driver::new(4, Position::START);
        let mut ring = driver.device(features);
        let suppression = Arc::clone(&driver.driver);
        let mut give = |ring: &mut Packed| {
            driver.lend(0, 1);
            burst(ring, 1, 0);
            driver.take_back();
        };
        let set = |flags: u16| suppression.store(u32::from(flags) << 16, Ordering::Relaxed);
        set(EVENT_F_DISABLE);
        assert!(!ring.wants_call(), "not even the first time");
        set(EVENT_F_ENABLE);
        assert!(!ring.wants_call(), "nothing came back");
        for (flags, wanted) in [
            (EVENT_F_ENABLE, true),
            (EVENT_F_DISABLE, false),
            (EVENT_F_DISABLE | 0xfffc, false),
            (0xfffc, true),
            (3, true),
        ] {
            set(flags);
            give(&mut ring);
            assert_eq!(ring.wants_call(), wanted, "flags {flags:#x}");
        }
        ring.forget_calls();
        set(EVENT_F_ENABLE);
        assert!(ring.wants_call(), "whom to call has changed");
    }
}

/// With EVENT_IDX one call is due when the descriptor that the driver named is used, at every position of every round.
#[test]
fn calls_by_descriptor() {
    for size in [1, 2, 3, 8, 33u16] {
        let mut driver = Driver::new(size, Position::START);
        let mut ring = driver.device(net::F_EVENT_IDX);
        assert!(ring.wants_call(), "the first time");
        for n in 0..4 * u64::from(size) {
            let wait = n as u16 % size;
            driver.suppress(EVENT_F_DESC, driver.due.after(wait, size));
            for i in 0..=wait {
                driver.lend(n, 1);
                burst(&mut ring, 1, 0);
                driver.take_back();
                assert_eq!(ring.wants_call(), i == wait, "size {size}, at {:?}, {i} of {wait}", driver.due);
            }
        }
        driver.suppress(EVENT_F_DESC, driver.due);
        driver.lend(0, 1);
        burst(&mut ring, 1, 0);
        driver.suppress(3, Position::from_bits(0xffff));
        assert!(ring.wants_call(), "V37: what means nothing asks for calls");
    }
    let mut driver = Driver::new(8, Position::START);
    let mut ring = driver.device(0);
    driver.suppress(EVENT_F_DESC, Position { at: 5, wrap: true });
    ring.wants_call();
    driver.lend(0, 1);
    burst(&mut ring, 1, 0);
    assert!(ring.wants_call(), "not negotiated: it means nothing, too");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any chains in any bursts, anywhere: each comes once, whole, and goes back once, in order.
    #[test]
    fn v46_whatever_comes(
        size in prop_oneof![1..40u16, Just(256), Just(1000)],
        start in 0..1000u16,
        wrap: bool,
        steps in prop::collection::vec((0..6u16, 1..9u16, 0..33usize, 0..5usize), 1..300),
    ) {
        let start = Position { at: start % size, wrap };
        let mut driver = Driver::new(size, start);
        let mut ring = driver.device(net::F_EVENT_IDX);
        let (mut next, mut given, mut back) = (0u64, 0u64, 0u64);
        let mut lengths = VecDeque::new();
        for (chains, len, most, taken) in steps {
            for i in 0..chains {
                let len = 1 + (len + i) % size.min(8);
                if driver.lend(next << 16, len) {
                    lengths.push_back(len);
                    next += 1;
                }
            }
            for found in burst(&mut ring, most, 0) {
                let len = lengths.pop_front().expect("it was lent");
                prop_assert_eq!(found, tags(given << 16, len));
                given += 1;
            }
            for _ in 0..taken {
                back += u64::from(driver.take_back().is_some());
            }
            prop_assert!(back <= given);
        }
        while driver.take_back().is_some() {
            back += 1;
        }
        prop_assert_eq!(back, given);
        prop_assert_eq!(driver.lent.len() as u64, next - given);
    }
}

/// Two threads, so that a sanitizer or Miri sees the orderings V1 and V2: nothing is lost, torn or out of order.
#[test]
fn a_driver_on_another_thread() {
    const CHAINS: u64 = if cfg!(miri) { 200 } else { 50_000 };
    let mut driver = Driver::new(7, Position::START);
    let mut ring = driver.device(0);
    let stop = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut due = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for found in burst(&mut ring, 5, 3) {
                    assert_eq!(found, tags(due << 16, 1 + (due % 3) as u16));
                    due += 1;
                }
                thread::yield_now();
            }
        });
        let (mut sent, mut back) = (0, 0);
        while back < CHAINS {
            while driver.lend(sent << 16, 1 + (sent % 3) as u16) {
                sent += 1;
            }
            while let Some(len) = driver.take_back() {
                assert!((3..8).contains(&len));
                back += 1;
            }
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
}
