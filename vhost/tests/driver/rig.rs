//! A driver's ring and its device, of either format.

use std::num::Wrapping;

use vhost::driver::{Cut, GuestRam, NetHdr, RamConfig, RingConfig, RxRing, TxRing};
use vhost::wire::net::{F_RING_PACKED, F_VERSION_1, hdr_len};

use crate::driver_device::packed::PackedDevice;
use crate::driver_device::split::SplitDevice;
use crate::driver_device::{Chain, Device};

pub(crate) const CUTS: [Cut; 4] =
    [Cut::Whole, Cut::HeaderApart, Cut::Pieces { first: 1, rest: 7 }, Cut::Pieces { first: 40, rest: 100 }];

/// What the two formats do not have in common.
pub(crate) trait Format {
    type Device: Device;

    /// Without which there is no such ring.
    const FEATURES: u64;

    /// Ring sizes to try.
    fn sizes() -> Vec<u16>;

    /// A size near `size` that is as odd as the format allows.
    fn odd(size: u16) -> u16;
}

pub(crate) struct Split;

impl Format for Split {
    type Device = SplitDevice;

    const FEATURES: u64 = 0;

    fn sizes() -> Vec<u16> {
        (0..=15).map(|bit| 1 << bit).collect()
    }

    fn odd(size: u16) -> u16 {
        size.next_power_of_two()
    }
}

pub(crate) struct Packed;

impl Format for Packed {
    type Device = PackedDevice;

    const FEATURES: u64 = F_VERSION_1 | F_RING_PACKED;

    fn sizes() -> Vec<u16> {
        (1..=33).chain([256, 1000, 32_768]).collect()
    }

    fn odd(size: u16) -> u16 {
        size - 1
    }
}

/// With buffers of 128 bytes, starting shortly before the ring's and the index's wrap.
pub(crate) fn config<F: Format>(size: u16) -> RingConfig {
    let base = 0u16.wrapping_sub(size / 2 + 1);
    RingConfig { size, base, buffer_bytes: 128, features: F::FEATURES, ..RingConfig::default() }
}

fn ram(config: &RingConfig) -> GuestRam {
    let bytes = usize::from(config.size) * 512 + (4 << 20);
    GuestRam::new(RamConfig { bytes, gpa_base: 0x4000_0000, ..RamConfig::default() }).unwrap()
}

pub(crate) fn tx<F: Format>(config: RingConfig) -> (TxRing, F::Device) {
    let ram = ram(&config);
    let ring = TxRing::new(&ram, config).unwrap();
    let device = F::Device::of(ring.queue(), &ram);
    (ring, device)
}

/// All its buffers are with the device.
pub(crate) fn rx<F: Format>(config: RingConfig) -> (RxRing, F::Device) {
    let ram = ram(&config);
    let mut ring = RxRing::new(&ram, config).unwrap();
    let device = F::Device::of(ring.queue(), &ram);
    ring.refill();
    (ring, device)
}

pub(crate) fn frame(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (Wrapping(n) * Wrapping(2_654_435_761) + Wrapping(i * 97)).0 as u8).collect()
}

pub(crate) fn hdr(n: u64) -> NetHdr {
    NetHdr {
        flags: n as u8,
        gso_type: 1,
        gso_size: n as u16,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

/// Header and frame as they lie in a buffer.
pub(crate) fn packet(features: u64, hdr: NetHdr, frame: &[u8]) -> Vec<u8> {
    [&hdr.to_bytes()[..hdr_len(features)], frame].concat()
}

/// A packet as the device writes it, mergeable.
pub(crate) fn merged(num_buffers: u16, frame: &[u8]) -> Vec<u8> {
    packet(F_VERSION_1, NetHdr { num_buffers, ..NetHdr::default() }, frame)
}

/// Writes `frame` as one packet over as many buffers of `buffer_bytes` as it takes.
pub(crate) fn deliver(device: &mut impl Device, frame: &[u8], buffer_bytes: usize) {
    let num_buffers = (12 + frame.len()).div_ceil(buffer_bytes) as u16;
    let packet = merged(num_buffers, frame);
    let mut done = 0;
    for _ in 0..num_buffers {
        let chain: Chain = device.take().unwrap();
        let len = device.write(&chain, &packet[done..]);
        device.give(&chain, len);
        done += len;
    }
    device.publish();
}
