//! End-to-end tests: the `polder` binary under Linux guests in QEMU, under DPDK's testpmd and under the host's own TAP; it
//! and the examples on NICs in `scripts/nic-lab`'s machine.
//!
//! `scripts/setup` installs what they need; `./test` runs it and then
//! `cargo test --release --test e2e -- --ignored --test-threads=1`. Without `--ignored` none of them runs, and with it
//! none is skipped: a test fails with the name of what is missing.

mod af_xdp_needs_root;
mod card;
mod console;
mod cpu_time;
mod deadline;
mod guest;
mod guests_on_one_switch_need_qemu;
mod lifecycle;
mod machine;
mod namespace;
mod nic;
mod polder;
mod process;
mod qmp;
mod reconnect_needs_qemu;
mod scene;
mod stats;
mod tap_needs_root_and_qemu;
mod tcp_beside_the_bridge_needs_root_and_qemu;
mod testpmd;
mod traffic;
mod undo;
mod virtio_user_needs_dpdk;
