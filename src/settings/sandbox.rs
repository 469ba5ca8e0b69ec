//! How much the process gives up once it runs.

use serde::Deserialize;

/// What is kept of rights; docs/decisions/0019 says which thread keeps what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sandbox {
    /// Everything is given up but what ports need that may still be added; a system that does not let it is warned of.
    #[default]
    Auto,
    /// What the configured ports need not is given up, too; a system that does not let it is an error.
    Strict,
    /// Nothing is given up.
    Off,
}

impl Sandbox {
    /// As it is written in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Strict => "strict",
            Self::Off => "off",
        }
    }
}
