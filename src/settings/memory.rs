//! Packet memory: how much, and on which pages.

use std::str::FromStr;

use serde::Deserialize;

const MIB: u64 = 1 << 20;
const MIN: u64 = 4 * MIB;
const MAX: u64 = 512 << 30;

/// Bytes of packet memory: 4M to 512G.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MemorySize(u64);

/// The size is none, or out of range.
#[derive(Debug, thiserror::Error)]
#[error(
    "memory size {0:?} is not a number of bytes from 4M to 512G; give for example 64M (K, M, G: powers of 1024)"
)]
pub(crate) struct BadMemorySize(String);

impl MemorySize {
    /// The size in bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for MemorySize {
    fn default() -> Self {
        Self(64 * MIB)
    }
}

impl FromStr for MemorySize {
    type Err = BadMemorySize;

    fn from_str(text: &str) -> Result<Self, BadMemorySize> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "" => Some(0),
            "K" | "k" => Some(10),
            "M" | "m" => Some(20),
            "G" | "g" => Some(30),
            _ => None,
        };
        let bytes = || digits.parse::<u64>().ok()?.checked_mul(1 << shift?);
        bytes().filter(|b| (MIN..=MAX).contains(b)).map(Self).ok_or_else(|| BadMemorySize(text.to_owned()))
    }
}

impl TryFrom<String> for MemorySize {
    type Error = BadMemorySize;

    fn try_from(text: String) -> Result<Self, BadMemorySize> {
        text.parse()
    }
}

/// Pages for packet memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hugepages {
    /// The largest that are there; 4 KiB pages, with a warning, if none are.
    #[default]
    Auto,
    /// 1 GiB or fail.
    #[serde(rename = "1g")]
    #[value(name = "1g")]
    Gib,
    /// 2 MiB or fail.
    #[serde(rename = "2m")]
    #[value(name = "2m")]
    Mib,
    /// 4 KiB.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64M", 64 << 20),
            ("4096k", 4 << 20),
            ("1G", 1 << 30),
            ("8388608", 8 << 20),
            ("512g", 512 << 30),
        ] {
            assert_eq!(text.parse::<MemorySize>().unwrap().bytes(), bytes, "{text}");
        }
        for bad in [
            "",
            "M",
            "1K",
            "2T",
            "-1M",
            "64MB",
            "1.5G",
            "64 M",
            "99999999999999999999",
            "18446744073709551615G",
            "6ä",
        ] {
            assert!(bad.parse::<MemorySize>().is_err(), "{bad}");
        }
    }
}
