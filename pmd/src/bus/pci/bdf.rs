//! Where a PCI function sits.

use core::fmt;
use core::str::FromStr;

/// Domain, bus, device and function number: `0000:01:10.0`. Ordered as the bus is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bdf {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Not the address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no PCI address: write it as `polder nic list` shows it, for example 0000:01:10.0 or 01:10.0"
)]
pub struct BadBdf(String);

impl Bdf {
    /// The function at this place, if there can be one there: a bus has 32 devices of 8 functions.
    #[must_use]
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { domain, bus, device, function })
    }

    /// The segment group ("domain"): 0 but on large machines and behind Intel VMD.
    #[must_use]
    pub fn domain(self) -> u32 {
        self.domain
    }

    /// Bus number.
    #[must_use]
    pub fn bus(self) -> u8 {
        self.bus
    }

    /// Device number on its bus, 0 to 31.
    #[must_use]
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function number of its device, 0 to 7.
    #[must_use]
    pub fn function(self) -> u8 {
        self.function
    }

    fn read(text: &str) -> Option<Self> {
        let (place, function) = text.rsplit_once('.')?;
        let (rest, device) = place.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
        let narrow = |number: u32| u8::try_from(number).ok();
        Self::new(
            hex(domain, 4..=8)?,
            narrow(hex(bus, 2..=2)?)?,
            narrow(hex(device, 2..=2)?)?,
            narrow(hex(function, 1..=1)?)?,
        )
    }
}

/// A hexadecimal number of so many digits, and nothing else (a sign, which the standard library takes, is none).
fn hex(text: &str, digits: core::ops::RangeInclusive<usize>) -> Option<u32> {
    let fits = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Bdf {
    type Err = BadBdf;

    /// Reads `0000:01:10.0`, or `01:10.0` for domain 0.
    fn from_str(text: &str) -> Result<Self, BadBdf> {
        Self::read(text).ok_or_else(|| BadBdf(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_as_written() {
        for (text, whole) in [
            ("0000:01:10.0", "0000:01:10.0"),
            ("01:10.0", "0000:01:10.0"),
            ("10000:e1:00.7", "10000:e1:00.7"),
            ("0001:FF:1f.3", "0001:ff:1f.3"),
        ] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), whole);
        }
        let bdf: Bdf = "0001:02:1f.3".parse().unwrap();
        assert_eq!((bdf.domain(), bdf.bus(), bdf.device(), bdf.function()), (1, 2, 0x1f, 3));
    }

    #[test]
    fn what_is_none_is_refused_and_said() {
        for bad in [
            "",
            ".",
            ":",
            "01:10",
            "1:10.0",
            "01:20.0",
            "01:10.8",
            "01:10.0 ",
            "0:01:10.0",
            "+001:01:10.0",
            "00:01:10.0",
            "000000000:01:10.0",
            "0000:01:10.0/..",
            "0000:01:1.0",
            "x:01:10.0",
            "ä1:10.0",
        ] {
            let error = bad.parse::<Bdf>().unwrap_err();
            assert!(error.to_string().contains("polder nic list"), "{bad}");
        }
    }
}
