//! RFC 2889's benchmarks of what a switch learns.
//!
//! Three ports: *learning*, where stations are; *test*, which sends to them; *monitor*, which must see nothing. A frame that
//! arrives at the monitor was flooded: its station was not known.
//!
//! | what | here | RFC 2889 |
//! |---|---|---|
//! | address caching capacity | the most stations of which each is found again | §5.7 |
//! | address learning rate | the highest rate at which stations can appear so that each is found again | §5.8 |

use std::time::{Duration, Instant};

use vhost::driver::{NetHdr, PostError, VirtioNet, VirtioNetConfig};

use crate::dut::{Dut, DutConfig};
use crate::endpoint::EndpointSpec;
use crate::pattern::mac;

/// Most stations that are tried: all addresses that [`mac`] makes for one endpoint.
pub const MOST: u32 = 1 << 16;
/// Frames on their way at a time: fewer than a ring has room for, so that none is lost.
const IN_FLIGHT: usize = 128;
/// Without an answer for so long, a frame is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// After so long without a frame, none is on its way.
const QUIET: Duration = Duration::from_millis(100);

/// A device with three guests.
struct Bench {
    learning: VirtioNet,
    test: VirtioNet,
    monitor: VirtioNet,
    _dut: Dut,
}

/// What a trial saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Frames that reached their station.
    found: u32,
    /// Frames that reached the monitor, too.
    flooded: u32,
}

impl Bench {
    /// A fresh device: one that knows no address.
    fn new(config: &DutConfig) -> Result<Self, String> {
        let dut = Dut::start(&DutConfig { ports: 3, ..*config })?;
        let mut guests = dut.guests().into_iter().map(|guest| match guest {
            EndpointSpec::Guest(guest) => {
                let config = VirtioNetConfig { queue_size: 256, ..VirtioNetConfig::default() };
                VirtioNet::connect(&guest.path, config).map_err(|e| e.to_string())
            }
            EndpointSpec::Port(_) => Err("a device's guests are guests".into()),
        });
        let mut next = || guests.next().ok_or_else(|| "three ports".to_owned())?;
        let (learning, test, monitor) = (next()?, next()?, next()?);
        drop(guests);
        Ok(Self { learning, test, monitor, _dut: dut })
    }

    /// Has `stations` appear at the learning port, `rate` a second.
    fn learn(&mut self, stations: u32, rate: Option<f64>) -> Result<(), String> {
        let (start, mut came) = (Instant::now(), 0);
        for station in 0..stations {
            if let Some(rate) = rate {
                while start.elapsed().as_secs_f64() * rate < f64::from(station) {
                    std::hint::spin_loop();
                }
            }
            let frame = frame([0xff; 6], mac(0, station as u16));
            send(&mut self.learning, &frame)?;
            // Floods go to the other two: their rings are kept free.
            came += self.empty()?;
        }
        // What has come to both others was learned from. A flood that found no room has been, too: it is not waited for long.
        let mut since = Instant::now();
        while came < 2 * stations as usize && since.elapsed() < PATIENCE / 4 {
            let more = self.empty()?;
            came += more;
            if more > 0 {
                since = Instant::now();
            }
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<usize, String> {
        Ok(receive(&mut self.test, usize::MAX)? + receive(&mut self.monitor, usize::MAX)?)
    }

    /// Sends one frame to each station; how many found it, and how many were flooded.
    fn find(&mut self, stations: u32) -> Result<Seen, String> {
        let (mut seen, mut sent, mut since) = (Seen::default(), 0, Instant::now());
        while seen.found < stations && since.elapsed() < PATIENCE {
            if sent < stations && ((sent - seen.found) as usize) < IN_FLIGHT {
                send(&mut self.test, &frame(mac(0, sent as u16), mac(1, 0)))?;
                sent += 1;
            }
            let came = receive(&mut self.learning, IN_FLIGHT)? as u32;
            seen.found += came;
            seen.flooded += receive(&mut self.monitor, IN_FLIGHT)? as u32;
            if came > 0 {
                since = Instant::now();
            }
        }
        // A flood reaches one port before the other.
        let mut quiet = Instant::now();
        while quiet.elapsed() < QUIET {
            let came = receive(&mut self.monitor, usize::MAX)? as u32;
            seen.flooded += came;
            if came > 0 {
                quiet = Instant::now();
            }
        }
        Ok(seen)
    }
}

/// The shortest frame, of local experiments' EtherType.
fn frame(to: [u8; 6], from: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&vhost::driver::traffic::ETHERTYPE);
    frame
}

fn send(guest: &mut VirtioNet, frame: &[u8]) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        match guest.send(frame, NetHdr::default()) {
            Ok(()) => return Ok(()),
            Err(PostError::Full) if Instant::now() < end => std::hint::spin_loop(),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn receive(guest: &mut VirtioNet, most: usize) -> Result<usize, String> {
    let rx = &mut guest.pairs()[0].rx;
    let n = rx.poll(most, |_| ()).map_err(|e| e.to_string())?;
    rx.refill();
    Ok(n)
}

/// Whether a fresh device finds each of `stations` that appear at `rate`.
fn finds_all(config: &DutConfig, stations: u32, rate: Option<f64>) -> Result<bool, String> {
    let mut bench = Bench::new(config)?;
    bench.learn(stations, rate)?;
    Ok(bench.find(stations)? == Seen { found: stations, flooded: 0 })
}

/// RFC 2889 §5.7: the most stations that are all found again, to about 1 %; [`MOST`] if more were not tried.
///
/// # Errors
/// What the device did wrong.
pub fn caching_capacity(config: &DutConfig, tick: &dyn Fn()) -> Result<u32, String> {
    let holds = |stations: u32| {
        let holds = finds_all(config, stations, None);
        tick();
        holds
    };
    let most = MOST - 1;
    if holds(most)? {
        return Ok(most);
    }
    let (mut good, mut bad) = (0, most);
    while bad - good > (bad / 100).max(1) {
        let stations = good.midpoint(bad);
        if holds(stations)? {
            good = stations;
        } else {
            bad = stations;
        }
    }
    Ok(good)
}

/// RFC 2889 §5.8: the highest rate, in stations a second, at which `stations` can appear so that all are found again; to about
/// 10 %, `most` at most (what the generator can do, say).
///
/// # Errors
/// What the device did wrong.
pub fn learning_rate(config: &DutConfig, stations: u32, most: f64, tick: &dyn Fn()) -> Result<f64, String> {
    let learns = |rate: f64| {
        let learns = finds_all(config, stations, Some(rate));
        tick();
        learns
    };
    if learns(most)? {
        return Ok(most);
    }
    let (mut good, mut bad) = (0.0, most);
    while bad - good > bad / 10.0 {
        let rate = (good + bad) / 2.0;
        if learns(rate)? {
            good = rate;
        } else {
            bad = rate;
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_table_has_its_capacity_and_no_more() {
        let config = DutConfig { spin: false, macs: Some(1024), ..DutConfig::default() };
        assert_eq!(finds_all(&config, 200, None), Ok(true));
        assert_eq!(finds_all(&config, 3000, None), Ok(false), "more than it can know");
    }

    #[test]
    fn unknown_stations_are_flooded_to_the_monitor() {
        let mut bench = Bench::new(&DutConfig { spin: false, ..DutConfig::default() }).unwrap();
        bench.learn(10, Some(1000.0)).unwrap();
        assert_eq!(bench.find(10).unwrap(), Seen { found: 10, flooded: 0 });
        assert_eq!(bench.find(15).unwrap(), Seen { found: 15, flooded: 5 });
    }
}
