//! The driver's front end against a back end that keeps a list of what it is told.

mod driver_device;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use driver_device::Device;
use driver_device::split::SplitDevice;
use vhost::driver::{FrontEnd, FrontEndError, NetHdr, VirtioNet, VirtioNetConfig, VirtioNetError};
use vhost::wire::message::{Header, Request, flags, protocol};
use vhost::wire::net::{F_MQ, F_MRG_RXBUF, F_PROTOCOL_FEATURES, F_VERSION_1};
use zerocopy::IntoBytes;

const LIMIT: Duration = Duration::from_secs(10);

/// What a scripted back end offers, and which order it refuses.
#[derive(Clone, Copy)]
struct Script {
    features: u64,
    protocol_features: u64,
    queue_pairs: u64,
    refuse: Option<Request>,
}

const FULL: Script = Script {
    features: F_VERSION_1 | F_MRG_RXBUF | F_MQ | F_PROTOCOL_FEATURES,
    protocol_features: protocol::F_MQ | protocol::F_REPLY_ACK | protocol::F_STATUS | protocol::F_MTU,
    queue_pairs: 2,
    refuse: None,
};

type Told = Vec<(Request, Vec<u8>)>;

/// Answers until the other side goes; returns what it was told.
fn back_end(mut socket: UnixStream, script: Script) -> Told {
    let mut told = Told::new();
    let mut header = Header::default();
    while socket.read_exact(header.as_mut_bytes()).is_ok() {
        let mut payload = vec![0; header.size as usize];
        socket.read_exact(&mut payload).unwrap();
        let request = Request::try_from(header.request).unwrap();
        let answer = match request {
            Request::GetFeatures => script.features.as_bytes().to_vec(),
            Request::GetProtocolFeatures => script.protocol_features.as_bytes().to_vec(),
            Request::GetQueueNum => script.queue_pairs.as_bytes().to_vec(),
            Request::GetVringBase => [payload[0], 0, 0, 0, 40 + payload[0], 0, 0, 0].to_vec(),
            _ if header.flags & flags::NEED_REPLY != 0 => {
                u64::from(script.refuse == Some(request)).as_bytes().to_vec()
            }
            _ => Vec::new(),
        };
        told.push((request, payload));
        if !answer.is_empty() {
            let (flags, size) = (flags::VERSION | flags::REPLY, answer.len() as u32);
            socket.write_all(Header { request: header.request, flags, size }.as_bytes()).unwrap();
            socket.write_all(&answer).unwrap();
        }
    }
    told
}

fn scripted(script: Script) -> (FrontEnd, JoinHandle<Told>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (FrontEnd::over(ours, LIMIT), thread::spawn(move || back_end(theirs, script)))
}

fn names(told: &Told) -> Vec<&'static str> {
    told.iter().map(|(request, _)| request.name()).collect()
}

#[test]
fn a_device_comes_up_and_goes_in_order() {
    let (front, back) = scripted(FULL);
    let config = VirtioNetConfig { mtu: Some(9000), queue_pairs: 2, base: 7, ..VirtioNetConfig::default() };
    let net = VirtioNet::over(front, config).unwrap();
    assert_eq!(net.features(), FULL.features);
    assert_eq!(net.disconnect().unwrap(), [40, 41, 42, 43]);
    let told = back.join().unwrap();
    let mut expected = vec!["SET_OWNER", "GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES"];
    expected.extend(["GET_QUEUE_NUM", "SET_FEATURES", "SET_STATUS", "NET_SET_MTU", "SET_MEM_TABLE"]);
    for _ in 0..4 {
        expected.extend([
            "SET_VRING_NUM",
            "SET_VRING_BASE",
            "SET_VRING_ADDR",
            "SET_VRING_CALL",
            "SET_VRING_KICK",
        ]);
    }
    expected.extend(["SET_VRING_ENABLE"; 4]);
    expected.push("SET_STATUS");
    expected.extend(["GET_VRING_BASE"; 4]);
    expected.push("SET_STATUS");
    assert_eq!(names(&told), expected);
    assert_eq!(told[7].1, 9000u64.as_bytes());
    assert_eq!(told[10].1, [0u32, 7].as_bytes(), "base");
    assert_eq!(told.last().unwrap().1, [0; 8], "reset");
}

#[test]
fn dropping_stops_the_rings_too() {
    let (front, back) = scripted(FULL);
    drop(VirtioNet::over(front, VirtioNetConfig::default()).unwrap());
    let told = back.join().unwrap();
    assert_eq!(names(&told)[told.len() - 3..], ["GET_VRING_BASE", "GET_VRING_BASE", "SET_STATUS"]);
}

#[test]
fn a_plain_old_back_end_is_told_nothing_new() {
    let (front, back) = scripted(Script { features: F_MRG_RXBUF, ..FULL });
    let net = VirtioNet::over(front, VirtioNetConfig::default()).unwrap();
    assert_eq!((net.features(), net.protocol_features()), (F_MRG_RXBUF, 0));
    drop(net);
    let told = back.join().unwrap();
    for word in ["GET_PROTOCOL_FEATURES", "SET_VRING_ENABLE", "SET_STATUS", "GET_QUEUE_NUM"] {
        assert!(!names(&told).contains(&word), "{word}");
    }
}

#[test]
fn frames_go_through_the_rings_that_were_told() {
    let (front, back) = scripted(FULL);
    let config = VirtioNetConfig { gpa_base: 0x10_0000, ..VirtioNetConfig::default() };
    let mut net = VirtioNet::over(front, config).unwrap();
    let ram = net.ram().clone();
    let pair = &net.pairs()[0];
    let mut tx = SplitDevice::of(pair.tx.queue(), &ram);
    let mut rx = SplitDevice::of(pair.rx.queue(), &ram);
    assert!(pair.tx.queue().kicks_sent() == 1 && pair.rx.queue().kicks_sent() >= 1, "a kick starts a ring");

    let hdr = NetHdr { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, ..NetHdr::default() };
    net.send(b"out of the guest", hdr).unwrap();
    let chain = tx.take().unwrap();
    assert_eq!(tx.read(&chain)[12..], *b"out of the guest");
    assert_eq!(tx.read(&chain)[..12], hdr.to_bytes());

    let chain = rx.take().unwrap();
    let len = rx.write(&chain, b"\0\0\0\0\0\0\0\0\0\0\x01\0into the guest");
    rx.give(&chain, len);
    rx.publish();
    let mut frame = Vec::new();
    let header = net.recv_within(&mut frame, LIMIT).unwrap().expect("one is there");
    assert_eq!((header.num_buffers, frame.as_slice()), (1, b"into the guest".as_slice()));
    assert_eq!(net.recv_within(&mut frame, Duration::from_millis(1)), Ok(None));
    drop(net);
    back.join().unwrap();
}

#[test]
fn a_refusal_names_the_message() {
    let (front, _back) = scripted(Script { refuse: Some(Request::SetVringAddr), ..FULL });
    match VirtioNet::over(front, VirtioNetConfig::default()) {
        Err(VirtioNetError::FrontEnd(FrontEndError::Refused { request: Request::SetVringAddr, code: 1 })) => {
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_pairs_than_there_are() {
    let (front, _back) = scripted(FULL);
    let config = VirtioNetConfig { queue_pairs: 3, ..VirtioNetConfig::default() };
    let error = VirtioNet::over(front, config).unwrap_err();
    assert!(matches!(error, VirtioNetError::QueuePairs { wanted: 3, has: 2 }), "{error}");
}

#[test]
fn silence_and_a_closed_door() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut front = FrontEnd::over(ours, Duration::from_millis(50));
    let start = Instant::now();
    assert!(matches!(front.features(), Err(FrontEndError::Timeout(_))));
    assert!(start.elapsed() < LIMIT);
    assert!(!front.is_closed_within(Duration::from_millis(1)));
    drop(theirs);
    assert!(front.is_closed_within(LIMIT));
    assert!(matches!(front.features(), Err(FrontEndError::Closed)));
}

#[test]
fn a_full_socket_does_not_hold_it_for_ever() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut front = FrontEnd::over(ours, Duration::from_millis(50));
    let error = (0..).find_map(|_| front.send_raw(&[0; 65_536], &[]).err());
    assert!(matches!(error, Some(FrontEndError::Timeout(_))), "{error:?}");
}

#[test]
fn answers_to_something_else_are_strange() {
    let answers = [(2, 5, 8), (1, 1, 8), (1, 5, 4), (1, 5, 0)];
    for (request, flags, size) in answers {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(Header { request, flags, size }.as_bytes()).unwrap();
        theirs.write_all(&vec![0; size as usize]).unwrap();
        let error = FrontEnd::over(ours, LIMIT).features().unwrap_err();
        assert!(
            matches!(error, FrontEndError::StrangeReply { request: Request::GetFeatures, .. }),
            "{error}"
        );
    }
}

#[test]
fn either_side_may_listen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("port");
    let absent = FrontEnd::connect(&path, Duration::from_millis(20)).unwrap_err();
    assert!(
        matches!(&absent, FrontEndError::Connect { .. }) && absent.to_string().contains("port"),
        "{absent}"
    );

    thread::scope(|threads| {
        // It starts to connect before anybody listens.
        let driver = threads.spawn(|| VirtioNet::connect(&path, VirtioNetConfig::default()).map(drop));
        thread::sleep(Duration::from_millis(30));
        let listener = UnixListener::bind(&path).unwrap();
        back_end(listener.accept().unwrap().0, FULL);
        driver.join().unwrap().unwrap();

        let back = threads.spawn(|| back_end(UnixStream::connect(&path).unwrap(), FULL));
        drop(VirtioNet::accept(&listener, VirtioNetConfig::default()).unwrap());
        back.join().unwrap();
        let nobody = FrontEnd::accept(&listener, Duration::from_millis(20));
        assert!(matches!(nobody, Err(FrontEndError::Timeout(_))));
    });
}
