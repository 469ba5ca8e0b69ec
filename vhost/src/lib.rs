//! The vhost-user backend: protocol, guest memory, vrings, the virtio-net datapath.
