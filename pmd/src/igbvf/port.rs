//! The driver: a VF from its opening to its end.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use super::mailbox::{Mailbox, News};
use super::rx::take_back;
use super::stats::Stats;
use super::{IgbvfRx, IgbvfTx, Kind, regs};
use crate::bus::{BusError, PciDevice, Registers};
use crate::nic::{Health, NicDriver, NicError, NicOptions, Rings};
use crate::{Link, QueueEnv};

/// The vector of each receive queue, and the mailbox's. In the order that Linux' driver has them: QEMU's card adds what is
/// written to VTIVAR to what somebody wrote before, and so both are right.
pub(super) const RX_VECTORS: [usize; 2] = [1, 0];
pub(super) const MAILBOX_VECTOR: usize = 2;
/// Ethernet's longest frame without a tag and FCS, and the longest that the PF is asked for.
pub(super) const STANDARD_FRAME: usize = 1514;
pub(super) const JUMBO_FRAME: usize = 9014;
/// Looks, 10 ms each, from one reading of the counters to the next.
const STATS_EVERY: u32 = 10;

/// A virtual function of an 82576 or I350.
pub struct Igbvf<D: PciDevice> {
    pub(super) device: D,
    pub(super) bar: Arc<D::Bar>,
    pub(super) kind: Kind,
    pub(super) options: NicOptions,
    pub(super) pairs: usize,
    pub(super) mailbox: Mailbox<D::Bar>,
    /// What the vectors signal, if there are enough of them.
    pub(super) events: Option<Arc<[OwnedFd]>>,
    pub(super) mac: [u8; 6],
    /// The MAC that we made up because the PF had none: the same one as long as we live.
    pub(super) made_up: Option<[u8; 6]>,
    pub(super) max_frame: usize,
    pub(super) receives: Receives,
    pub(super) vlans: Arc<[u16]>,
    status: u32,
    /// Whether the link is up and not paused, for the rings.
    pub(super) may_send: Arc<AtomicBool>,
    pub(super) stats: Stats,
    looks: u32,
    pub(super) is_running: bool,
}

/// What the PF lets the VF receive beside its own MAC and broadcasts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receives {
    pub(super) all_unicast: bool,
    pub(super) all_multicast: bool,
}

impl<D: PciDevice> std::fmt::Debug for Igbvf<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Igbvf")
            .field("device", &self.device.name())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<D: PciDevice> Igbvf<D> {
    /// Opens a VF, without changing anything in it yet.
    ///
    /// # Errors
    /// [`NicError`] if it is none of ours, is gone, or cannot do what `options` ask for.
    pub fn new(device: D, options: &NicOptions) -> Result<Self, NicError> {
        let name = device.name().to_owned();
        let refused = |what: String| NicError::Refused { device: name.clone(), what };
        let ids = device.ids();
        let kind = Kind::of(&ids).ok_or_else(|| {
            refused(format!(
                "is no 82576 or I350 virtual function, but {:04x}:{:04x}",
                ids.vendor, ids.device
            ))
        })?;
        let pairs = options.queues.map_or(kind.queue_pairs(), usize::from);
        if pairs == 0 || pairs > kind.queue_pairs() {
            return Err(refused(format!("has {} queue pairs; {pairs} were asked for", kind.queue_pairs())));
        }
        for n in [options.rx_descriptors, options.tx_descriptors] {
            if !n.is_power_of_two() || !(64..=4096).contains(&n) {
                return Err(refused(format!(
                    "takes rings of 64 to 4096 descriptors, a power of two, not {n}"
                )));
            }
        }
        let bar = device.bar(0)?;
        if bar.size() < regs::BAR_SIZE {
            let what = format!("a BAR 0 of {} bytes, not {}", bar.size(), regs::BAR_SIZE);
            return Err(BusError::Lacks { device: name, what }.into());
        }
        Ok(Self {
            mailbox: Mailbox::new(Arc::clone(&bar), name),
            events: events(device.vectors())?,
            device,
            bar,
            kind,
            options: *options,
            pairs,
            mac: [0; 6],
            made_up: None,
            max_frame: STANDARD_FRAME,
            receives: Receives::default(),
            vlans: Arc::new([]),
            status: 0,
            may_send: Arc::new(AtomicBool::new(false)),
            stats: Stats::default(),
            looks: 0,
            is_running: false,
        })
    }

    /// Has it receive these VLANs' frames, tagged, from the next start on: a PF keeps VLANs apart that nobody asked for.
    #[must_use]
    pub fn with_vlans(mut self, vlans: &[u16]) -> Self {
        self.vlans = vlans.into();
        self
    }

    /// Reads link and speed.
    pub(super) fn read_status(&mut self) -> Result<(), NicError> {
        let status = self.bar.read32(regs::VTSTATUS);
        if status == u32::MAX || self.bar.is_gone() {
            return Err(BusError::Gone(self.device.name().to_owned()).into());
        }
        self.status = status;
        let may_send = status & (regs::STATUS_LU | regs::STATUS_TXOFF) == regs::STATUS_LU;
        self.may_send.store(may_send, Ordering::Relaxed);
        Ok(())
    }

    fn speed(&self) -> String {
        let speed = match (self.status & regs::STATUS_SPEED) >> 6 {
            0 => 10,
            1 => 100,
            _ => 1000,
        };
        let duplex = if self.status & regs::STATUS_FD == 0 { "half" } else { "full" };
        format!("{speed} Mb/s {duplex} duplex")
    }

    fn mac_told(&self) -> String {
        let mut mac = String::new();
        for byte in self.mac {
            // Writing to a string does not fail.
            let _ = write!(mac, "{}{byte:02x}", if mac.is_empty() { "" } else { ":" });
        }
        if self.made_up == Some(self.mac) {
            mac.push_str(" (made up; `ip link set PF vf N mac MAC` gives it a lasting one)");
        }
        mac
    }

    fn receives_told(&self) -> String {
        let unicast = if self.receives.all_unicast { "all unicast" } else { "unicast to its MAC" };
        let multicast = if self.receives.all_multicast { "all multicast" } else { "broadcasts only" };
        format!("{unicast}, {multicast}")
    }
}

/// One for each vector.
fn events(vectors: usize) -> Result<Option<Arc<[OwnedFd]>>, NicError> {
    if vectors < regs::VECTORS {
        return Ok(None);
    }
    let one = |_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let all: Result<Vec<_>, _> = (0..regs::VECTORS).map(one).collect();
    let all = all.map_err(|e| BusError::os("eventfd for interrupts")(e.into()))?;
    Ok(Some(all.into()))
}

impl<D: PciDevice> NicDriver for Igbvf<D> {
    type Rx = IgbvfRx<D::Bar>;
    type Tx = IgbvfTx<D::Bar>;

    fn name(&self) -> &'static str {
        "igbvf"
    }

    fn queue_pairs(&self) -> usize {
        self.pairs
    }

    fn start(&mut self, env: QueueEnv) -> Result<Rings<Self::Rx, Self::Tx>, NicError> {
        self.bring_up(env)
    }

    fn stop(&mut self) {
        self.take_down();
    }

    fn look(&mut self) -> Health {
        if let Some(events) = &self.events {
            take_back(&events[MAILBOX_VECTOR]);
        }
        if self.read_status().is_err() {
            return Health::Gone;
        }
        match self.mailbox.news() {
            News::Gone => return Health::Gone,
            News::StartOver(why) => return Health::Reset(why),
            News::None => {}
        }
        // N8: a reset from elsewhere says nothing, but leaves the queues off.
        match self.bar.read32(regs::rx(0) + regs::DCTL) {
            u32::MAX => return Health::Gone,
            on if on & regs::DCTL_ENABLE == 0 => {
                return Health::Reset("the device was reset by somebody else");
            }
            _ => {}
        }
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(STATS_EVERY) {
            self.stats.read(&*self.bar);
        }
        Health::Good
    }

    fn link(&self) -> Link {
        if self.status & regs::STATUS_LU == 0 { Link::Down } else { Link::Up }
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![
            ("card", self.kind.name().to_owned()),
            ("mac", self.mac_told()),
            ("speed", self.speed()),
            ("queue pairs", self.pairs.to_string()),
            ("receives", self.receives_told()),
            ("offloads", "tx csum tso4 tso6, rx csum".to_owned()),
        ];
        if !self.vlans.is_empty() {
            details.push(("vlans", self.vlans.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")));
        }
        details.extend(self.stats.details());
        details
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        self.events.iter().map(|events| events[MAILBOX_VECTOR].as_fd()).collect()
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        self.device.removal()
    }

    /// The card hands a group's frame to every function that wants it, the one that sent it included.
    fn reflects(&self) -> bool {
        true
    }

    fn rx_event(&self, pair: usize) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(|events| events[RX_VECTORS[pair]].as_fd())
    }
}

impl<D: PciDevice> Drop for Igbvf<D> {
    fn drop(&mut self) {
        self.take_down();
    }
}
