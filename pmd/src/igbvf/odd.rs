//! Received frames that are not one sound buffer each: jumbo frames in a chain of buffers, broken ones, ones whose VLAN tag
//! the PF has had taken out.

use mbuf::{Burst, Mbuf};

use super::desc::rx::{BROKEN, EOP, LB, TAG_SHIFT, VP, length};
use super::rx::{IgbvfRx, MIN_FRAME, Taken, checksum};
use crate::DropReason;
use crate::bus::Registers;

/// IEEE 802.1Q: the tag's EtherType, and the VLAN in its other half.
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const VLAN_MASK: u16 = 0x0fff;
/// The two MAC addresses, which a tag stands behind.
const ADDRESSES: usize = 12;

/// A frame of which some buffers have come.
#[derive(Debug)]
pub(super) struct Frame {
    head: Option<Mbuf<'static>>,
    buffers: usize,
    /// Why it is to be dropped at its end.
    lost: Option<DropReason>,
    /// Most buffers that a frame can have.
    most: usize,
}

impl Frame {
    /// None yet.
    pub(super) fn new(max_frame: usize, buffer: usize) -> Self {
        // Two VLAN tags are no part of a frame's length here.
        Self { head: None, buffers: 0, lost: None, most: (max_frame + 8).div_ceil(buffer) }
    }

    /// Whether the next buffer is the first of a frame.
    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        self.buffers == 0
    }

    /// Notes that a buffer of the frame is lost, and so the frame is.
    pub(super) fn lose(&mut self, word: u64, reason: DropReason, taken: &mut Taken) {
        self.buffers += 1;
        self.spoil(reason);
        if word & EOP != 0 {
            self.end(taken);
        }
    }

    fn spoil(&mut self, reason: DropReason) {
        self.head = None;
        self.lost.get_or_insert(reason);
    }

    /// Ends a frame: it counts, and if it was lost, as dropped. Gives it out if not.
    fn end(&mut self, taken: &mut Taken) -> Option<Mbuf<'static>> {
        self.buffers = 0;
        taken.packets += 1;
        if let Some(reason) = self.lost.take() {
            taken.drop_one(reason);
        }
        self.head.take()
    }

    /// Adds a buffer with `len` bytes.
    fn add(&mut self, mut mbuf: Mbuf<'static>, len: usize) {
        self.buffers += 1;
        if self.lost.is_some() {
            return;
        }
        if self.buffers > self.most {
            return self.spoil(DropReason::RxTooLong);
        }
        mbuf.set_filled(0, len);
        match &mut self.head {
            None => self.head = Some(mbuf),
            Some(head) => {
                if head.chain(mbuf).is_err() {
                    self.spoil(DropReason::RxError);
                }
            }
        }
    }
}

/// Buffers of one frame after which the device is taken not to know what an end is.
const ENDLESS: usize = 4096;

impl<B: Registers + 'static> IgbvfRx<B> {
    /// Takes one written-back buffer, whatever its word says.
    pub(super) fn add_odd(
        &mut self,
        word: u64,
        mbuf: Mbuf<'static>,
        burst: &mut Burst<'_>,
        taken: &mut Taken,
    ) {
        let len = length(word);
        let is_end = word & EOP != 0;
        if len > self.parts().buffer {
            return self.lose_odd(word, DropReason::RxTooLong, taken);
        }
        if len == 0 {
            return self.lose_odd(word, DropReason::RxTooShort, taken);
        }
        // A buffer that is not the last is full; but if it were not, the frame is still what it holds.
        self.frame.add(mbuf, len);
        if is_end && word & BROKEN != 0 {
            self.frame.spoil(DropReason::RxError);
        }
        self.look_at_end(word, burst, taken);
    }

    fn lose_odd(&mut self, word: u64, reason: DropReason, taken: &mut Taken) {
        self.frame.lose(word, reason, taken);
        self.look_for_no_end();
    }

    fn look_for_no_end(&mut self) {
        if self.frame.buffers > ENDLESS {
            self.broken = Some("a received frame does not end");
        }
    }

    fn look_at_end(&mut self, word: u64, burst: &mut Burst<'_>, taken: &mut Taken) {
        if word & EOP == 0 {
            return self.look_for_no_end();
        }
        let Some(mut frame) = self.frame.end(taken) else { return };
        if frame.len() < MIN_FRAME || frame.data().len() < MIN_FRAME {
            return taken.drop_one(DropReason::RxTooShort);
        }
        if word & VP != 0 && !self.put_back_tag(word, &mut frame) {
            return taken.drop_one(DropReason::RxError);
        }
        frame.set_port(self.parts().port);
        frame.set_offload(checksum(word));
        taken.bytes += frame.len() as u64;
        let pushed = burst.push(frame);
        debug_assert!(pushed.is_ok(), "not more frames than buffers");
    }

    /// Puts the VLAN tag back that was taken out, if it is one that we asked for; that of a port VLAN is the PF's.
    fn put_back_tag(&self, word: u64, frame: &mut Mbuf<'static>) -> bool {
        let tag = (word >> TAG_SHIFT) as u16;
        let swapped = self.parts().swapped_loopback_tags && word & LB != 0;
        let tag = if swapped { tag.swap_bytes() } else { tag };
        if !self.parts().vlans.contains(&(tag & VLAN_MASK)) {
            return true;
        }
        if frame.prepend(4).is_none() {
            return false;
        }
        let Some(data) = frame.data_mut() else { return false };
        data.copy_within(4..4 + ADDRESSES, 0);
        data[ADDRESSES..ADDRESSES + 2].copy_from_slice(&ETHERTYPE_VLAN);
        data[ADDRESSES + 2..ADDRESSES + 4].copy_from_slice(&tag.to_be_bytes());
        true
    }
}
