//! Any frames into a switch of three ports, one of which has four queues: addresses are learned, flows hashed, and each frame
//! comes out at most once at each other port, whole; frames of one flow by one queue.
//!
//! The first byte says which queues of the third port are ready. Then come frames: a byte for the port (and whether it ends the
//! turn), a byte for the length, the bytes.
#![no_main]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use libfuzzer_sys::fuzz_target;
use mbuf::{Burst, MAX_BURST, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{DropReason, RxQueue, TxQueue};
use polder_fuzz::input::Input as Bytes;
use vswitch::{Fdb, FdbConfig, Forwarder, Input, PortId};

const PORTS: usize = 3;
const QUEUES: usize = 4;

/// What the queues and the target have in common.
#[derive(Default)]
struct Wire {
    /// Frames on their way in, by port.
    incoming: [VecDeque<Vec<u8>>; PORTS],
    /// Frames that came out: port, queue, bytes.
    outgoing: Vec<(usize, usize, Vec<u8>)>,
    /// Ready queues of the last port, a bit each.
    ready: u8,
}

type Shared = Arc<Mutex<Wire>>;

struct Source {
    port: usize,
    wire: Shared,
}

impl RxQueue for Source {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        let mut wire = self.wire.lock().expect("no run before this one failed");
        let mut taken = 0;
        while taken < MAX_BURST
            && let Some(frame) = wire.incoming[self.port].pop_front()
        {
            let mut mbuf = pool().alloc(self.port as u16).expect("enough of them");
            mbuf.append(frame.len()).expect("room").copy_from_slice(&frame);
            assert!(burst.push(mbuf).is_ok());
            taken += 1;
        }
        taken
    }
}

struct Sink {
    port: usize,
    queue: usize,
    wire: Shared,
}

impl TxQueue for Sink {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        let mut wire = self.wire.lock().expect("no run before this one failed");
        let count = burst.len();
        for mbuf in burst.drain() {
            let mut bytes = vec![0; mbuf.len()];
            mbuf.copy_to(0, &mut bytes);
            wire.outgoing.push((self.port, self.queue, bytes));
        }
        count
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, _: DropReason) {
        burst.clear();
    }

    fn is_ready(&self) -> bool {
        let wire = self.wire.lock().expect("no run before this one failed");
        self.port + 1 < PORTS || wire.ready >> self.queue & 1 == 1
    }
}

fn pool() -> &'static Mempool {
    static POOL: OnceLock<&'static Mempool> = OnceLock::new();
    POOL.get_or_init(|| {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let config = MempoolConfig { mbufs: 1024, cache: 0, zone, ..MempoolConfig::default() };
        Mempool::new(&config).expect("a pool")
    })
}

struct Rig {
    fdb: Arc<Fdb>,
    forwarder: Forwarder,
    inputs: Vec<Input>,
    wire: Shared,
}

impl Rig {
    fn new() -> Self {
        // Small enough to be full, and the same in every run.
        let (port_quota, secret) = (Some(64), Some([1, 2, 3, 4]));
        let config = FdbConfig { capacity: 128, port_quota, secret, ..FdbConfig::default() };
        let (fdb, wire) = (Arc::new(Fdb::new(&config).expect("good numbers")), Shared::default());
        let mut forwarder = Forwarder::new(Arc::clone(&fdb));
        let mut inputs = Vec::new();
        for port in 0..PORTS {
            let id = PortId::for_test(port as u16);
            let sink = |queue| Box::new(Sink { port, queue, wire: Arc::clone(&wire) }) as Box<dyn TxQueue>;
            forwarder.add_output(id, (0..if port + 1 == PORTS { QUEUES } else { 1 }).map(sink).collect());
            inputs.push(Input::new(id, 0, Box::new(Source { port, wire: Arc::clone(&wire) })));
        }
        Self { fdb, forwarder, inputs, wire }
    }

    fn turn(&mut self) {
        for input in &mut self.inputs {
            while self.forwarder.poll(input) > 0 {}
        }
        self.forwarder.end_turn();
    }
}

fn run(rig: &mut Rig, mut input: Bytes<'_>) -> Option<()> {
    rig.wire.lock().expect("no run before this one failed").ready = input.byte()?;
    let mut came: HashMap<Vec<u8>, [usize; PORTS]> = HashMap::new();
    while let (Some(how), Some(len)) = (input.byte(), input.byte()) {
        let frame = input.bytes(len.into()).to_vec();
        let port = usize::from(how & 0x7f) % PORTS;
        came.entry(frame.clone()).or_default()[port] += 1;
        rig.wire.lock().expect("no run before this one failed").incoming[port].push_back(frame);
        if how & 0x80 != 0 {
            rig.turn();
        }
    }
    rig.turn();
    let mut wire = rig.wire.lock().expect("no run before this one failed");
    let mut went: HashMap<(Vec<u8>, usize), usize> = HashMap::new();
    let mut flows: HashMap<Vec<u8>, usize> = HashMap::new();
    for (port, queue, bytes) in wire.outgoing.drain(..) {
        if port + 1 == PORTS {
            assert_eq!(*flows.entry(bytes.clone()).or_insert(queue), queue, "one flow, two queues");
        }
        *went.entry((bytes, port)).or_default() += 1;
    }
    for ((bytes, port), count) in went {
        let from = came.get(&bytes).expect("nothing comes out that did not go in");
        assert!(count <= from.iter().sum::<usize>() - from[port], "a frame came back, or came twice");
    }
    Some(())
}

fuzz_target!(|input: &[u8]| {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    let mut rig = RIG.get_or_init(|| Mutex::new(Rig::new())).lock().expect("no run before this one failed");
    rig.fdb.flush();
    run(&mut rig, Bytes(input));
    assert_eq!(pool().balance().out, 0);
});
