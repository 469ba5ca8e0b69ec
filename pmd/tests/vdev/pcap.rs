use std::fs;
use std::path::Path;

use mbuf::{Burst, Checksum, GsoKind, Mempool, Offload};
use pmd::vdev::from_spec;
use pmd::vdev::pcap::{PcapConfig, PcapPort};
use pmd::{DropReason, Link, Port, QueueEnv};

use crate::frames::{burst, bytes, numbered, numbers, pool};

/// Writes `packets` to a capture at `path` through a port.
fn write(pool: &'static Mempool, path: &Path, mut packets: Burst<'static>) {
    let mut port = from_spec("pcap", &format!("tx={}", path.display())).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 1 }).unwrap();
    let n = packets.len();
    assert_eq!(q.tx[0].tx_burst(&mut packets), n);
    q.tx[0].flush();
    assert_eq!(port.counters().tx[0].packets.get(), n as u64);
}

/// Reads a whole capture through a port: bursts' contents, one frame after the other.
fn read(pool: &'static Mempool, config: &PcapConfig, most: usize) -> (Vec<Vec<u8>>, PcapPort) {
    let mut port = PcapPort::new(config).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 5 }).unwrap();
    let mut frames = Vec::new();
    while q.rx[0].is_ready() && frames.len() < most {
        let mut got = Burst::new();
        q.rx[0].rx_burst(&mut got);
        assert!(got.iter().all(|m| m.port() == 5));
        frames.extend(got.iter().map(bytes));
    }
    (frames, port)
}

fn reading(path: &Path) -> PcapConfig {
    PcapConfig { rx: Some(path.to_owned()), ..PcapConfig::default() }
}

#[test]
fn what_was_written_is_read() {
    let (pool, folder) = (pool(256), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcap");
    let mut packets = burst(pool, 20);
    let mut long = numbered(pool, 20, 2000);
    long.chain(numbered(pool, 20, 2000)).unwrap();
    packets.push(long).unwrap();
    let sent: Vec<_> = packets.iter().map(bytes).collect();
    assert_eq!(numbers(&packets).len(), 21);
    write(pool, &path, packets);
    let (got, port) = read(pool, &reading(&path), 100);
    assert_eq!(got, sent);
    assert_eq!((port.link(), port.counters().rx[0].packets.get()), (Link::Down, 21));
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn repeats_when_told_to() {
    let (pool, folder) = (pool(64), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcap");
    write(pool, &path, burst(pool, 5));
    let config = PcapConfig { repeat: true, ..reading(&path) };
    let (got, port) = read(pool, &config, 64);
    assert!(got.len() >= 64 && port.link() == Link::Up);
    assert_eq!(got[59][20], 4);
    write(pool, &path, Burst::new());
    let (got, port) = read(pool, &config, 64);
    assert_eq!((got.len(), port.link()), (0, Link::Down), "a capture without packets ends at once");
}

#[test]
fn pcapng_of_two_interfaces() {
    let (pool, folder) = (pool(64), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcapng");
    let mut file =
        block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    file.extend(block(1, &[1, 0, 0, 0, 0, 0, 0, 0]));
    file.extend(block(1, &[101, 0, 0, 0, 0, 0, 0, 0]));
    for interface in [0u32, 1, 0] {
        let mut body = interface.to_le_bytes().to_vec();
        body.extend([0; 8]);
        body.extend(61u32.to_le_bytes());
        body.extend(61u32.to_le_bytes());
        body.extend([7; 64]);
        file.extend(block(6, &body));
    }
    fs::write(&path, file).unwrap();
    let (got, port) = read(pool, &reading(&path), 10);
    assert_eq!(got, [vec![7; 61], vec![7; 61]]);
    let counters = port.counters();
    assert_eq!(counters.rx[0].drops[DropReason::RxError as usize].get(), 1, "raw IP is not Ethernet");
    assert_eq!(counters.rx[0].packets.get(), 3);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (12 + body.len() as u32).to_le_bytes();
    [&kind.to_le_bytes(), &len, body, &len].concat()
}

#[test]
fn a_broken_file_ends_the_port_and_nothing_else() {
    let (pool, folder) = (pool(64), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcap");
    write(pool, &path, burst(pool, 5));
    let whole = fs::read(&path).unwrap();
    for len in 24..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let (got, port) = read(pool, &reading(&path), 100);
        assert_eq!((got.len(), port.link()), ((len - 24) / 76, Link::Down));
    }
    let mut lie = whole.clone();
    lie[24 + 8..24 + 12].fill(0xff);
    fs::write(&path, lie).unwrap();
    assert_eq!(read(pool, &reading(&path), 100).0.len(), 0);
    for (bad, what) in [(&[][..], "empty"), (&[1; 100][..], "neither pcap")] {
        fs::write(&path, bad).unwrap();
        let error = PcapPort::new(&reading(&path)).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("a.pcap"), "{error}");
    }
}

#[test]
fn short_frames_are_dropped_by_name() {
    let (pool, folder) = (pool(64), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcap");
    let mut packets = Burst::new();
    packets.push(numbered(pool, 1, 13)).unwrap();
    packets.push(numbered(pool, 1, 14)).unwrap();
    write(pool, &path, packets);
    let (got, port) = read(pool, &reading(&path), 10);
    assert_eq!(got.len(), 1);
    assert_eq!(port.counters().rx[0].drops[DropReason::RxTooShort as usize].get(), 1);
    let mut packets = Burst::new();
    packets.push(numbered(pool, 1, 13)).unwrap();
    write(pool, &path, packets);
    let mut port = PcapPort::new(&PcapConfig { repeat: true, ..reading(&path) }).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 5 }).unwrap();
    assert_eq!(q.rx[0].rx_burst(&mut Burst::new()), 0, "a turn ends even if the capture never does");
}

#[test]
fn a_capture_shows_finished_packets() {
    let (pool, folder) = (pool(64), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcap");
    let mut packets = burst(pool, 1);
    let mut offload = Offload::NONE;
    (offload.checksum, offload.csum_start, offload.csum_offset) = (Checksum::Partial, 34, 6);
    packets[0].set_offload(offload);
    let before = bytes(&packets[0]);
    write(pool, &path, packets);
    assert_ne!(read(pool, &reading(&path), 10).0[0], before, "its checksum was filled in");
    let mut port = from_spec("pcap", &format!("tx={}", path.display())).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut packets = burst(pool, 1);
    (offload.gso, offload.gso_size) = (GsoKind::TcpV4, 10);
    packets[0].set_offload(offload);
    assert_eq!(q.tx[0].tx_burst(&mut packets), 1);
    assert_eq!(port.counters().tx[0].drops[DropReason::TxOffload as usize].get(), 1, "no TCP, not to be cut");
}

#[test]
fn without_an_rx_file_nothing_comes_and_without_a_tx_file_nothing_goes() {
    let (pool, folder) = (pool(64), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.pcap");
    write(pool, &path, burst(pool, 5));
    let mut port = PcapPort::new(&reading(&path)).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 1 }).unwrap();
    assert!(!q.tx[0].is_ready());
    assert_eq!(q.tx[0].tx_burst(&mut burst(pool, 2)), 2);
    assert_eq!(port.counters().tx[0].drops[DropReason::TxNotReady as usize].get(), 2);
}
