//! A NIC's port around a driver that exists only here: what becomes of rings, packets and mbufs when the device misbehaves,
//! goes away and comes back. Drivers have tests of their own, over models of their devices.

mod fake;
mod life;
