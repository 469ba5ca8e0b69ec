//! Features, resets, status, MTU, RARP, configuration.

use super::*;
use crate::wire::message::ConfigHead;

#[test]
fn c15_features_that_were_not_offered() {
    let mut s = negotiated(1);
    let offered = s.get(Request::GetFeatures);
    assert_eq!(offered & net::F_MQ, 0, "one pair");
    for bit in (0..64).map(|i| 1u64 << i) {
        let due = u64::from(offered & bit == 0);
        assert_eq!(s.ask(Request::SetFeatures, &(net::F_VERSION_1 | bit), vec![]), Ok(due), "{bit:#x}");
    }
    for bit in [net::F_LOG_ALL, net::F_ACCESS_PLATFORM, net::F_NOTIFY_ON_EMPTY] {
        assert_eq!(offered & bit, 0);
    }
    let protocol_features = s.get(Request::GetProtocolFeatures);
    for bit in (0..64).map(|i| 1u64 << i).filter(|bit| protocol_features & bit == 0) {
        assert_eq!(
            s.ask(Request::SetProtocolFeatures, &(protocol_features | bit), vec![]),
            Ok(1),
            "{bit:#x}"
        );
    }
    let many = session(2).get(Request::GetFeatures);
    assert_eq!(many, offered | net::F_MQ);
}

#[test]
fn c15_legacy_without_version_1() {
    let mut s = negotiated(1);
    assert_eq!(s.ask(Request::SetFeatures, &net::F_CSUM, vec![]), Ok(0));
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert!(s.is_up());
}

#[test]
fn without_reply_ack_a_refusal_ends_the_session() {
    let mut s = session(1);
    assert_eq!(s.state(Request::SetVringNum, 0, 3), Err("ring_size"));
    assert_eq!(
        s.send(Request::SetOwner as u32, flags::NEED_REPLY, &[], vec![]),
        Ok(None),
        "no answer either"
    );
}

#[test]
fn c24_resets_in_each_state() {
    for make in [|| session(1), || negotiated(1), running] {
        for request in [Request::ResetOwner, Request::ResetDevice] {
            let mut s = make();
            let need = s.protocol_features == 0 && request == Request::ResetDevice;
            let due = if need { Err("not_negotiated") } else { Ok(0) };
            for _ in 0..2 {
                assert_eq!(s.ask(request, &(), vec![]), due);
            }
            assert!(!s.slots[0].is_running() || need);
        }
    }
    let mut s = running();
    assert_eq!(s.state(Request::SetVringEnable, 0, 1), Ok(0));
    assert_eq!(s.ask(Request::ResetDevice, &(), vec![]), Ok(0));
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert!(s.slots[0].is_running() && !s.is_up(), "the session stays; enabling does not");
}

#[test]
fn c24_status() {
    let mut s = running();
    for status in [1, 3, 11, 15, 0x80, 0xff] {
        assert_eq!(s.ask(Request::SetStatus, &u64::from(status as u8), vec![]), Ok(0));
        assert_eq!(s.get(Request::GetStatus), status);
        assert!(s.slots[0].is_running());
    }
    for status in [0x100, u64::MAX] {
        assert_eq!(s.ask(Request::SetStatus, &status, vec![]), Ok(1));
    }
    assert_eq!(s.ask(Request::SetStatus, &0u64, vec![]), Ok(0));
    assert!(!s.slots[0].is_running());
    assert_eq!(s.get(Request::GetStatus), 0);
}

#[test]
fn c25_mtu() {
    let mut s = negotiated(1);
    for mtu in [0, 67, 9001, 65_535, 65_536, 65_536 + 1500, u64::MAX] {
        assert_eq!(s.ask(Request::NetSetMtu, &mtu, vec![]), Ok(1), "{mtu}");
    }
    for mtu in [68u64, 1500, 9000] {
        assert_eq!(s.ask(Request::NetSetMtu, &mtu, vec![]), Ok(0), "{mtu}");
    }
    assert_eq!(s.mtu, Some(9000));
    assert_eq!(session(1).send(20, 0, &1500u64.to_ne_bytes(), vec![]), Err("not_negotiated"));
}

#[test]
fn c25_rarp() {
    let mut s = negotiated(1);
    for mac in [[0u8; 8], [1, 0, 0x5e, 0, 0, 1, 0, 0], [0xff; 8]] {
        assert_eq!(s.ask(Request::SendRarp, &mac, vec![]), Ok(1), "{mac:?}");
    }
    assert_eq!(s.announce.take(), None);
    assert_eq!(s.ask(Request::SendRarp, &[0x52u8, 0x54, 0, 1, 2, 3, 0, 0], vec![]), Ok(0));
    assert_eq!(s.announce.take(), Some([0x52, 0x54, 0, 1, 2, 3]));
}

#[test]
fn c25_configuration() {
    let mut s = negotiated(2);
    let mut get = |offset: u32, size: u32| {
        let payload = [ConfigHead { offset, size, flags: 0 }.as_bytes(), &vec![0; size as usize]].concat();
        s.send(Request::GetConfig as u32, 0, &payload, vec![])
    };
    let reply = get(6, 6).expect("an answer").expect("with a payload");
    assert_eq!(reply[12..], [1, 0, 2, 0, 0x28, 0x23], "link up, two pairs, MTU 9000");
    for (offset, size) in [(0, 13), (12, 1), (13, 0), (u32::MAX, 1), (u32::MAX - 3, 8)] {
        assert_eq!(get(offset, size), Ok(Some(Vec::new())), "{offset} {size}");
    }
    assert_eq!(get(0, 257), Err("malformed_payload_size"));
    let set = [ConfigHead { offset: 0, size: 1, flags: 0 }.as_bytes(), &[0]].concat();
    assert_eq!(s.ask(Request::SetConfig, set.as_slice(), vec![]), Ok(1));
    let lies = ConfigHead { offset: 0, size: u32::MAX, flags: 0 };
    assert_eq!(s.ask(Request::SetConfig, &lies, vec![]), Err("malformed_payload_size"));
}

#[test]
fn an_ended_session_leaves_nothing_behind() {
    let mut s = running();
    let memory = Arc::downgrade(&s.memory);
    s.end();
    assert!(!s.slots[0].is_running());
    assert!(memory.upgrade().is_none(), "unmapped");
    assert_eq!((s.features, s.protocol_features, s.status, s.mtu), (None, 0, 0, None));
    assert_eq!(s.vring_base(0), Ok(VringState { index: 0, num: 0 }));
    assert_eq!(s.times("sessions"), 1, "what was counted stays");
}
