//! TCP between two kernels' stacks (namespaces) through two ports that a thread joins.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mbuf::{Burst, GsoKind};
use pmd::offload::{Adapted, OffloadSet, adapt};
use pmd::{DropReason, Port, QueueEnv, Queues, RxQueue, TxQueue};

use crate::frames::pool;
use crate::namespace::Namespace;

/// What the joining thread saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) packets: u64,
    pub(crate) to_be_cut: u64,
}

/// Sends 8 MiB of TCP each way between two namespaces through two ports. See [`joined`].
pub(crate) fn tcp_through(
    (a, a_port): (&Namespace, &mut dyn Port),
    (b, b_port): (&Namespace, &mut dyn Port),
    server: SocketAddr,
    accepted: OffloadSet,
) -> Seen {
    joined(a_port, b_port, accepted, || transfer(a, b, server))
}

/// Opens two ports and sends whatever comes in by one out by the other while `work` runs. What `accepted` does not cover
/// is done in software in between.
pub(crate) fn joined(a: &mut dyn Port, b: &mut dyn Port, accepted: OffloadSet, work: impl FnOnce()) -> Seen {
    let pool = pool(4096);
    let a = a.open(QueueEnv { pool, port: 1 }).unwrap();
    let b = b.open(QueueEnv { pool, port: 2 }).unwrap();
    let seen = joined_queues(a, b, accepted, work);
    assert_eq!(pool.balance().out, 0, "all mbufs came home");
    seen
}

/// The same with ports that are open, whose halves go at the end.
pub(crate) fn joined_queues(mut a: Queues, mut b: Queues, accepted: OffloadSet, work: impl FnOnce()) -> Seen {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let lcore = scope.spawn(|| {
            let mut seen = Seen::default();
            while !stop.load(Ordering::Relaxed) {
                if !turn(&mut a, &mut b, accepted, &mut seen) & !turn(&mut b, &mut a, accepted, &mut seen) {
                    thread::sleep(Duration::from_micros(50));
                }
            }
            seen
        });
        // Even if the work panics.
        let stopping = StopOnDrop(&stop);
        work();
        drop(stopping);
        lcore.join().unwrap()
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One burst from each queue of one port to the other.
fn turn(from: &mut Queues, to: &mut Queues, accepted: OffloadSet, seen: &mut Seen) -> bool {
    let mut busy = false;
    let lanes = to.tx.len();
    for (i, rx) in from.rx.iter_mut().enumerate() {
        busy |= pass(rx.as_mut(), to.tx[i % lanes].as_mut(), accepted, seen);
    }
    busy
}

fn pass(rx: &mut dyn RxQueue, tx: &mut dyn TxQueue, accepted: OffloadSet, seen: &mut Seen) -> bool {
    let mut burst = Burst::new();
    if rx.rx_burst(&mut burst) == 0 {
        return false;
    }
    for mbuf in burst.drain() {
        seen.packets += 1;
        seen.to_be_cut += u64::from(mbuf.offload().gso != GsoKind::None);
        let mut out = Burst::new();
        match adapt(mbuf, accepted).unwrap() {
            Adapted::One(mbuf) => {
                out.push(mbuf).unwrap();
                send(tx, &mut out);
            }
            Adapted::Many(mut segments) => {
                while segments.remaining() > 0 {
                    segments.fill(&mut out).unwrap();
                    send(tx, &mut out);
                }
            }
        }
    }
    drop(burst);
    rx.complete();
    true
}

fn send(tx: &mut dyn TxQueue, burst: &mut Burst<'_>) {
    tx.tx_burst(burst);
    tx.drop_burst(burst, DropReason::TxFull);
    tx.flush();
}

const BYTES: usize = 8 << 20;

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|i| (i * 31 + i / 4096) as u8).collect()
}

/// The first connection; a client that does not come is a failure and not a wait for ever.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(e) => assert!(Instant::now() < deadline, "no connection within 15 s: {e}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends 8 MiB of TCP from `a` to a server in `b`, which sends back what it gets.
pub(crate) fn transfer(a: &Namespace, b: &Namespace, server: SocketAddr) {
    let listener = b.run(|| TcpListener::bind(server).unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = accept(&listener);
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        });
        let client = scope.spawn(|| {
            a.enter(|| {
                let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(10)).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream.write_all(&pattern()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                assert!(back == pattern(), "{} bytes came back", back.len());
            });
        });
        client.join().unwrap();
    });
}
