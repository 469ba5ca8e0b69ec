//! What a test does by hand: buffers made available, frames both ways.

use mbuf::Burst;
use pmd::{RxQueue, TxQueue};

use crate::vring::two_passes::rig::{Rig, plain_frame};
use crate::vring::{GuestRx, GuestTx};
use crate::wire::ring::{AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, Desc};

impl Rig {
    /// Makes a chain available. Split: over the descriptors from `first` on.
    pub(in crate::vring) fn post(&mut self, first: u16, chain: &[Desc]) {
        let size = self.shape.size;
        for (i, desc) in (0..).zip(chain) {
            let more = u16::from(usize::from(i) + 1 < chain.len());
            let number = (first + i) % size;
            let (at, next) = if self.shape.is_packed() {
                (self.next.at, first)
            } else {
                (number, if more == 1 { (number + 1) % size } else { 0 })
            };
            let words = self.words(Desc { flags: desc.flags | more, next, ..*desc }, Some(self.next));
            self.ram.write(usize::from(at) * 16, &words);
            self.next = self.next.after(1, size);
        }
        if !self.shape.is_packed() {
            let entry = self.shape.avail() + AVAIL_RING_OFFSET + 2 * usize::from(self.avail_idx % size);
            self.ram.write(entry, &first.to_le_bytes());
            self.avail_idx = self.avail_idx.wrapping_add(1);
            self.ram.write(self.shape.avail() + AVAIL_IDX_OFFSET, &self.avail_idx.to_le_bytes());
        }
    }
}

/// Sends frames of these lengths to the guest in one burst; how many were dealt with.
pub(in crate::vring) fn send(queue: &mut GuestRx, lens: &[usize]) -> usize {
    let mut burst = Burst::new();
    for len in lens {
        assert!(burst.push(plain_frame(*len)).is_ok());
    }
    let taken = queue.tx_burst(&mut burst);
    assert_eq!(burst.len(), lens.len() - taken);
    taken
}

/// Takes one burst of what the guest sends: the frames' lengths.
pub(in crate::vring) fn receive(queue: &mut GuestTx) -> Vec<usize> {
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    let lens = burst.iter().map(|mbuf| mbuf.copy_to(0, &mut vec![0; mbuf.len()])).collect();
    drop(burst);
    queue.complete();
    lens
}
