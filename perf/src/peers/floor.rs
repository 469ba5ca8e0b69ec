//! The floor: not a device, but what is left of one when it does nothing but move frames.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use super::process::Process;
use super::{Programs, Setup};

/// How the floor moves frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// At once, at most: 1 to 256.
    pub burst: u16,
    /// How often each is copied: 1 or 2.
    pub copies: u8,
}

impl Default for Floor {
    /// Bursts as the generator posts them, one copy.
    fn default() -> Self {
        Self { burst: 64, copies: 1 }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = if self.copies == 1 { "1 copy" } else { "2 copies" };
        write!(f, "floor (bare loop, burst {}, {copies})", self.burst)
    }
}

impl FromStr for Floor {
    type Err = String;

    /// `BURST` or `BURSTxCOPIES`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (burst, copies) = text.split_once('x').unwrap_or((text, "1"));
        let burst = burst.parse().ok().filter(|burst| (1..=256).contains(burst));
        let copies = copies.parse().ok().filter(|copies| (1..=2).contains(copies));
        match (burst, copies) {
            (Some(burst), Some(copies)) => Ok(Self { burst, copies }),
            _ => Err(format!("floor:{text}: give floor:BURST or floor:BURSTxCOPIES, as in floor:256x2")),
        }
    }
}

pub(super) fn start(
    floor: Floor,
    programs: &Programs,
    folder: &Path,
    setup: &Setup<'_>,
) -> Result<Vec<Process>, String> {
    let mut command = Command::new(&programs.floor);
    let [cpu, queues] = [setup.cpu.to_string(), setup.queues.to_string()];
    let [burst, copies] = [floor.burst.to_string(), floor.copies.to_string()];
    command.args(["--cpu", &cpu, "--queues", &queues, "--burst", &burst, "--copies", &copies]);
    command.args(setup.sockets);
    Ok(vec![Process::start(command, &folder.join("floor.log"))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_read_and_named() {
        let floor: Floor = "256x2".parse().unwrap();
        assert_eq!(floor.to_string(), "floor (bare loop, burst 256, 2 copies)");
        assert_eq!("64".parse(), Ok(Floor::default()));
        for bad in ["", "0", "257", "64x3", "64x"] {
            assert!(bad.parse::<Floor>().is_err(), "{bad}");
        }
    }
}
