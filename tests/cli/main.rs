//! The command line from outside: what `polder` prints, and how it ends. Needs no root, no hugepages, no guest.

mod arguments;
mod configuration;
mod control_socket;
mod daemon;
mod demo;
mod descriptors;
mod doctor;
mod files;
#[path = "../../pmd/tests/pci/kernel.rs"]
mod kernel;
mod nic;
mod notify;
mod ports;
mod run;
mod sandbox;
#[path = "../hostile/silent_file.rs"]
mod silent_file;
mod stuck;
mod threads;
mod traffic;
#[path = "../../pmd/tests/pci/tree.rs"]
mod tree;
