//! What makes the card a network card: packets in, packets out, commands (virtio 1.3 §5.1.6).

use super::card::State;
use super::feature;
use super::queue::{Chain, Lie};

/// A frame with the first ten bytes of its virtio-net header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) hdr: [u8; 10],
    pub(crate) frame: Vec<u8>,
}

impl From<Vec<u8>> for Packet {
    fn from(frame: Vec<u8>) -> Self {
        Self { hdr: [0; 10], frame }
    }
}

impl State {
    /// Puts a packet into the receive queue's buffers, and signals if the driver wants that. False if it does not fit into
    /// the buffers that there are: they are kept for the next one, as QEMU does.
    pub(crate) fn receive(&mut self, pair: usize, packet: &Packet) -> bool {
        if !self.is_live() {
            return false;
        }
        let mergeable = self.accepted & feature::MRG_RXBUF != 0;
        let memory = self.memory.clone();
        let queue = &mut self.queues[2 * pair];
        let mark = queue.clone();
        let (mut chains, mut room) = (Vec::new(), 0);
        while room < 12 + packet.frame.len() {
            match queue.take(&memory) {
                Some(chain) if mergeable || chains.is_empty() => {
                    room += chain.writable();
                    chains.push(chain);
                }
                _ => {
                    let (kicks, kicked) = (queue.kicks, queue.kicked);
                    *queue = mark;
                    (queue.kicks, queue.kicked) = (kicks, kicked);
                    return false;
                }
            }
        }
        let num_buffers = match queue.lie {
            Some(Lie::NumBuffers(n)) => n,
            _ => chains.len() as u16,
        };
        let bytes = [&packet.hdr[..], &num_buffers.to_le_bytes(), &packet.frame].concat();
        let (old, mut rest) = (queue.used_index(), &bytes[..]);
        for chain in &chains {
            let (now, later) = rest.split_at(rest.len().min(chain.writable()));
            scatter(&memory, chain, now);
            queue.give(&memory, chain, now.len() as u32);
            rest = later;
        }
        if queue.wants_interrupt(&memory, old) {
            let vector = queue.vector;
            self.signal(vector);
        }
        true
    }

    /// Takes all packets from a transmit queue.
    pub(crate) fn transmit(&mut self, pair: usize) -> Vec<Packet> {
        let (memory, live) = (self.memory.clone(), self.is_live());
        let in_order = self.accepted & feature::IN_ORDER != 0;
        let queue = &mut self.queues[2 * pair + 1];
        let (mut sent, mut chains) = (Vec::new(), Vec::new());
        while live && let Some(chain) = queue.take(&memory) {
            assert!(chain.write.is_empty(), "a packet to send has nothing to write to");
            let parts: Option<Vec<_>> =
                chain.read.iter().map(|&(addr, len)| memory.read(addr, len as usize)).collect();
            let Some(bytes) = parts.map(|parts| parts.concat()) else { continue };
            assert!(chain.read.iter().all(|&(_, len)| len > 0) && bytes.len() >= 12, "{chain:?}");
            assert_eq!(bytes[10..12], [0, 0], "num_buffers is 0 (§5.1.6.2.1)");
            let hdr = *bytes.first_chunk().expect("12 bytes and more");
            sent.push(Packet { hdr, frame: bytes[12..].to_vec() });
            if in_order {
                chains.push(chain);
            } else {
                queue.give(&memory, &chain, 0);
            }
        }
        queue.give_batch(&memory, &chains, 0);
        queue.kicked = false;
        sent
    }

    /// Takes buffers from a transmit queue and returns them in an order of the test's.
    pub(crate) fn transmit_shuffled(&mut self, pair: usize, order: impl FnOnce(&mut Vec<Chain>)) -> usize {
        let memory = self.memory.clone();
        let queue = &mut self.queues[2 * pair + 1];
        let mut chains: Vec<_> = std::iter::from_fn(|| queue.take(&memory)).collect();
        order(&mut chains);
        chains.iter().for_each(|chain| queue.give(&memory, chain, 0));
        chains.len()
    }

    /// Does what the control queue says.
    pub(crate) fn control(&mut self) {
        let memory = self.memory.clone();
        let Some(queue) = self.queues.last_mut() else { return };
        while let Some(chain) = queue.take(&memory) {
            queue.ask_for_kicks(&memory, true);
            let read = chain.read.iter().filter_map(|&(addr, len)| memory.read(addr, len as usize));
            self.commands.push(read.collect::<Vec<_>>().concat());
            let Some(answer) = self.answer else { continue };
            scatter(&memory, &chain, &[answer]);
            queue.give(&memory, &chain, 1);
        }
    }
}

/// Writes bytes to where a buffer has room.
fn scatter(memory: &crate::device_memory::DeviceMemory, chain: &Chain, mut bytes: &[u8]) {
    for &(addr, len) in &chain.write {
        let (now, later) = bytes.split_at(bytes.len().min(len as usize));
        memory.write(addr, now);
        bytes = later;
    }
}
