//! What an operator may set of a NIC's port.

/// Settings that every driver understands. What a device cannot do is refused when it is opened, not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicOptions {
    /// Queue pairs to run; `None`: all that the device has.
    pub queues: Option<u16>,
    /// Descriptors of each receive ring: a power of two, 64 to 4096.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit ring: a power of two, 64 to 4096.
    pub tx_descriptors: u16,
}

impl NicOptions {
    /// What is taken where nothing is said.
    pub const DEFAULT: Self = Self { queues: None, rx_descriptors: 512, tx_descriptors: 512 };
}

impl Default for NicOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}
