//! A forwarder between two cards: what goes into one wire must come out of the other.

use super::forwarder::{Counts, Forwarder};
use super::frames::{self, Load, Mac, Outcome};
use super::lab::{Lab, Setup};
use super::mishap;
use crate::deadline::secs;
use crate::process::timed;

/// In each direction.
const FRAMES: u64 = 500_000;
/// Fewer than the shortest ring between the wires holds.
const WINDOW: u64 = 128;

/// Two cards' functions for the forwarder, and the MACs that lead to them.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) devices: [String; 2],
    pub(crate) macs: [Mac; 2],
}

/// A million frames, half of them in each direction: all arrive whole and in order, and the forwarder's counts say so.
pub(crate) fn a_million_frames_arrive_whole(forwarder: Forwarder, setup: &Setup, pair: &Pair) {
    mishap::play(|| a_million_frames(forwarder, setup, pair));
}

fn a_million_frames(forwarder: Forwarder, setup: &Setup, pair: &Pair) {
    let (mut lab, took) = timed(|| Lab::boot(setup));
    eprintln!("the lab booted in {:.1} s", took.as_secs_f64());
    forwarder.start(&mut lab, &pair.devices);
    let outcomes = [0, 1].map(|card| {
        let load = Load { to: pair.macs[card], frames: FRAMES, window: WINDOW };
        let (outcome, took) = timed(|| through(&mut lab, card, &load));
        eprintln!("into card {card}: {outcome:?} in {:.1} s", took.as_secs_f64());
        outcome
    });
    let counts = forwarder.stop(&mut lab);
    eprintln!("{forwarder:?}: {counts:?}");
    assert_eq!(outcomes, [Outcome { sent: FRAMES, whole: FRAMES, ..Outcome::default() }; 2]);
    assert_every_frame_counted(&counts, [FRAMES; 2]);
}

/// Sends a load into `card`'s wire and checks what comes out of the other.
pub(crate) fn through(lab: &mut Lab, card: usize, load: &Load) -> Outcome {
    let [w0, w1] = &mut lab.wires[..] else { panic!("two cards, two wires") };
    let (from, out) = if card == 0 { (w0, w1) } else { (w1, w0) };
    frames::run(load, from, out, secs(5))
}

fn assert_every_frame_counted(counts: &Counts, sent: [u64; 2]) {
    let [into_0, into_1] = sent;
    assert_eq!((counts.rx, counts.tx), ([into_0, into_1], [into_1, into_0]), "{counts:?}");
    assert_eq!(counts.dropped, 0);
    if let Some(out) = counts.mbufs_out {
        assert_eq!(out, 0, "packet buffers that did not come back");
    }
}
