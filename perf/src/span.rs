//! A range of a frame's field, as a command line names it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Values from a first to a last one: `5`, `5-9`, `10.0.0.1-10.0.0.200`. Frames take them in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: u32,
    count: u32,
}

impl Span {
    /// One value.
    #[must_use]
    pub const fn one(value: u32) -> Self {
        Self { first: value, count: 1 }
    }

    /// The values from `first` to `last`; `None` if there are none.
    #[must_use]
    pub fn new(first: u32, last: u32) -> Option<Self> {
        let count = last.checked_sub(first)?.checked_add(1)?;
        Some(Self { first, count })
    }

    /// How many values: 1 or more.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The value of frame `i`.
    #[must_use]
    pub fn value(&self, i: usize) -> u32 {
        self.first + (i % self.count()) as u32
    }

    fn parse<T: FromStr>(text: &str, value: impl Fn(T) -> u32) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(value(first.parse().ok()?), value(last.parse().ok()?))
    }

    /// Reads a range of numbers of 16 bits: ports.
    ///
    /// # Errors
    /// What would be right.
    pub fn ports(text: &str) -> Result<Self, String> {
        Self::parse(text, |port: u16| port.into()).ok_or_else(|| "give PORT or FIRST-LAST, 0 to 65535".into())
    }

    /// Reads a range of VLAN identifiers.
    ///
    /// # Errors
    /// What would be right.
    pub fn vlans(text: &str) -> Result<Self, String> {
        Self::parse(text, |vlan: u16| vlan.into())
            .filter(|span| span.first >= 1 && span.value(span.count() - 1) <= 4094)
            .ok_or_else(|| "give VID or FIRST-LAST, 1 to 4094".into())
    }

    /// Reads a range of IPv4 addresses.
    ///
    /// # Errors
    /// What would be right.
    pub fn addresses(text: &str) -> Result<Self, String> {
        Self::parse(text, |address: Ipv4Addr| address.to_bits())
            .ok_or_else(|| "give ADDRESS or FIRST-LAST, IPv4".into())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.count > 1 { write!(f, "-{}", self.first + self.count - 1) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_gone_through() {
        let span = Span::ports("7-9").unwrap();
        assert_eq!((0..4).map(|i| span.value(i)).collect::<Vec<_>>(), [7, 8, 9, 7]);
        assert_eq!(Span::addresses("10.0.0.254-10.0.1.1").unwrap().count(), 4);
        assert_eq!(Span::vlans("100").unwrap(), Span::one(100));
        for bad in ["", "9-7", "65536", "x", "1-2-3"] {
            assert!(Span::ports(bad).is_err(), "{bad}");
        }
        for bad in ["0", "4095", "1-4095"] {
            assert!(Span::vlans(bad).is_err(), "{bad}");
        }
    }
}
