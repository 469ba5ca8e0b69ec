//! Somebody else's front end: the one of rust-vmm's `vhost`, which Cloud Hypervisor uses.

mod session_raw;

use std::os::fd::AsRawFd;

use pmd::{Link, Port};
use rust_vmm_vhost::vhost_user::message::VhostUserHeaderFlag;
use rust_vmm_vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures as Protocol};
use rust_vmm_vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use session_raw::{Fixture, MEMORY, VA, addr, memfd};
use vhost::wire::net::F_RING_PACKED;
use vmm_sys_util::eventfd::EventFd;

const PAIRS: u16 = 2;
const SIZE: u16 = 256;

fn region(fd: &impl AsRawFd, gpa: u64, userspace_addr: u64) -> VhostUserMemoryRegionInfo {
    let (memory_size, mmap_handle) = (MEMORY, fd.as_raw_fd());
    VhostUserMemoryRegionInfo {
        guest_phys_addr: gpa,
        memory_size,
        userspace_addr,
        mmap_offset: 0,
        mmap_handle,
    }
}

fn ring(index: usize) -> VringConfigData {
    let addr = addr(index as u32);
    VringConfigData {
        queue_max_size: SIZE,
        queue_size: SIZE,
        flags: 0,
        desc_table_addr: addr.desc,
        used_ring_addr: addr.used,
        avail_ring_addr: addr.avail,
        log_addr: None,
    }
}

fn start_ring(front_end: &mut Frontend, index: usize) {
    let (kick, call) = (EventFd::new(0).expect("eventfd"), EventFd::new(0).expect("eventfd"));
    front_end.set_vring_num(index, SIZE).expect("SET_VRING_NUM");
    front_end.set_vring_addr(index, &ring(index)).expect("SET_VRING_ADDR");
    front_end.set_vring_base(index, 5).expect("SET_VRING_BASE");
    front_end.set_vring_call(index, &call).expect("SET_VRING_CALL");
    front_end.set_vring_err(index, &call).expect("SET_VRING_ERR");
    front_end.set_vring_kick(index, &kick).expect("SET_VRING_KICK");
    front_end.set_vring_enable(index, true).expect("SET_VRING_ENABLE");
}

#[test]
fn rust_vmm_s_front_end_from_hello_to_goodbye() {
    let f = Fixture::server(PAIRS);
    let mut front_end = Frontend::connect(&f.path, 2 * u64::from(PAIRS)).expect("connect");
    front_end.set_owner().expect("SET_OWNER");
    let features = front_end.get_features().expect("GET_FEATURES");
    let offered = front_end.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
    let wanted = Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS | Protocol::RESET_DEVICE;
    assert!(offered.contains(wanted), "{offered:?}");
    front_end.set_protocol_features(offered & wanted).expect("SET_PROTOCOL_FEATURES");
    front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(front_end.get_queue_num().expect("GET_QUEUE_NUM"), 2 * u64::from(PAIRS));
    // Its bases have 16 bits: it knows no packed rings.
    front_end.set_features(features & !F_RING_PACKED).expect("SET_FEATURES");
    let (low, high) = (memfd(MEMORY), memfd(MEMORY));
    front_end.set_mem_table(&[region(&low, 0, VA)]).expect("SET_MEM_TABLE");
    for index in 0..2 * usize::from(PAIRS) {
        start_ring(&mut front_end, index);
    }
    assert_eq!(f.port.link(), Link::Up);
    assert_eq!(front_end.get_max_mem_slots().expect("GET_MAX_MEM_SLOTS"), 509);
    let more = region(&high, 1 << 32, VA + (1 << 32));
    front_end.add_mem_region(&more).expect("ADD_MEM_REG");
    front_end.remove_mem_region(&more).expect("REM_MEM_REG");
    front_end.add_mem_region(&region(&high, 0, VA)).expect_err("another file in its place");
    assert_eq!(f.port.link(), Link::Up, "a refusal ends nothing");
    for index in 0..2 * usize::from(PAIRS) {
        assert_eq!(front_end.get_vring_base(index).expect("GET_VRING_BASE"), 5);
    }
    assert_eq!(f.port.link(), Link::Down);
    front_end.reset_device().expect("RESET_DEVICE");
    front_end.reset_owner().expect("RESET_OWNER");
    drop(front_end);
    f.wait_for("closed_by_front_end", 1);
}
