//! The ports without a NIC, each with real traffic. Those of the kernel's interfaces need root.

mod af_packet;
mod af_xdp;
mod frames;
mod loopback;
mod namespace;
mod null;
mod pcap;
mod tap;
mod traffic;
