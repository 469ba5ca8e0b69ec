//! The virtio-pci driver, unmodified, on a card in memory: bring-up, traffic in all formats, what a broken card may do (the N
//! cases of the hostile list that a model can show), and the life of a port on it.

mod bring_up;
mod device_memory;
mod frames;
mod lies;
mod life;
mod model;
mod offloads;
mod race;
mod scene;
mod traffic;
