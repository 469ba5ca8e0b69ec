//! Why a device cannot be had, or does not answer.

use std::io;

/// What went wrong between us and a PCI function.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The operating system refused. Says what was tried, on which device, and where there is one the mend.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something that has to be there first is not. Says what, and the command that mends it.
    #[error("{0}")]
    Missing(String),
    /// The device has no such BAR, capability or interrupt, or one that is too small.
    #[error("{device} has {what}")]
    Lacks {
        /// Which device.
        device: String,
        /// What it lacks: "no BAR 3", "no MSI-X capability" ...
        what: String,
    },
    /// The device is not there any more: its registers read as all ones.
    #[error("{0} is gone")]
    Gone(String),
}

impl BusError {
    /// An error of the system's, with what was tried.
    pub fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Os { what, source }
    }
}
