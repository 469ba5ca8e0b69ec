//! Packets against a model: what they hold, and where every mbuf of the pool is, whatever is done to them by two threads.
#![expect(unsafe_code, reason = "names a tail")]
// UNSAFETY: tails name a static.

use core::ptr::NonNull;
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};

use mbuf::{LcoreId, Mbuf, Mempool, MempoolConfig, PageSize, TailSegment, ZoneConfig};
use proptest::prelude::*;

const TOTAL: usize = 200;
const CACHE: usize = 16;

static POOL: LazyLock<&'static Mempool> = LazyLock::new(|| {
    let zone = ZoneConfig { name: "model".into(), pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs: TOTAL, data_room: 64, cache: CACHE, zone }).unwrap()
});

static FOREIGN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..300).map(|i| (i * 7) as u8).collect());

/// Two stretches of FOREIGN, 60 and 240 bytes.
static TAIL: LazyLock<[TailSegment<'static>; 2]> = LazyLock::new(|| {
    let start = NonNull::from(&FOREIGN[0]);
    // SAFETY: 0..60 and 60..300 of a static vector of 300 bytes.
    unsafe { [TailSegment::new(start, 60), TailSegment::new(start.add(60), 240)] }
});

#[derive(Clone, Debug)]
enum Op {
    Alloc { owner: u16, len: usize },
    Free(usize),
    Share(usize),
    Unshare(usize),
    Chain(usize, usize),
    SetTail(usize),
    Own(usize),
    Duplicate(usize),
    Prepend(usize, usize),
    Append(usize, usize),
    TrimFront(usize, usize),
    Send(usize),
    Receive,
}

fn op() -> impl Strategy<Value = Op> {
    let (i, n) = (0..1000usize, 0..200usize);
    prop_oneof![
        4 => (1..5u16, 0..129usize).prop_map(|(owner, len)| Op::Alloc { owner, len }),
        3 => i.clone().prop_map(Op::Free),
        2 => i.clone().prop_map(Op::Share),
        1 => i.clone().prop_map(Op::Unshare),
        2 => (i.clone(), i.clone()).prop_map(|(a, b)| Op::Chain(a, b)),
        1 => i.clone().prop_map(Op::SetTail),
        1 => i.clone().prop_map(Op::Own),
        1 => i.clone().prop_map(Op::Duplicate),
        1 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Prepend(i, n)),
        1 => (i.clone(), n.clone()).prop_map(|(i, n)| Op::Append(i, n)),
        1 => (i.clone(), n).prop_map(|(i, n)| Op::TrimFront(i, n)),
        2 => i.prop_map(Op::Send),
        2 => Just(Op::Receive),
    ]
}

/// A handle, the bytes that it must hold, and the owners of the mbufs behind it. All sharers have the same `mbufs`.
struct Packet {
    mbuf: Mbuf<'static>,
    bytes: Vec<u8>,
    mbufs: Arc<Vec<u16>>,
}

impl Packet {
    /// A fresh copy of `of`, all its mbufs of the first one's owner.
    fn copy(mbuf: Mbuf<'static>, of: &Packet) -> Self {
        let mbufs = Arc::new(vec![of.mbufs[0]; mbuf.segment_count()]);
        Self { mbuf, bytes: of.bytes.clone(), mbufs }
    }

    fn check(&self) {
        let mut read = vec![0; self.bytes.len() + 1];
        assert_eq!(self.mbuf.copy_to(0, &mut read), self.bytes.len());
        assert_eq!(read[..self.bytes.len()], self.bytes);
        assert_eq!(self.mbuf.len(), self.bytes.len());
        let middle = self.bytes.len() / 2;
        assert_eq!(self.mbuf.copy_to(middle, &mut read), self.bytes.len() - middle);
        assert_eq!(read[..self.bytes.len() - middle], self.bytes[middle..]);
        assert_eq!(self.mbuf.segments().count(), self.mbufs.len());
    }
}

struct Side {
    packets: Vec<Packet>,
    tx: Sender<Packet>,
    rx: Receiver<Packet>,
}

impl Side {
    fn take(&mut self, i: usize) -> Option<Packet> {
        let n = self.packets.len();
        (n > 0).then(|| self.packets.swap_remove(i % n))
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Alloc { owner, len } => {
                let Ok(mut mbuf) = POOL.alloc(owner) else { return };
                let bytes: Vec<u8> = (0..len).map(|b| (b * 3 + usize::from(owner)) as u8).collect();
                mbuf.append(len).expect("a fresh mbuf has 128 bytes of room").copy_from_slice(&bytes);
                self.packets.push(Packet { mbuf, bytes, mbufs: Arc::new(vec![owner]) });
            }
            Op::Send(i) => {
                if let Some(p) = self.take(i) {
                    self.tx.send(p).unwrap();
                }
            }
            Op::Receive => self.packets.extend(self.rx.try_recv()),
            Op::Chain(i, j) => self.chain(i, j),
            Op::Free(i) => drop(self.take(i)),
            Op::Share(i) => {
                let Some(p) = self.take(i) else { return };
                let twin = Packet { mbuf: p.mbuf.share(), bytes: p.bytes.clone(), mbufs: p.mbufs.clone() };
                self.packets.extend([p, twin]);
            }
            Op::Duplicate(i) => {
                let Some(p) = self.take(i) else { return };
                self.packets.extend(p.mbuf.duplicate().map(|mbuf| Packet::copy(mbuf, &p)));
                self.packets.push(p);
            }
            Op::Unshare(i) => {
                let Some(p) = self.take(i) else { return };
                let Ok(mbuf) = p.mbuf.share().unshare() else { return self.packets.push(p) };
                assert!(mbuf.is_unique());
                let copy = Packet::copy(mbuf, &p);
                self.packets.extend([p, copy]);
            }
            Op::Own(i) => {
                let Some(p) = self.take(i) else { return };
                let had_tail = p.mbuf.has_tail();
                let Packet { mbuf, bytes, mbufs } = p;
                let Ok(mbuf) = mbuf.own() else { return };
                assert!(!mbuf.has_tail());
                let mbufs = if had_tail { Arc::new(vec![mbufs[0]; mbuf.segment_count()]) } else { mbufs };
                self.packets.push(Packet { mbuf, bytes, mbufs });
            }
            Op::SetTail(i) => self.change(i, |p| {
                if allowed(p, |m| !m.has_tail(), |m| m.set_tail(&*TAIL)) {
                    p.bytes.extend_from_slice(&FOREIGN);
                }
            }),
            Op::Prepend(i, n) => self.change(i, |p| {
                if allowed(p, |m| n <= m.headroom(), |m| m.prepend(n).map(|d| d.fill(9)).is_some()) {
                    p.bytes.splice(0..0, vec![9; n]);
                }
            }),
            Op::Append(i, n) => self.change(i, |p| {
                let plain = |m: &Mbuf<'_>| !m.has_tail() && m.segment_count() == 1 && n <= m.tailroom();
                if allowed(p, plain, |m| m.append(n).map(|d| d.fill(8)).is_some()) {
                    p.bytes.extend(vec![8; n]);
                }
            }),
            Op::TrimFront(i, n) => self.change(i, |p| {
                if allowed(p, |m| n <= m.data().len(), |m| m.trim_front(n)) {
                    p.bytes.drain(..n);
                }
            }),
        }
    }

    fn change(&mut self, i: usize, what: impl FnOnce(&mut Packet)) {
        let n = self.packets.len();
        if n > 0 {
            what(&mut self.packets[i % n]);
        }
    }

    fn chain(&mut self, i: usize, j: usize) {
        let (Some(mut a), Some(b)) = (self.take(i), self.take(j)) else { return };
        let plain = !a.mbuf.has_tail() && !b.mbuf.has_tail();
        let unique = a.mbuf.is_unique() && b.mbuf.is_unique();
        match a.mbuf.chain(b.mbuf) {
            Ok(()) => {
                assert!(plain);
                a.bytes.extend_from_slice(&b.bytes);
                a.mbufs = Arc::new([a.mbufs.as_slice(), &b.mbufs].concat());
            }
            Err(mbuf) => {
                assert!(!(plain && unique));
                self.packets.push(Packet { mbuf, ..b });
            }
        }
        self.packets.push(a);
    }
}

/// Does `what` to the packet, which must work if `fits` and the packet is not shared, and must not if not `fits`. (The
/// other thread may drop the last sharer in between, so for shared ones either is right.)
fn allowed(
    p: &mut Packet,
    fits: impl Fn(&Mbuf<'_>) -> bool,
    what: impl FnOnce(&mut Mbuf<'static>) -> bool,
) -> bool {
    let (fits, unique) = (fits(&p.mbuf), p.mbuf.is_unique());
    let done = what(&mut p.mbuf);
    assert!(if unique { done == fits } else { fits || !done });
    done
}

/// Out by owner, as the pool must see it.
fn expected(packets: &[Packet]) -> Vec<(u16, usize)> {
    let distinct: HashMap<*const Vec<u16>, &Vec<u16>> =
        packets.iter().map(|p| (Arc::as_ptr(&p.mbufs), &*p.mbufs)).collect();
    let mut owners = BTreeMap::new();
    for owner in distinct.values().flat_map(|mbufs| mbufs.iter()) {
        *owners.entry(*owner).or_insert(0) += 1;
    }
    owners.into_iter().collect()
}

fn check_balance(packets: &[Packet]) {
    let balance = POOL.balance();
    assert_eq!(balance.free + balance.cached + balance.out, TOTAL, "{balance:?}");
    assert_eq!(balance.out_by_owner, expected(packets));
}

fn play(ops: [Vec<Op>; 2], lcores: [bool; 2]) {
    let (to_first, first_rx) = channel();
    let (to_second, second_rx) = channel();
    let sides = [(to_second, first_rx), (to_first, second_rx)];
    let threads: Vec<_> = sides.into_iter().zip(ops).zip(lcores).collect();
    let packets: Vec<Packet> = std::thread::scope(|scope| {
        let run = |((tx, rx), ops): ((Sender<Packet>, Receiver<Packet>), Vec<Op>), lcore: bool| {
            let id = lcore.then(|| LcoreId::claim().expect("64 are enough"));
            let mut side = Side { packets: Vec::new(), tx, rx };
            for op in &ops {
                side.run(op);
                side.packets.iter().for_each(Packet::check);
            }
            drop(side.tx);
            side.packets.extend(side.rx.iter());
            drop(id);
            side.packets
        };
        let running: Vec<_> =
            threads.into_iter().map(|(side, lcore)| scope.spawn(move || run(side, lcore))).collect();
        running.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    packets.iter().for_each(Packet::check);
    check_balance(&packets);
    drop(packets);
    check_balance(&[]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn packets_and_balance_agree_with_the_model(
        first in prop::collection::vec(op(), 0..80),
        second in prop::collection::vec(op(), 0..80),
        lcores in any::<[bool; 2]>(),
    ) {
        play([first, second], lcores);
    }
}
