//! Names of ports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
const MAX_NAME: usize = 31;

/// A port's name: 1 to 31 of the characters `A-Z a-z 0-9 _ . -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PortName(String);

/// The name breaks the rule.
#[derive(Debug, thiserror::Error)]
#[error("port name {0:?} is not 1 to 31 of the characters A-Z a-z 0-9 _ . -")]
pub(crate) struct BadPortName(String);

impl FromStr for PortName {
    type Err = BadPortName;

    fn from_str(text: &str) -> Result<Self, BadPortName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(allowed) {
            return Err(BadPortName(text.chars().take(2 * MAX_NAME).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for PortName {
    type Error = BadPortName;

    fn try_from(text: String) -> Result<Self, BadPortName> {
        text.parse()
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        for good in ["a", "vm-1.eth0_x", &"n".repeat(31)] {
            assert!(good.parse::<PortName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"n".repeat(32)] {
            assert!(bad.parse::<PortName>().is_err(), "{bad}");
        }
    }
}
