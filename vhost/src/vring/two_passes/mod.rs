//! The two passes of a burst, with somebody who writes between them: any descriptor, header, length, flag or index.
//!
//! [`drive`] makes a play of any bytes: a ring of either format, frames both ways, and what is rewritten at each moment
//! between the passes. A shadow of the guest's RAM judges each burst:
//!
//! | | |
//! |---|---|
//! | bounds | no burst gives back more buffers, or more positions, than the ring has |
//! | once | nothing is given back that was not made available since it was given back last |
//! | writes | a byte of the guest's changed only where a writable descriptor that was read in this burst allows it |
//! | packets | each is sent, dropped for a reason or left, and each mbuf comes home |
//!
//! Unit tests drive it with random bytes; the fuzz target `two_passes` does with chosen ones.

#[cfg(test)]
mod by_hand;
mod rig;
mod script;
mod shadow;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use mbuf::Burst;
use pmd::{RxQueue, TxQueue};

use crate::vring::hook;
use script::Script;
use shadow::Shadow;

#[cfg(test)]
pub(in crate::vring) use by_hand::{receive, send};
pub(in crate::vring) use rig::Rig;
#[cfg(test)]
pub(in crate::vring) use rig::{GPA, Shape};

/// Bursts of a play.
const BURSTS: usize = 6;

/// Plays what `input` says. Panics if a burst did what no burst may do.
pub fn drive(input: &[u8]) {
    let mut script = Script::new(input);
    let shape = script.shape();
    let receives = script.byte() & 1 == 0;
    let mut rig = Rig::new(shape);
    rig.start();
    let (mut rx, mut tx) = (rig.receiver(), rig.sender());
    let play = Rc::new(RefCell::new((script, Shadow::new(&rig, receives))));
    play.borrow_mut().0.set_the_ring(&mut rig, receives);
    for _ in 0..BURSTS {
        if rig.fault().is_some() {
            rig.start();
        }
        begin(&play, &mut rig, receives);
        if receives {
            give(&mut rx, &play, &rig);
        } else {
            take(&mut tx);
        }
        hook::set_between(None);
        play.borrow().1.judge(&rig, &hook::take());
    }
}

type Play = Rc<RefCell<(Script, Shadow)>>;

/// The guest makes buffers available, the shadow takes its picture, and the script goes on between the passes.
fn begin(play: &Play, rig: &mut Rig, receives: bool) {
    let (script, shadow) = &mut *play.borrow_mut();
    script.make_available(rig, receives);
    shadow.begin(rig);
    let (shape, ram, play) = (rig.shape, rig.ram.clone(), Rc::downgrade(play));
    hook::take();
    hook::set_between(Some(Box::new(move || {
        let Some(play) = play.upgrade() else { return };
        let (script, shadow) = &mut *play.borrow_mut();
        for (at, bytes) in script.rewrites(shape, receives) {
            shadow.rewrite(&ram, at, &bytes);
        }
    })));
}

/// A burst to the guest: all packets are accounted for.
fn give(queue: &mut impl TxQueue, play: &Play, rig: &Rig) {
    let mut burst = Burst::new();
    let frames = play.borrow_mut().0.frames(rig);
    for frame in frames {
        assert!(burst.push(frame).is_ok());
    }
    let (offered, before) = (burst.len(), accounted(rig));
    let taken = queue.tx_burst(&mut burst);
    assert_eq!(burst.len(), offered - taken, "what is not taken stays");
    if rig.fault().is_none() {
        assert_eq!(accounted(rig) - before, taken as u64, "sent or dropped");
    }
    burst.clear();
    queue.flush();
}

fn accounted(rig: &Rig) -> u64 {
    rig.counters.packets.get() + rig.counters.drops.iter().map(pmd::Counter::get).sum::<u64>()
}

/// A burst from the guest, read whole, as a receiver would.
fn take(queue: &mut impl RxQueue) {
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    for mbuf in burst.iter() {
        assert_eq!(mbuf.copy_to(0, &mut vec![0; mbuf.len()]), mbuf.len());
    }
    drop(burst);
    queue.complete();
}
