//! Between two guests: a whole turn of the switch (dequeue, classify, sort, enqueue, publish), and the rings alone.

use std::sync::Arc;
use std::thread;

use mbuf::{Burst, LcoreId};
use pmd::{Port, QueueEnv, RxQueue, TxQueue};
use tempfile::TempDir;
use vhost::VhostUserPort;
use vhost::driver::{QueuePair, VirtioNet, VirtioNetConfig};
use vswitch::{Fdb, FdbConfig, Forwarder, Input, PortId};

use crate::Workload;
use crate::pieces::pool;

/// Frames that each guest sends before a step: a burst.
const FRAMES: usize = 32;
const QUEUE_SIZE: u16 = 256;

/// Two guests and the halves of their ports.
struct Guests {
    pairs: Vec<QueuePair>,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    _lcore: Option<LcoreId>,
    // What all of this stands on.
    _devices: Vec<VirtioNet>,
    _ports: Vec<VhostUserPort>,
    _folder: TempDir,
}

impl Guests {
    /// They negotiate `features` beside the usual, and send frames of `size` bytes.
    fn new(features: u64, size: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (mut pairs, mut devices, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for side in 0..2u8 {
            let path = folder.path().join(side.to_string());
            let mut port =
                VhostUserPort::new(&path.display().to_string().parse().expect("a path")).expect("a port");
            let queues = port.open(QueueEnv { pool: pool(), port: side.into() }).expect("queues");
            // The port's own thread answers.
            let connected = thread::spawn(move || VirtioNet::connect(&path, config(features))).join();
            let mut device = connected.expect("no panic").expect("a device");
            let mut pair = device.take_pairs().remove(0);
            pair.tx.prepare(|_, slot| {
                slot.write(0, &frame(side, size));
                size
            });
            rx.extend(queues.rx);
            tx.extend(queues.tx);
            pairs.push(pair);
            devices.push(device);
            ports.push(port);
        }
        let lcore = LcoreId::claim();
        pmd::notify::prepare_thread().expect("a context for calls");
        Self { pairs, rx, tx, _lcore: lcore, _devices: devices, _ports: ports, _folder: folder }
    }

    /// Each sends a burst, and takes what came.
    fn work(&mut self) {
        for pair in &mut self.pairs {
            pair.tx.reclaim().expect("a sound ring");
            assert_eq!(pair.tx.post_prepared(FRAMES, |_| ()), FRAMES, "all of the last step came back");
            pair.rx.poll(usize::MAX, |_| ()).expect("a sound ring");
            pair.rx.refill();
        }
    }
}

/// The forwarder between two guests.
pub(crate) struct Turn {
    forwarder: Forwarder,
    inputs: Vec<Input>,
    guests: Guests,
}

impl Turn {
    /// Guests that negotiate `features` beside the usual, and send frames of `size` bytes.
    pub(crate) fn new(features: u64, size: usize) -> Self {
        let mut guests = Guests::new(features, size);
        let fdb = Fdb::new(&FdbConfig::default()).expect("a table");
        let mut forwarder = Forwarder::new(Arc::new(fdb));
        forwarder.set_now_s(1);
        let id = |number: usize| PortId::for_test(number as u16);
        for (number, tx) in guests.tx.drain(..).enumerate() {
            forwarder.add_output(id(number), vec![tx]);
        }
        let inputs =
            guests.rx.drain(..).enumerate().map(|(number, rx)| Input::new(id(number), 0, rx)).collect();
        Self { forwarder, inputs, guests }
    }
}

fn config(features: u64) -> VirtioNetConfig {
    let default = VirtioNetConfig::default();
    VirtioNetConfig { queue_size: QUEUE_SIZE, features: default.features | features, ..default }
}

/// UDP in form; from one side's station to the other's.
fn frame(side: u8, size: usize) -> Vec<u8> {
    let pattern = perf::pattern::Pattern { sizes: perf::pattern::Sizes::Fixed(size), ..Default::default() };
    pattern.frame(0, side, side ^ 1)
}

impl Workload for Turn {
    fn prepare(&mut self) {
        self.guests.work();
    }

    fn step(&mut self) -> usize {
        let mut packets = 0;
        for input in &mut self.inputs {
            packets += self.forwarder.poll(input);
        }
        self.forwarder.end_turn();
        packets
    }
}

/// The same way with nothing between the rings: out of one guest's, into the other's.
pub(crate) struct Vring(Guests);

impl Vring {
    /// As [`Turn::new`].
    pub(crate) fn new(features: u64, size: usize) -> Self {
        Self(Guests::new(features, size))
    }
}

impl Workload for Vring {
    fn prepare(&mut self) {
        self.0.work();
    }

    fn step(&mut self) -> usize {
        let mut packets = 0;
        for (rx, tx) in self.0.rx.iter_mut().zip(self.0.tx.iter_mut().rev()) {
            let mut burst = Burst::new();
            packets += rx.rx_burst(&mut burst);
            assert_eq!(tx.tx_burst(&mut burst), FRAMES, "the other guest has room");
            drop(burst);
            rx.complete();
        }
        self.0.tx.iter_mut().for_each(|tx| tx.flush());
        packets
    }
}
