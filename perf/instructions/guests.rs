//! A whole turn of the switch between two guests: dequeue, classify, sort, enqueue, publish.

use std::sync::Arc;
use std::thread;

use mbuf::LcoreId;
use pmd::{Port, QueueEnv, Queues};
use tempfile::TempDir;
use vhost::VhostUserPort;
use vhost::driver::{QueuePair, VirtioNet, VirtioNetConfig};
use vswitch::{Fdb, FdbConfig, Forwarder, Input, PortId};

use crate::Workload;
use crate::pieces::pool;

/// Frames that each guest sends before a step: a burst.
const FRAMES: usize = 32;
const QUEUE_SIZE: u16 = 256;

/// Two guests' rings, and the forwarder between them.
pub(crate) struct Turn {
    forwarder: Forwarder,
    inputs: Vec<Input>,
    pairs: Vec<QueuePair>,
    _lcore: Option<LcoreId>,
    // What all of this stands on.
    _devices: Vec<VirtioNet>,
    _ports: Vec<VhostUserPort>,
    _folder: TempDir,
}

impl Turn {
    /// Guests that negotiate `features` beside the usual, and send frames of `size` bytes.
    pub(crate) fn new(features: u64, size: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let fdb = Fdb::new(&FdbConfig::default()).expect("a table");
        let mut forwarder = Forwarder::new(Arc::new(fdb));
        forwarder.set_now_s(1);
        let (mut inputs, mut pairs, mut devices, mut ports) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for side in 0..2u8 {
            let path = folder.path().join(side.to_string());
            let mut port =
                VhostUserPort::new(&path.display().to_string().parse().expect("a path")).expect("a port");
            let id = PortId::for_test(side.into());
            let Queues { mut rx, tx } =
                port.open(QueueEnv { pool: pool(), port: side.into() }).expect("queues");
            // The port's own thread answers.
            let connected = thread::spawn(move || VirtioNet::connect(&path, config(features))).join();
            let mut device = connected.expect("no panic").expect("a device");
            let mut pair = device.take_pairs().remove(0);
            pair.tx.prepare(|_, slot| {
                slot.write(0, &frame(side, size));
                size
            });
            forwarder.add_output(id, tx);
            inputs.push(Input::new(id, 0, rx.remove(0)));
            pairs.push(pair);
            devices.push(device);
            ports.push(port);
        }
        let lcore = LcoreId::claim();
        Self { forwarder, inputs, pairs, _lcore: lcore, _devices: devices, _ports: ports, _folder: folder }
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
        for pair in &mut self.pairs {
            pair.tx.reclaim().expect("a sound ring");
            assert_eq!(pair.tx.post_prepared(FRAMES, |_| ()), FRAMES, "all of the last step came back");
            pair.rx.poll(usize::MAX, |_| ()).expect("a sound ring");
            pair.rx.refill();
        }
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
