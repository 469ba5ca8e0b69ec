//! The available ring lies: V1, V3 to V5, V7, V14, V35, V46.

use std::sync::atomic::Ordering;
use std::time::Instant;

use vhost::driver::{BufferConfig, NetHdr, VirtioNet, VirtioNetConfig};
use vhost::wire::net::F_RING_PACKED;
use vhost::wire::ring::{AVAIL_IDX_OFFSET, Desc};

use crate::attacker::{Attacker, Plan, Side, cut, part};
use crate::frames;
use crate::numbers::Numbers;
use crate::races::racing;
use crate::scene::{PATIENCE, Scene, X, case, race_time};

/// Offers `lie` as a head on each ring; the fault stops the ring before any descriptor is read.
fn bad_head(lie: u16) {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        attacker.picture();
        attacker.tx.offer(lie);
        scene.expect_ring("tx0", "descriptor_index_out_of_range");
        attacker.rx.offer(lie);
        scene.y_sends_plain(1, 60);
        scene.expect_ring("rx0", "descriptor_index_out_of_range");
        attacker.tx.expect_used(0);
        attacker.rx.expect_used(0);
        attacker.judge();
        scene.expect_nothing_at_y();
    });
}

#[test]
fn v01_head_is_the_queue_size() {
    bad_head(256);
}

#[test]
fn v01_head_is_ffff() {
    bad_head(0xffff);
}

/// Moves avail.idx by `jump` from somewhere on; I4: never "n mod 65536 packets".
fn index_jump(side: Side, jump: u16) {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { base: 1000, ..Plan::default() });
        let good = attacker.frame(&frames::plain(60, 0));
        if side == Side::Tx {
            attacker.tx.post(&[good]);
            attacker.tx.expect_used(1);
            scene.frames_at_y(1);
        }
        let used = attacker.side(side).used();
        attacker.picture();
        let raw = attacker.side(side);
        raw.ring().set_avail_idx(raw.next.wrapping_add(jump));
        scene.y_sends_plain(1, 60);
        scene.expect_ring(side.name(), "avail_index_jump");
        attacker.side(side).expect_used(used);
        attacker.judge();
        scene.expect_nothing_at_y();
    });
}

#[test]
fn v03_index_jumps_by_size_and_one() {
    index_jump(Side::Tx, 257);
    index_jump(Side::Rx, 257);
}

#[test]
fn v03_index_jumps_by_half_of_all() {
    index_jump(Side::Tx, 0x8000);
    index_jump(Side::Rx, 0x8000);
}

#[test]
fn v03_index_jumps_back_by_one() {
    index_jump(Side::Tx, 0xffff);
    index_jump(Side::Rx, 0xffff);
}

/// 256 times the same head in one step: it comes back 256 times, not once more.
#[test]
fn v04_all_heads_equal() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let frame = frames::plain(100, 4);
        let buffer = attacker.frame(&frame);
        let head = attacker.tx.lay(&[buffer]);
        attacker.picture();
        (0..256).for_each(|_| attacker.tx.stage(head));
        attacker.tx.publish();
        scene.expect_at_y(&vec![frame; 256]);
        assert!(attacker.tx.expect_used(256).iter().all(|&used| used == (u32::from(head), 0)));
        attacker.judge();
        scene.expect_nothing_at_y();
    });
}

/// What stands before the bad head is delivered and returned, what stands behind it is not looked at; the pair's other
/// ring goes on; nobody tries again (decision 0005).
#[test]
fn v05_one_bad_head_among_good_ones() {
    case(|scene| {
        let before = scene.x_count("descriptor_index_out_of_range");
        let mut attacker = Attacker::usual(scene);
        let good: Vec<_> = (0..6).map(|tag| frames::plain(80, tag)).collect();
        for (i, frame) in good.iter().enumerate() {
            let buffer = attacker.frame(frame);
            let head = attacker.tx.lay(&[buffer]);
            attacker.tx.stage(if i == 3 { 999 } else { head });
        }
        attacker.tx.publish();
        scene.expect_at_y(&good[..3]);
        scene.expect_ring("tx0", "descriptor_index_out_of_range");
        attacker.tx.expect_used(3);
        attacker.post_buffers(4, 256);
        attacker.picture();
        scene.y_sends_plain(4, 60);
        assert_eq!(attacker.rx.expect_used(4).len(), 4);
        attacker.judge();
        scene.expect_nothing_at_y();
        assert_eq!(scene.x_count("descriptor_index_out_of_range"), before + 1, "told once");
    });
}

/// The same when the frames before the bad head do not fit into one turn: each takes most of a turn's pieces.
#[test]
fn v05_a_bad_head_behind_more_than_a_turn() {
    case(|scene| {
        let plan = Plan { size: 4096, ram_bytes: 2 << 20, ..Plan::default() };
        let mut attacker = Attacker::start(scene, plan);
        let good: Vec<_> = (0..3).map(|tag| frames::plain(712 - 12, tag)).collect();
        for frame in &good {
            let buffer = attacker.frame(frame);
            let head = attacker.tx.lay(&cut(buffer, 1));
            attacker.tx.stage(head);
        }
        attacker.tx.stage(0xfff0);
        attacker.tx.publish();
        scene.expect_at_y(&good);
        scene.expect_ring("tx0", "descriptor_index_out_of_range");
        attacker.tx.expect_used(3);
    });
}

#[test]
fn v07_a_bad_head_made_good_later() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let frame = frames::plain(90, 7);
        let buffer = attacker.frame(&frame);
        let head = attacker.tx.lay(&[Desc { flags: 1, next: 300, ..buffer }]);
        attacker.tx.ring().set_desc(head, Desc { flags: 1, next: 300, ..buffer });
        attacker.tx.offer(head);
        scene.expect_ring("tx0", "descriptor_index_out_of_range");
        // Mending the table alone does not start the ring again; setting it up anew does, with nothing remembered.
        attacker.tx.ring().set_desc(head, buffer);
        scene.expect_nothing_at_y();
        attacker.revive(Side::Tx, 0);
        scene.expect_ring("tx0", "running");
        attacker.tx.offer(head);
        scene.expect_at_y(&[frame]);
        attacker.tx.expect_used(1);
    });
}

/// A head that is offered again before it came back: tolerated, it is the guest's own packet twice.
#[test]
fn v14_a_head_offered_again_too_soon() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let frame = frames::plain(1400, 14);
        let buffer = attacker.frame(&frame);
        let head = attacker.tx.lay(&cut(buffer, 500));
        attacker.picture();
        for _ in 0..50 {
            attacker.tx.stage(head);
            attacker.tx.stage(head);
            attacker.tx.publish();
        }
        scene.expect_at_y(&vec![frame; 100]);
        attacker.tx.expect_used(100);
        // The same on the receiving side: both frames land in the one buffer.
        let spans = attacker.post_buffers(1, 256);
        attacker.rx.offer(0);
        attacker.picture();
        scene.y_sends_plain(2, 60);
        assert_eq!(attacker.rx.expect_used(2), [(0, 72); 2]);
        attacker.judge();
        assert_eq!(spans.len(), 1);
    });
}

/// avail.idx alternates between 0x01ff and 0x0200: the device sees one or the other, never 0x02ff. Behind 0x0200 there are
/// bad heads that a mixed value would lead to.
#[test]
fn v35_torn_index() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { size: 1024, base: 0x0100, ..Plan::default() });
        let buffer = attacker.frame(&frames::plain(60, 35));
        let head = attacker.tx.lay(&[buffer]);
        (0..0x100).for_each(|_| attacker.tx.stage(head));
        (0..0x100).for_each(|_| attacker.tx.stage(0xffff));
        let avail = attacker.tx.ring().avail.clone();
        let flip = |_: &mut Numbers| {
            avail.store_u16(AVAIL_IDX_OFFSET, 0x01ff, Ordering::Release);
            avail.store_u16(AVAIL_IDX_OFFSET, 0x0200, Ordering::Release);
        };
        let end = Instant::now() + race_time() / 2;
        racing(flip, || {
            while Instant::now() < end {
                // Having seen 0x0200, the device finds 0x01ff: back by one.
                scene.expect_ring("tx0", "avail_index_jump");
                let used = attacker.tx.ring().used_idx();
                assert!((0x0100..=0x0200).contains(&used), "used.idx {used:#x}");
                attacker.tx.ring().set_used_idx(0x0100);
                attacker.front.set_vring_base(1, 0x0100).expect("BASE");
                scene.discard_at_y();
            }
        });
    });
}

/// Frames both ways over the end of the positions, one by one and in bursts.
fn exchange(scene: &mut Scene, x: &mut VirtioNet, size: u16, frames: u32) {
    for tag in 0..frames {
        let len = 60 + tag as usize % 700;
        let out = frames::plain(len, tag);
        crate::scene::eventually("room to send", || x.send(&out, NetHdr::default()).is_ok());
        scene.expect_at_y(&[out]);
        if tag % 4 == 0 {
            let sent = scene.y_sends_plain(u32::from(size.min(3)), len);
            let mut got = Vec::new();
            for want in sent {
                let header = x.recv_within(&mut got, PATIENCE).expect("a sound ring");
                assert!(header.is_some() && got == want, "frame {tag}, ring of {size}");
            }
        }
    }
}

/// The index wraps in rings of all kinds of sizes, from positions before the end.
#[test]
fn v46_index_wrap() {
    case(|scene| {
        for size in [1u16, 2, 4, 256, 1024] {
            let mut x = VirtioNet::connect(scene.socket(X), wrapping(size, 0)).expect("connects");
            exchange(scene, &mut x, size, 48);
            let bases = x.disconnect().expect("in order");
            assert_eq!(bases[1], 0xfff0 + 48 - 0x1_0000, "ring of {size}");
        }
    });
}

/// The same in packed rings, of sizes that no split ring has, too.
#[test]
fn v46_packed_wrap() {
    case(|scene| {
        for size in [1u16, 2, 3, 5, 16, 31, 33, 48, 255, 256, 257, 32_768] {
            let mut x = VirtioNet::connect(scene.socket(X), wrapping(size, F_RING_PACKED)).expect("connects");
            exchange(scene, &mut x, size, 48);
            let bases = x.disconnect().expect("in order");
            let behind = (0xfff0 + 48) % (2 * u32::from(size));
            let (at, wrap) = (behind % u32::from(size), u32::from(behind < u32::from(size)));
            assert_eq!(bases[1], (at | wrap << 15) * 0x1_0001, "ring of {size}");
        }
    });
}

fn wrapping(queue_size: u16, features: u64) -> VirtioNetConfig {
    let buffers = BufferConfig { bytes: 1024, ..BufferConfig::default() };
    let defaults = VirtioNetConfig::default();
    let features = defaults.features | features;
    let (tx, rx, timeout) = (buffers, buffers, PATIENCE);
    VirtioNetConfig { queue_size, base: 0xfff0, features, tx, rx, timeout, ..defaults }
}

/// K7: the ring starts where a front end says after a crash: at used.idx (QEMU) or at the available index (Cloud
/// Hypervisor). The first sends again what was on its way, the second does not.
#[test]
fn k07_base_from_used_or_from_avail() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let frame = frames::plain(60, 7);
        let buffer = attacker.frame(&frame);
        (0..10).for_each(|_| _ = attacker.tx.post(&[part(buffer, 0, buffer.len)]));
        attacker.tx.expect_used(10);
        scene.frames_at_y(10);
        attacker.front.set_vring_base(1, 8).expect("BASE");
        scene.frames_at_y(2);
        attacker.front.set_vring_base(1, 10).expect("BASE");
        scene.expect_nothing_at_y();
        assert_eq!(attacker.front.vring_base(1).expect("BASE"), 10);
    });
}
