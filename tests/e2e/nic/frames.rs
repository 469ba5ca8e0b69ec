//! A load of numbered frames, each known to the last byte, over a device under test and back.

use std::time::{Duration, Instant};

use super::wire::Wire;

pub(crate) type Mac = [u8; 6];

/// IEEE 802's local experimental ethertype: frames that nobody else sends.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const HEADER: usize = 14;
const SENDER: Mac = [2, 0, 0, 0xee, 0, 1];
/// Sizes without FCS, by turns.
const SIZES: [usize; 4] = [60, 64, 594, 1514];

/// What is sent to one card and must come out of another.
pub(crate) struct Load {
    pub(crate) to: Mac,
    pub(crate) frames: u64,
    /// Most frames under way at a time: below the depth of a ring nothing may be lost.
    pub(crate) window: u64,
}

/// What came of a [`Load`].
#[derive(Debug, PartialEq, Eq, Default, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Frames that came whole and in their order.
    pub(crate) whole: u64,
    /// Frames that were missing when a later one came.
    pub(crate) lost: u64,
    /// Frames of the load that came changed, twice, or out of order.
    pub(crate) wrong: u64,
}

fn frame(to: Mac, number: u64) -> Vec<u8> {
    frame_of(to, number, SIZES[(number % 4) as usize])
}

/// A frame of `size` pseudo-random bytes that follow from its number alone; the number comes first.
pub(crate) fn frame_of(to: Mac, number: u64, size: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(size + 8);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&SENDER);
    frame.extend_from_slice(&ETHERTYPE);
    frame.extend_from_slice(&number.to_be_bytes());
    let mut state = number;
    while frame.len() < size {
        // Knuth's multiplier; the high bytes of the state are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        frame.extend_from_slice(&state.to_be_bytes());
    }
    frame.truncate(size);
    frame
}

/// Sends a load into `from` and checks what comes out of `out`, until everything came or nothing came for `patience`.
pub(crate) fn run(load: &Load, from: &mut Wire, out: &mut Wire, patience: Duration) -> Outcome {
    let mut outcome = Outcome::default();
    let mut last_came = Instant::now();
    while outcome.whole + outcome.lost < load.frames && last_came.elapsed() < patience {
        let came = outcome.whole + outcome.lost;
        send_some(load, from, came, &mut outcome);
        let next = outcome.whole;
        out.receive(Duration::from_millis(100), |f| check(load.to, f, &mut outcome));
        if outcome.whole > next {
            last_came = Instant::now();
        }
    }
    outcome
}

/// Fills the window, but in bursts: a frame at a time would cost a system call each.
fn send_some(load: &Load, from: &mut Wire, came: u64, outcome: &mut Outcome) {
    let room = load.window.saturating_sub(outcome.sent - came).min(load.frames - outcome.sent);
    if room < load.window.min(load.frames - outcome.sent) / 2 {
        return;
    }
    let burst: Vec<_> = (outcome.sent..outcome.sent + room).map(|n| frame(load.to, n)).collect();
    from.send(burst.iter().map(Vec::as_slice));
    outcome.sent += room;
}

fn check(to: Mac, came: &[u8], outcome: &mut Outcome) {
    if came.get(12..HEADER) != Some(&ETHERTYPE) {
        return; // Someone else's.
    }
    let number = came[HEADER..].first_chunk().map_or(0, |n| u64::from_be_bytes(*n));
    let next = outcome.whole + outcome.lost;
    if number < next || came != frame(to, number) {
        outcome.wrong += 1;
        return;
    }
    outcome.lost += number - next;
    outcome.whole += 1;
}

#[test]
fn a_changed_byte_is_seen() {
    let to = [2, 0, 0, 0, 0, 0];
    for number in 0..4 {
        let mut outcome = Outcome { whole: number, ..Outcome::default() };
        let mut bytes = frame(to, number);
        check(to, &bytes, &mut outcome);
        assert_eq!(outcome, Outcome { whole: number + 1, ..Outcome::default() });
        *bytes.last_mut().unwrap() ^= 1;
        outcome.whole = number;
        check(to, &bytes, &mut outcome);
        assert_eq!(outcome, Outcome { whole: number, wrong: 1, ..Outcome::default() });
    }
}

#[test]
fn a_missing_frame_is_seen() {
    let to = [2, 0, 0, 0, 0, 0];
    let mut outcome = Outcome::default();
    for number in [0, 3, 2] {
        check(to, &frame(to, number), &mut outcome);
    }
    assert_eq!(outcome, Outcome { whole: 2, lost: 2, wrong: 1, sent: 0 });
}
