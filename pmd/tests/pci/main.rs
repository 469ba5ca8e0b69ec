//! PCI by sysfs, on made-up trees in a temporary folder. Needs no root and no NIC.

mod change;
mod kernel;
mod read;
mod tree;
