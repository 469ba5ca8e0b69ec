//! Requests that are none, payloads of the wrong size, descriptors too many or too few.

use super::*;
use crate::session::message::check_header;
use crate::session::trouble::Malformed;
use crate::wire::message::MAX_PAYLOAD;

/// Every request that is handled: its payload's size, and the descriptors it takes.
const SHAPES: &[(Request, usize, usize)] = &[
    (Request::GetFeatures, 0, 0),
    (Request::SetFeatures, 8, 0),
    (Request::SetOwner, 0, 0),
    (Request::ResetOwner, 0, 0),
    (Request::SetMemTable, 40, 1),
    (Request::SetLogFd, 0, 1),
    (Request::SetVringNum, 8, 0),
    (Request::SetVringAddr, 40, 0),
    (Request::SetVringBase, 8, 0),
    (Request::GetVringBase, 8, 0),
    (Request::SetVringKick, 8, 1),
    (Request::SetVringCall, 8, 1),
    (Request::SetVringErr, 8, 1),
    (Request::GetProtocolFeatures, 0, 0),
    (Request::SetProtocolFeatures, 8, 0),
    (Request::GetQueueNum, 0, 0),
    (Request::SetVringEnable, 8, 0),
    (Request::SendRarp, 8, 0),
    (Request::NetSetMtu, 8, 0),
    (Request::GetConfig, 12, 0),
    (Request::SetConfig, 12, 0),
    (Request::ResetDevice, 0, 0),
    (Request::GetMaxMemSlots, 0, 0),
    (Request::AddMemReg, 40, 1),
    (Request::RemMemReg, 40, 0),
    (Request::SetStatus, 8, 0),
    (Request::GetStatus, 0, 0),
];

/// Belong to features that are not offered.
const NOT_OFFERED: &[Request] = &[
    Request::SetLogBase,
    Request::SetBackendReqFd,
    Request::IotlbMsg,
    Request::SetVringEndian,
    Request::CreateCryptoSession,
    Request::CloseCryptoSession,
    Request::PostcopyAdvise,
    Request::PostcopyListen,
    Request::PostcopyEnd,
    Request::GetInflightFd,
    Request::SetInflightFd,
    Request::GpuSetSocket,
    Request::VringKick,
    Request::GetSharedObject,
    Request::SetDeviceStateFd,
    Request::CheckDeviceState,
];

fn fds(n: usize) -> Vec<OwnedFd> {
    (0..n).map(|_| event()).collect()
}

#[test]
fn every_request_is_in_one_of_the_lists() {
    for request in Request::ALL {
        let shaped = SHAPES.iter().filter(|(r, ..)| r == request).count();
        assert_eq!(shaped + NOT_OFFERED.iter().filter(|r| *r == request).count(), 1, "{request:?}");
    }
}

#[test]
fn c01_unknown_request() {
    for number in [0, 44, 100, 255, 256, 0x101, u32::MAX] {
        let mut s = negotiated(1);
        assert_eq!(s.send(number, flags::NEED_REPLY, &[], vec![]), Ok(Some(1u64.to_ne_bytes().into())));
        assert_eq!(s.get(Request::GetQueueNum), 2, "the session goes on");
        assert_eq!(s.send(number, 0, &[], vec![]), Err("unknown_request"));
        assert_eq!(s.times("unknown_request"), 2);
        assert_eq!(session(1).send(number, flags::NEED_REPLY, &[], vec![]), Err("unknown_request"));
    }
}

#[test]
fn c01_version_and_reply_flag() {
    for version in [0, 2, 3] {
        let header = Header { request: 1, flags: version, size: 0 };
        assert_eq!(check_header(&header), Err(Malformed::Version(version)));
    }
    let reply = Header { request: 1, flags: flags::VERSION | flags::REPLY, size: 0 };
    assert_eq!(check_header(&reply), Err(Malformed::Reply));
}

#[test]
fn c02_payload_sizes() {
    for &(request, size, count) in SHAPES {
        for wrong in [0, 1, size.wrapping_sub(1), size + 1, 2 * size + 8, MAX_PAYLOAD] {
            if wrong == size || wrong > MAX_PAYLOAD {
                continue;
            }
            let ended = negotiated(1).send(request as u32, flags::NEED_REPLY, &vec![0; wrong], fds(count));
            assert_eq!(ended, Err("malformed_payload_size"), "{request:?} with {wrong} bytes");
        }
    }
    for size in [MAX_PAYLOAD as u32 + 1, 0x8000_0000, u32::MAX] {
        let header = Header { request: 1, flags: flags::VERSION, size };
        assert_eq!(check_header(&header), Err(Malformed::PayloadTooLong { got: size }));
    }
}

#[test]
fn c07_descriptors_where_none_are_due() {
    for &(request, size, count) in SHAPES {
        // REM_MEM_REG may carry one (M17).
        let allowed = if request == Request::RemMemReg { 1 } else { count };
        for n in [allowed + 1, 8] {
            let mut payload = vec![0; size];
            if request == Request::SetMemTable {
                payload[0] = 1;
            }
            let ended = negotiated(1).send(request as u32, flags::NEED_REPLY, &payload, fds(n));
            assert_eq!(ended, Err("malformed_descriptors"), "{request:?} with {n}");
        }
    }
}

#[test]
fn c08_descriptors_missing_or_beside_the_nofd_bit() {
    for request in [Request::SetVringKick, Request::SetVringCall, Request::SetVringErr] {
        assert_eq!(negotiated(1).ask(request, &0u64, vec![]), Err("malformed_descriptors"));
        assert_eq!(negotiated(1).ask(request, &vring_fd::NO_FD, fds(1)), Err("malformed_descriptors"));
        assert_eq!(negotiated(1).ask(request, &vring_fd::NO_FD, vec![]), Ok(0));
    }
    assert_eq!(
        negotiated(1).ask(Request::AddMemReg, &SingleRegion::default(), vec![]),
        Err("malformed_descriptors")
    );
    assert_eq!(negotiated(1).ask(Request::SetLogFd, &(), vec![]), Err("malformed_descriptors"));
    let one = table(&[region(0, MEMORY, VA)]);
    assert_eq!(negotiated(1).ask(Request::SetMemTable, one.as_slice(), vec![]), Err("malformed_descriptors"));
}

#[test]
fn c28_c30_m20_f01_requests_of_features_that_are_not_offered() {
    for &request in NOT_OFFERED {
        let name = if request == Request::SetLogBase { "not_negotiated" } else { "not_offered" };
        let mut s = negotiated(1);
        let answer = s.send(request as u32, flags::NEED_REPLY, &[0; 16], fds(1));
        if has_own_reply(request) {
            assert_eq!(answer, Err(name), "{request:?}");
        } else {
            assert_eq!(answer, Ok(Some(1u64.to_ne_bytes().into())), "{request:?}");
            assert_eq!(s.send(request as u32, 0, &[0; 16], vec![]), Err(name), "{request:?}");
        }
    }
}

#[test]
fn c29_kicks_and_calls_as_messages() {
    let mut s = running();
    assert_eq!(s.state(Request::VringKick, 0, 0), Ok(1));
    assert!(s.slots[0].is_running());
}
