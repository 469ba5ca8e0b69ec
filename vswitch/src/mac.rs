//! Ethernet addresses, as people write them and as the FDB compares them.

use std::fmt;
use std::str::FromStr;

/// The 48 bits of an address inside the first eight bytes of a frame's address field, read as a little-endian word.
pub(crate) const MAC_BITS: u64 = (1 << 48) - 1;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// What was given is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an Ethernet address: write six hex pairs, as in 52:54:00:12:34:56")]
pub struct MacParseError(String);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group (multicast or broadcast).
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it can be a station's own: neither a group nor zero.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    pub(crate) fn to_word(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    pub(crate) fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = word.to_le_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let wrong = || MacParseError(text.to_owned());
        let mut bytes = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_word_lead_back() {
        let mac: Mac = "52:54:00:12:34:AB".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:12:34:ab");
        assert_eq!(Mac::from_word(mac.to_word()), mac);
        assert!(mac.is_station() && !mac.is_group());
        assert!(Mac::BROADCAST.is_group() && !Mac([0; 6]).is_station());
    }

    #[test]
    fn what_is_no_address_is_named() {
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5g",
            "+5:54:00:12:34:56",
            "525:4:00:12:34:56",
        ] {
            let error = bad.parse::<Mac>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
