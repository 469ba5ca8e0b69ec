//! Frames in both directions.

use super::*;

#[test]
fn frames_go_out_and_come_in_whole_and_in_order() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let frames: Vec<Vec<u8>> = (0..500)
        .map(|i| {
            let mut f = frame::<1514>()[..60 + i * 2].to_vec();
            f[20..22].copy_from_slice(&(i as u16).to_be_bytes());
            f
        })
        .collect();
    for f in &frames {
        assert!(bare.send_bytes(f));
    }
    assert!(card.sent(0) == frames);
    for some in frames.chunks(50) {
        assert!(some.iter().all(|f| card.receive(0, f)));
        assert!(bare.receive() == some);
    }
    let bytes: usize = frames.iter().map(Vec::len).sum();
    for c in [&bare.rx_counters, &bare.tx_counters] {
        assert_eq!((c.packets.get(), c.bytes.get()), (500, bytes as u64));
    }
    assert_eq!(bare.pool.balance().out_by_owner.last(), Some(&(7, 128)), "the receive rings are full");
    bare.end();
}

#[test]
fn full_bursts_cost_one_doorbell_and_come_back() {
    let card = Card::new(2);
    card.join(0, 1);
    let (mut a, mut b) = (Bare::new(&card, 0), Bare::new(&card, 1));
    let counters = QueueCounters::default();
    for _ in 0..1000 {
        let mut burst = Burst::new();
        a.pool.alloc_bulk(&mut burst, MAX_BURST, 3).unwrap();
        burst.iter_mut().for_each(|m| m.append(60).unwrap().copy_from_slice(&FRAME));
        assert_eq!(a.tx().tx_burst(&mut burst, &counters), MAX_BURST);
        assert!(burst.is_empty());
        assert_eq!(b.rx().rx_burst(&mut burst, &counters), MAX_BURST, "no flush was needed");
        assert!(burst.iter().all(|m| m.data() == FRAME && m.port() == 7));
    }
    assert_eq!(card.with(1, |vf| vf.missed), 0);
    assert_eq!(counters.notifications.get(), 1000);
    a.end();
    b.end();
}

#[test]
fn a_full_ring_takes_no_more_and_goes_on_when_there_is_room() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    card.with(0, |vf| vf.tx_stands = true);
    let sent = (0..200).filter(|_| bare.send_bytes(&FRAME)).count();
    assert_eq!(sent, 127, "all descriptors but one");
    card.with(0, |vf| vf.tx_stands = false);
    assert!(!bare.send_bytes(&FRAME), "the card does not know yet");
    bare.tx().check();
    card.ring(0);
    assert!(bare.send_bytes(&FRAME));
    bare.end();
}

#[test]
fn jumbo_frames_are_chains() {
    let card = Card::new(2);
    card.join(0, 1);
    let (mut a, mut b) = (Bare::new(&card, 0), Bare::new(&card, 1));
    assert_eq!(a.driver.max_frame(), 9014);
    for len in [2047, 2048, 2049, 4096, 4097, 9000, 9014] {
        let f = &frame::<9014>()[..len];
        assert!(a.send_bytes(f));
        assert!(b.receive() == [f], "{len} bytes");
    }
    assert!(a.send_bytes(&frame::<9015>()), "taken");
    assert_eq!((a.tx_drops(DropReason::TxTooLong), b.receive().len()), (1, 0));
    let mut tagged = frame::<9018>();
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    assert!(a.send_bytes(&tagged));
    assert!(b.receive() == [tagged], "a tag may be added to the longest frame");
    a.end();
    b.end();
}

/// The model takes it amiss, as QEMU's card does: on small pages, half of all mbufs lie across two.
#[test]
fn no_piece_of_a_packet_crosses_a_page() {
    let card = Card::new(1);
    let zone = mbuf::ZoneConfig { pages: mbuf::PageSize::Small4K, ..mbuf::ZoneConfig::default() };
    let config = mbuf::MempoolConfig { mbufs: 1024, data_room: 5000, cache: 0, zone };
    let mut bare = Bare::with_pool(&card, 0, Mempool::new(&config).unwrap());
    let frames: Vec<_> = (0..600).map(|i| frame::<5000>()[..60 + i * 8].to_vec()).collect();
    assert!(frames.iter().all(|f| bare.send_bytes(f)));
    assert!(card.sent(0) == frames);
    bare.end();
}

#[test]
fn a_tail_a_chain_of_crumbs_and_a_foreign_mbuf_are_sent_as_copies() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    static TAIL: [u8; 1400] = frame();
    // SAFETY: readable for ever.
    #[expect(unsafe_code, reason = "a tail")]
    let tail = [unsafe { mbuf::TailSegment::new(std::ptr::NonNull::from(&TAIL).cast(), 1400) }];
    let mut guest = frames::packet(bare.pool, &FRAME, &[]);
    assert!(guest.set_tail(&tail));
    assert!(bare.send(guest));
    let crumbs = frames::packet(bare.pool, &frame::<1000>(), &[1; 100]);
    assert!(bare.send(crumbs));
    let other = frames::pool(64, 256);
    assert!(bare.send(frames::packet(other, &frame::<1500>(), &[])));
    assert_eq!(other.balance().out, 0, "copied, and given back at once");
    let mut mixed = frames::packet(bare.pool, &FRAME, &[]);
    mixed.chain(frames::packet(other, &FRAME, &[])).unwrap();
    assert!(bare.send(mixed));
    let sent = card.sent(0);
    assert_eq!(sent[0], [&FRAME[..], &TAIL].concat());
    assert!(sent[1] == frame::<1000>() && sent[2] == frame::<1500>() && sent[3] == [FRAME, FRAME].concat());
    bare.end();
    assert_eq!(other.balance().out, 0);
}

#[test]
fn a_flooded_packet_is_sent_as_it_is_by_all() {
    let card = Card::new(2);
    let (mut a, mut b) = (Bare::new(&card, 0), Bare::new(&card, 1));
    b.stop();
    b.pool = a.pool;
    b.start();
    let packet = frames::packet(a.pool, &FRAME, &[]);
    assert!(a.send(packet.share()) && b.send(packet.share()) && a.send(packet));
    assert!(card.sent(0) == [FRAME, FRAME] && card.sent(1) == [FRAME]);
    b.stop();
    a.end();
}

#[test]
fn both_queue_pairs_of_an_82576_work_and_an_i350_has_one() {
    let card = Card::new(2);
    let mut bare = Bare::new(&card, 0);
    let rings = bare.rings.as_mut().unwrap();
    assert_eq!((rings.rx.len(), rings.tx.len()), (2, 2));
    let mut burst = Burst::new();
    burst.push(frames::packet(bare.pool, &FRAME, &[])).unwrap();
    rings.tx[1].tx_burst(&mut burst, &bare.tx_counters);
    rings.tx[1].flush();
    assert!(card.sent(0) == [FRAME]);
    card.with(0, |vf| vf.spreads = true);
    let mut other = FRAME;
    other[30] ^= 1;
    assert!(card.receive(0, &FRAME) && card.receive(0, &other));
    let n: Vec<_> = rings.rx.iter_mut().map(|rx| rx.rx_burst(&mut burst, &bare.rx_counters)).collect();
    assert_eq!(n, [1, 1]);
    drop(burst);
    bare.end();

    card.with(1, |vf| vf.device_id = 0x1520);
    let mut i350 = Bare::new(&card, 1);
    assert_eq!(i350.driver.queue_pairs(), 1);
    assert!(i350.send_bytes(&FRAME) && card.receive(1, &FRAME));
    assert_eq!(i350.receive(), [FRAME]);
    i350.end();
}

#[test]
fn tags_that_the_pf_has_taken_out_are_put_back_if_they_are_ours() {
    let card = Card::new(1);
    for (id, swapped) in [(0x10ca, false), (0x1520, true)] {
        card.with(0, |vf| (vf.device_id, vf.strips_vlans) = (id, true));
        let mut bare = Bare::new(&card, 0);
        bare.stop();
        bare.driver = Igbvf::new(card.open(0).unwrap(), &OPTIONS).unwrap().with_vlans(&[5]);
        bare.start();
        assert_eq!(card.with(0, |vf| vf.pf.vlans.clone()), [5]);
        let mut ours = frame::<100>();
        ours[12..16].copy_from_slice(&[0x81, 0, 0xe0, 5]);
        let mut port_vlan = ours;
        port_vlan[15] = 6;
        assert!(card.receive(0, &ours) && card.receive(0, &port_vlan) && card.receive(0, &FRAME));
        let got = bare.receive();
        assert!(got[0] == ours && got[1].len() == 96 && got[1][12..] == port_vlan[16..] && got[2] == FRAME);
        // From a VF of the same card.
        card.with(0, |vf| {
            vf.rx_lie = Some(Box::new(move |_, word| {
                let tag = (word >> 48) as u16;
                let tag = if swapped { tag.swap_bytes() } else { tag };
                word & !(0xffff << 48) | u64::from(tag) << 48 | 1 << 18
            }));
        });
        assert!(card.receive(0, &ours));
        assert!(bare.receive() == [ours]);
        card.with(0, |vf| vf.rx_lie = None);
        bare.end();
    }
}

#[test]
fn the_cards_own_counters_wrap_and_are_shown() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    bare.stop();
    card.with(0, |vf| vf.add_to(crate::igbvf::regs::VFGPTC, u32::MAX as usize - 1));
    bare.start();
    for _ in 0..5 {
        assert!(bare.send_bytes(&FRAME) && card.receive(0, &FRAME));
    }
    assert_eq!(bare.receive().len(), 5);
    (0..10).for_each(|_| assert_eq!(bare.driver.look(), crate::nic::Health::Good));
    let details = bare.driver.details();
    let value = |name| details.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
    assert_eq!((value("vf tx packets"), value("vf tx bytes")), ("5", "320"));
    assert_eq!((value("vf rx packets"), value("vf rx bytes")), ("5", "320"));
    assert_eq!((value("mac"), value("speed")), ("02:00:00:00:00:00", "1000 Mb/s full duplex"));
    bare.end();
}

#[test]
fn an_idle_lcore_is_woken_and_a_busy_one_is_not() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let readable = |bare: &Bare| {
        let fd = bare.driver.rx_event(0).unwrap();
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(card.receive(0, &FRAME));
    assert!(!readable(&bare), "polled: no interrupts");
    assert!(!bare.rx().arm(), "there is a packet: do not sleep");
    bare.rx().disarm();
    assert_eq!(bare.receive().len(), 1);
    bare.rx().disarm();
    assert!(bare.rx().arm() && !readable(&bare), "what was polled wakes nobody");
    assert!(card.receive(0, &FRAME) && readable(&bare));
    bare.rx().disarm();
    assert!(!readable(&bare));
    assert!(card.receive(0, &FRAME) && !readable(&bare));
    assert_eq!(bare.receive().len(), 2);
    bare.rx().disarm();
    bare.end();
}

#[test]
fn without_mbufs_packets_are_dropped_and_the_ring_stays_full() {
    let card = Card::new(1);
    let mut bare = Bare::with_pool(&card, 0, frames::pool(130, 2048));
    let kept: Vec<_> = (0..2).map(|_| bare.pool.alloc(1).unwrap()).collect();
    for _ in 0..100 {
        assert!(card.receive(0, &FRAME));
        assert_eq!(bare.receive().len(), 0);
    }
    assert_eq!(bare.rx_drops(DropReason::NoMbufs), 100);
    assert_eq!(bare.rx_counters.packets.get(), 100);
    drop(kept);
    assert!(card.receive(0, &frame::<4000>()));
    assert!(bare.receive() == [frame::<4000>()]);
    bare.end();
}

/// What a transmit ring goes through.
#[derive(Clone, Debug)]
enum Step {
    /// A burst of so many plain packets, and whether one of them is a chain of so many pieces.
    Send(usize, Option<usize>),
    Flush,
    /// The card stands, or goes on.
    Stand(bool),
    Check,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => (1..=MAX_BURST, proptest::option::of(2..6usize)).prop_map(|(n, chain)| Step::Send(n, chain)),
        2 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Stand),
        1 => Just(Step::Check),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Sends a burst; each packet's number stands in it. Returns how many were taken.
fn send_numbered(bare: &mut Bare, first: u32, n: usize, chain: Option<usize>) -> usize {
    let mut burst = Burst::new();
    for i in 0..n {
        let mut bytes = frame::<300>();
        bytes[20..24].copy_from_slice(&(first + i as u32).to_be_bytes());
        let pieces = if i == n / 2 { vec![300 / chain.unwrap_or(1); chain.unwrap_or(1)] } else { Vec::new() };
        burst.push(frames::packet(bare.pool, &bytes, &pieces)).unwrap();
    }
    let Bare { rings, tx_counters, .. } = bare;
    rings.as_mut().unwrap().tx[0].tx_burst(&mut burst, tx_counters)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Whatever comes in whatever order, what was taken goes out once, in order, and every mbuf comes back.
    #[test]
    fn all_that_was_taken_goes_out_once_and_in_order(steps in steps()) {
        let card = Card::new(1);
        let mut bare = Bare::new(&card, 0);
        let mut given = 0;
        for step in steps {
            match step {
                Step::Send(n, chain) => given += send_numbered(&mut bare, given, n, chain) as u32,
                Step::Flush => bare.tx().flush(),
                Step::Check => proptest::prop_assert_eq!(bare.tx().check(), None),
                Step::Stand(stands) => {
                    card.with(0, |vf| vf.tx_stands = stands);
                    card.ring(0);
                }
            }
        }
        card.with(0, |vf| vf.tx_stands = false);
        bare.tx().flush();
        card.ring(0);
        let numbers: Vec<u32> =
            card.sent(0).iter().map(|f| u32::from_be_bytes(f[20..24].try_into().unwrap())).collect();
        proptest::prop_assert!(numbers.iter().copied().eq(0..given));
        bare.tx().check();
        proptest::prop_assert_eq!(bare.tx().room(), bare.tx().capacity(), "all is free again");
        let owners = bare.pool.balance().out_by_owner;
        proptest::prop_assert_eq!(owners, vec![(7, 128)], "what was sent is back");
        bare.end();
    }
}
