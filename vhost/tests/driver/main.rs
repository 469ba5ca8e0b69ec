//! The driver's rings against the naive device of `driver_device`.

#[path = "../driver_device/mod.rs"]
mod driver_device;

mod both;
mod packed;
mod rig;
mod split;
