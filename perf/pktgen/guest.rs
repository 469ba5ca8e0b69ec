//! One guest: a virtio-net driver whose rings are kept full.

use std::path::Path;

use vhost::driver::{BufferConfig, Kicks, QueuePair, RamPages, RingError, VirtioNet, VirtioNetConfig};
use vhost::wire::net;

/// Where the word stands that is written before a frame is sent and read when it arrived.
const WORD_AT: usize = 16;
/// EtherType of the frames: local experiments.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// What both guests send.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) size: usize,
    pub(crate) macs: u16,
    pub(crate) queue_size: u16,
    pub(crate) mergeable: bool,
    pub(crate) in_order: bool,
}

pub(crate) struct Guest {
    pair: QueuePair,
    sent: u64,
    received: u64,
    /// What was read of the frames, so that reading them is not for nothing.
    seen: u64,
    _device: VirtioNet,
}

/// Station `i` of side `side`.
fn mac(side: u8, i: u16) -> [u8; 6] {
    let [high, low] = i.to_be_bytes();
    [2, 0, 0, side, high, low]
}

impl Guest {
    pub(crate) fn connect(path: &Path, side: u8, load: Load) -> Result<Self, String> {
        let mut features = VirtioNetConfig::default().features;
        for (feature, wanted) in [(net::F_MRG_RXBUF, load.mergeable), (net::F_IN_ORDER, load.in_order)] {
            features = if wanted { features | feature } else { features & !feature };
        }
        let bytes = (net::HDR_LEN + load.size).next_multiple_of(64).max(2048) as u32;
        let buffers = BufferConfig { bytes, ..BufferConfig::default() };
        let config = VirtioNetConfig {
            queue_size: load.queue_size,
            features,
            tx: buffers,
            rx: buffers,
            pages: RamPages::HugeIfAvailable,
            kicks: Kicks::AsAsked,
            ..VirtioNetConfig::default()
        };
        let mut device = VirtioNet::connect(path, config).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut pair = device.take_pairs().pop().ok_or("the device has no queues")?;
        pair.tx.prepare(|i, slot| {
            let station = i as u16 % load.macs;
            let mut frame = vec![0u8; load.size];
            frame[..6].copy_from_slice(&mac(side ^ 1, station));
            frame[6..12].copy_from_slice(&mac(side, station));
            frame[12..14].copy_from_slice(&ETHERTYPE);
            slot.write(0, &frame);
            load.size
        });
        pair.rx.refill();
        Ok(Self { pair, sent: 0, received: 0, seen: 0, _device: device })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Sends up to `burst` frames, takes up to `burst`.
    #[inline]
    pub(crate) fn turn(&mut self, burst: usize) -> Result<(), RingError> {
        let Self { pair, sent, received, seen, .. } = self;
        pair.tx.reclaim()?;
        pair.tx.post_prepared(burst, |frame| {
            *sent += 1;
            frame.set_word(WORD_AT, *sent);
        });
        let n = pair.rx.poll(burst, |frame| *seen ^= frame.word(WORD_AT))?;
        *received += n as u64;
        pair.rx.refill();
        Ok(())
    }
}
