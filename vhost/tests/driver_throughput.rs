//! What the driver itself can do, before any device is the limit. Asked for with
//! `cargo test --release -p polder-vhost --test driver_throughput -- --ignored --nocapture --test-threads=1`.

mod driver_device;

use std::hint::black_box;
use std::time::{Duration, Instant};

use driver_device::Device;
use driver_device::split::SplitDevice;
use vhost::driver::{GuestRam, Kicks, RamConfig, RingConfig, RxRing, TxRing};
use vhost::wire::net::{F_MRG_RXBUF, F_VERSION_1};

const BURST: usize = 64;
const SIZE: u16 = 1024;

struct Rig {
    tx: TxRing,
    rx: RxRing,
    tx_device: SplitDevice,
    rx_device: SplitDevice,
}

fn rig(kicks: Kicks) -> Rig {
    let ram = GuestRam::new(RamConfig { bytes: 16 << 20, ..RamConfig::default() }).unwrap();
    let features = F_VERSION_1 | F_MRG_RXBUF;
    let config = RingConfig { size: SIZE, kicks, features, ..RingConfig::default() };
    let (mut tx, mut rx) = (TxRing::new(&ram, config).unwrap(), RxRing::new(&ram, config).unwrap());
    tx.prepare(|_, _| 64);
    rx.refill();
    let tx_device = SplitDevice::of(tx.queue(), &ram);
    let mut rx_device = SplitDevice::of(rx.queue(), &ram);
    // All receive buffers carry a good header from the start; the device need only return them.
    for _ in 0..SIZE {
        let chain = rx_device.take().unwrap();
        rx_device.write(&chain, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
    rx_device.next_avail = 0;
    Rig { tx, rx, tx_device, rx_device }
}

/// What a device has to do at the least: look at the index, return everything in order.
fn return_all(device: &mut SplitDevice, len: u32, most: usize) {
    for _ in 0..most {
        let Some(head) = device.take_head() else { break };
        device.give_entry(head.into(), len);
    }
    device.publish();
}

/// One turn of the driver, both ways. Returns frames received.
fn turn(rig: &mut Rig, number: &mut u64, sum: &mut u64) -> usize {
    rig.tx.reclaim().unwrap();
    rig.tx.post_prepared(BURST, |slot| {
        slot.set_word(16, *number);
        *number += 1;
    });
    let got = rig.rx.poll(BURST, |frame| *sum = sum.wrapping_add(frame.word(16))).unwrap();
    rig.rx.refill();
    got
}

#[test]
#[ignore = "a measurement; asked for with --ignored"]
fn driver_alone_on_one_core() {
    for kicks in [Kicks::AsAsked, Kicks::Never] {
        let mut rig = rig(kicks);
        rig.tx_device.set_flags(1);
        rig.rx_device.set_flags(1);
        let (mut number, mut sum) = (0, 0);
        // The median turn: those in which another process had the core don't count.
        let mut turns = Vec::new();
        for _ in 0..200_000 {
            let start = Instant::now();
            if turn(&mut rig, &mut number, &mut sum) == BURST {
                turns.push(start.elapsed());
            }
            return_all(&mut rig.tx_device, 0, BURST);
            return_all(&mut rig.rx_device, 76, BURST);
        }
        black_box(sum);
        turns.sort_unstable();
        let median = turns[turns.len() / 2];
        let ns = median.as_nanos() as f64 / BURST as f64;
        println!("{kicks:?}: {ns:.2} ns for one frame out and one in: {:.1} Mpps each way", 1e3 / ns);
    }
}

#[test]
#[ignore = "a measurement; asked for with --ignored"]
fn cycling_with_a_device_on_another_core() {
    for kicks in [Kicks::AsAsked, Kicks::Never] {
        let Rig { mut tx, mut rx, mut tx_device, mut rx_device } = rig(kicks);
        tx_device.set_flags(1);
        rx_device.set_flags(1);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return_all(&mut tx_device, 0, BURST);
                    return_all(&mut rx_device, 76, BURST);
                }
            });
            let (mut sent, mut got, mut sum) = (0u64, 0, 0u64);
            let (start, mut best) = (Instant::now(), (0.0, 0.0));
            while start.elapsed() < Duration::from_secs(3) {
                let (now, sent_before, got_before) = (Instant::now(), sent, got);
                while now.elapsed() < Duration::from_millis(1) {
                    tx.reclaim().unwrap();
                    tx.post_prepared(BURST, |slot| {
                        slot.set_word(16, sent);
                        sent += 1;
                    });
                    got += rx.poll(BURST, |frame| sum = sum.wrapping_add(frame.word(16))).unwrap();
                    rx.refill();
                }
                // The best window: the machine may have other things to do. A ring's backlog can add its 1,024
                // frames to a millisecond: 1 Mpps too much at the most.
                let us = now.elapsed().as_secs_f64() * 1e6;
                let rates = ((sent - sent_before) as f64 / us, (got - got_before) as f64 / us);
                best = if rates.0 + rates.1 > best.0 + best.1 { rates } else { best };
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            black_box(sum);
            println!("{kicks:?}: {:.1} Mpps out, {:.1} Mpps in", best.0, best.1);
        });
    }
}
