use mbuf::Burst;
use pmd::vdev::null::NullPort;
use pmd::{DropReason, Port, PortError, QueueEnv};

use crate::frames::{burst, pool};

#[test]
fn counts_and_discards() {
    let pool = pool(64);
    let mut port = NullPort::new();
    let mut queues = port.open(QueueEnv { pool, port: 1 }).unwrap();
    assert!(matches!(port.open(QueueEnv { pool, port: 1 }), Err(PortError::QueuesTaken)));
    let mut packets = burst(pool, 10);
    assert_eq!(queues.tx[0].tx_burst(&mut packets), 10);
    assert!(packets.is_empty());
    let counters = port.counters();
    assert_eq!((counters.tx[0].packets.get(), counters.tx[0].bytes.get()), (10, 600));
    let mut none = Burst::new();
    assert_eq!(queues.rx[0].rx_burst(&mut none), 0);
    drop(none);
    drop(port);
    assert_eq!(queues.tx[0].tx_burst(&mut burst(pool, 3)), 3);
    assert_eq!(
        counters.tx[0].drops[DropReason::TxNotReady as usize].get(),
        3,
        "a port that is gone sends nothing"
    );
    assert_eq!(pool.balance().out, 0);
}
