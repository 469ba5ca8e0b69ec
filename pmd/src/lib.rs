//! The port traits and the ports that need no guest.
