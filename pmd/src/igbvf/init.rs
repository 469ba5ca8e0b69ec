//! Bringing a VF up and taking it down, step by step. Steps 1 to 4 are what the 82576 datasheet's chapter 4 (initialization)
//! and its SR-IOV companion guide have a VF driver do; 5 to 7 its chapters 7.1 (receive), 7.2 (transmit), 7.3 (interrupts).

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mbuf::Mempool;

use super::mailbox::{PROMISC_MULTICAST, PROMISC_UNICAST};
use super::offload::Limits;
use super::port::{JUMBO_FRAME, MAILBOX_VECTOR, RX_VECTORS, Receives, STANDARD_FRAME};
use super::regs::{self, BAH, BAL, DCA, DCTL, DCTL_ENABLE, HEAD, LEN, SRRCTL, TAIL, TDWBAH, TDWBAL};
use super::rx::{IgbvfRx, NoRing, RxParts};
use super::tx::{IgbvfTx, TxParts};
use super::{Igbvf, Kind};
use crate::QueueEnv;
use crate::bus::{PciDevice, Registers};
use crate::nic::{NicError, Reach, Rings};

/// A queue is on within microseconds after it was told to be.
const QUEUE_PATIENCE: Duration = Duration::from_millis(100);
/// FCS, and two VLAN tags.
const FCS: usize = 4;
const TAGS: usize = 8;
/// Least time between two interrupts of a vector: an lcore that wakes polls from then on anyway.
const INTERVAL_US: u32 = 20;
/// SRRCTL's unit; and the most of them that we use: longer buffers than the longest frame hold nothing.
const KIB: usize = 1024;
const MOST_KIB: usize = 10;
/// Descriptors fetched ahead, and how many have to be there for it.
const PREFETCH: u32 = 8;
const HOST: u32 = 1;
const ALL_VECTORS: u32 = (1 << regs::VECTORS) - 1;

type StartedRings<D> = Rings<IgbvfRx<<D as PciDevice>::Bar>, IgbvfTx<<D as PciDevice>::Bar>>;

impl<D: PciDevice> Igbvf<D> {
    /// Brings the VF up, from whatever state it is in.
    pub(super) fn bring_up(&mut self, env: QueueEnv) -> Result<StartedRings<D>, NicError> {
        self.take_down();
        self.is_running = true;
        let rings = self.prepare().and_then(|()| self.make_rings(env));
        let rings = rings.and_then(|rings| match self.switch_on(&rings) {
            Ok(()) => Ok(rings),
            Err(error) => {
                // The device may know the rings by now: they are dropped behind this.
                self.take_down();
                Err(error)
            }
        });
        if rings.is_err() {
            self.take_down();
        }
        rings
    }

    /// Steps 1 to 3: nothing yet that the device could write to.
    fn prepare(&mut self) -> Result<(), NicError> {
        self.read_status()?;
        self.device.set_bus_master(true)?;
        self.reset()?;
        self.agree_with_pf()?;
        self.stats.start(&*self.bar);
        Ok(())
    }

    /// 1. Reset: interrupts off, VTCTRL.RST, then wait until the PF is not in reset itself.
    fn reset(&mut self) -> Result<(), NicError> {
        self.bar.write32(regs::VTEIMC, ALL_VECTORS);
        self.bar.write32(regs::VTCTRL, regs::VTCTRL_RST);
        self.mailbox.wait_for_pf()
    }

    /// 2. and 3. Tell the PF, which lets the VF receive and send from then on, and ask it for all that is ours to have.
    fn agree_with_pf(&mut self) -> Result<(), NicError> {
        self.mac = match self.mailbox.reset()? {
            Some(mac) => mac,
            None => self.make_up_mac()?,
        };
        let jumbo = (JUMBO_FRAME + TAGS + FCS) as u32;
        self.max_frame = if self.mailbox.set_max_frame(jumbo)? { JUMBO_FRAME } else { STANDARD_FRAME };
        self.receives = self.ask_for_all()?;
        for vlan in self.vlans.iter() {
            if !self.mailbox.add_vlan(*vlan)? {
                tracing::warn!(device = self.device.name(), vlan, "the PF denies the VF this VLAN");
            }
        }
        Ok(())
    }

    /// A MAC of our own, locally administered, if the PF agrees.
    fn make_up_mac(&mut self) -> Result<[u8; 6], NicError> {
        let mac = *self.made_up.get_or_insert_with(random_mac);
        if !self.mailbox.set_mac(mac)? {
            let what = "has no MAC, and its PF denies it one of its own; mend: `ip link set PF vf N mac MAC`";
            return Err(NicError::Refused { device: self.device.name().to_owned(), what: what.to_owned() });
        }
        tracing::warn!(
            device = self.device.name(),
            "the PF has no MAC for this VF, it was given one at random; mend: `ip link set PF vf N mac MAC`"
        );
        Ok(mac)
    }

    /// A switch wants to see everything. Linux' PF grants multicast; unicast to others only some PFs.
    fn ask_for_all(&mut self) -> Result<Receives, NicError> {
        let all_unicast = self.mailbox.set_promiscuous(PROMISC_UNICAST | PROMISC_MULTICAST)?;
        let all_multicast = all_unicast
            || self.mailbox.set_promiscuous(PROMISC_MULTICAST)?
            || self.mailbox.set_all_multicast()?;
        Ok(Receives { all_unicast, all_multicast })
    }

    /// 4. Memory: what the card may reach, and the rings, filled.
    fn make_rings(&mut self, env: QueueEnv) -> Result<StartedRings<D>, NicError> {
        let buffer = (env.pool.data_room() / KIB).min(MOST_KIB) * KIB;
        if buffer == 0 {
            let what = format!("needs mbufs of 1024 bytes at least, not {}", env.pool.data_room());
            return Err(NicError::Refused { device: self.device.name().to_owned(), what });
        }
        let reach = Arc::new(Reach::new(&self.device, env)?);
        let mut rings = Rings { rx: Vec::new(), tx: Vec::new() };
        for queue in 0..self.pairs {
            let parts = self.rx_parts(queue, env, &reach, buffer);
            rings.rx.push(IgbvfRx::new(&self.device, parts).map_err(|e| self.no_ring(e, env.pool))?);
            rings.tx.push(IgbvfTx::new(&self.device, self.tx_parts(queue, env, &reach))?);
        }
        Ok(rings)
    }

    fn no_ring(&self, why: NoRing, pool: &Mempool) -> NicError {
        match why {
            NoRing::Bus(error) => error.into(),
            NoRing::Mbufs(_) => {
                let need = self.pairs * usize::from(self.options.rx_descriptors);
                let what = format!(
                    "needs {need} mbufs for its receive rings, which the pool of {} has not free; mend: more memory \
                     (--memory), or shorter rings",
                    pool.total()
                );
                NicError::Refused { device: self.device.name().to_owned(), what }
            }
        }
    }

    fn rx_parts(&self, queue: usize, env: QueueEnv, reach: &Arc<Reach>, buffer: usize) -> RxParts<D::Bar> {
        RxParts {
            bar: Arc::clone(&self.bar),
            queue,
            descriptors: self.options.rx_descriptors.into(),
            pool: env.pool,
            reach: Arc::clone(reach),
            port: env.port,
            buffer,
            max_frame: self.max_frame,
            wake: self.events.clone().map(|events| (events, RX_VECTORS[queue])),
            vlans: Arc::clone(&self.vlans),
            swapped_loopback_tags: self.kind == Kind::VfI350,
        }
    }

    fn tx_parts(&self, queue: usize, env: QueueEnv, reach: &Arc<Reach>) -> TxParts<D::Bar> {
        TxParts {
            bar: Arc::clone(&self.bar),
            queue,
            descriptors: self.options.tx_descriptors.into(),
            pool: env.pool,
            reach: Arc::clone(reach),
            limits: Limits { max_frame: self.max_frame, page: env.pool.zone().page_size().bytes() },
            may_send: Arc::clone(&self.may_send),
        }
    }

    /// Steps 5 to 7.
    fn switch_on(&mut self, rings: &StartedRings<D>) -> Result<(), NicError> {
        for (queue, ring) in rings.tx.iter().enumerate() {
            self.switch_tx_on(queue, ring.base())?;
        }
        self.bar.write32(regs::VFPSRTYPE, 0);
        for (queue, ring) in rings.rx.iter().enumerate() {
            self.switch_rx_on(queue, ring)?;
        }
        self.route_interrupts();
        self.read_status()
    }

    /// 5. Transmit: base and length while the queue is off, no write-back of the head, descriptors written back in order
    ///    with their DD; then on.
    fn switch_tx_on(&self, queue: usize, base: u64) -> Result<(), NicError> {
        let at = regs::tx(queue);
        self.set_base(at, base, self.options.tx_descriptors);
        self.bar.write32(at + TDWBAL, 0);
        self.bar.write32(at + TDWBAH, 0);
        let dca = self.bar.read32(at + DCA);
        self.bar.write32(at + DCA, dca & !regs::DCA_WRITE_BACK_RELAXED);
        self.bar.write32(at + HEAD, 0);
        self.bar.write32(at + TAIL, 0);
        self.enable(at, queue, "transmit")
    }

    /// 6. Receive: base and length while the queue is off; one buffer a descriptor, and a packet without any is dropped, for
    ///    else it would stand in all VFs' way; on; and only then the head and the tail, which hands the buffers over.
    fn switch_rx_on(&self, queue: usize, ring: &IgbvfRx<D::Bar>) -> Result<(), NicError> {
        let at = regs::rx(queue);
        self.set_base(at, ring.base(), self.options.rx_descriptors);
        let kib = (ring.parts().buffer / KIB) as u32 & regs::SRRCTL_BSIZEPKT;
        self.bar.write32(at + SRRCTL, kib | regs::SRRCTL_ADV_ONEBUF | regs::SRRCTL_DROP_EN);
        self.enable(at, queue, "receive")?;
        self.bar.write32(at + HEAD, 0);
        ring.post_all();
        Ok(())
    }

    fn set_base(&self, at: usize, base: u64, descriptors: u16) {
        self.bar.write32(at + DCTL, 0);
        self.bar.write32(at + BAL, base as u32);
        self.bar.write32(at + BAH, (base >> 32) as u32);
        self.bar.write32(at + LEN, u32::from(descriptors) * super::desc::DESCRIPTOR as u32);
    }

    /// Switches a queue on and waits until it is. An erratum of the 82576's VFs wants each descriptor written back at once
    /// (threshold 1), or some never are.
    fn enable(&self, at: usize, queue: usize, direction: &str) -> Result<(), NicError> {
        let write_back = u32::from(self.kind == Kind::Vf82576);
        let on = DCTL_ENABLE | regs::dctl_thresholds(PREFETCH, HOST, write_back);
        self.bar.write32(at + DCTL, on);
        let end = Instant::now() + QUEUE_PATIENCE;
        loop {
            match self.bar.read32(at + DCTL) {
                u32::MAX => return self.read_gone(),
                now if now & DCTL_ENABLE != 0 => return Ok(()),
                _ if Instant::now() > end => return Err(self.stays_off(queue, direction)),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    fn read_gone(&self) -> Result<(), NicError> {
        Err(crate::bus::BusError::Gone(self.device.name().to_owned()).into())
    }

    fn stays_off(&self, queue: usize, direction: &str) -> NicError {
        NicError::Timeout {
            device: self.device.name().to_owned(),
            what: format!("switch {direction} queue {queue} on"),
            within_ms: QUEUE_PATIENCE.as_millis() as u64,
            hint: "",
        }
    }

    /// 7. Interrupts: a vector for each receive queue, which only a sleeping lcore switches on, and one for the mailbox. The
    ///    message clears its cause (VTEIAC).
    fn route_interrupts(&mut self) {
        let Some(events) = &self.events else { return };
        if let Err(error) = self.device.set_interrupts(events) {
            tracing::warn!(device = self.device.name(), %error, "no interrupts: lcores will not sleep");
            return;
        }
        let valid = |vector: usize| regs::IVAR_VALID | vector as u32;
        let rx1 = if self.pairs > 1 { valid(RX_VECTORS[1]) << 16 } else { 0 };
        self.bar.write32(regs::VTIVAR, valid(RX_VECTORS[0]) | rx1);
        self.bar.write32(regs::VTIVAR_MISC, valid(MAILBOX_VECTOR));
        for vector in 0..regs::VECTORS {
            self.bar.write32(regs::vteitr(vector), regs::eitr_interval(INTERVAL_US));
        }
        self.bar.write32(regs::VTEIAM, 0);
        self.bar.write32(regs::VTEIAC, ALL_VECTORS);
        self.bar.write32(regs::VTEICR, ALL_VECTORS);
        self.bar.write32(regs::VTEIMS, 1 << MAILBOX_VECTOR);
    }

    /// Stops whatever runs. When this returns the device touches no memory.
    pub(super) fn take_down(&mut self) {
        if !core::mem::take(&mut self.is_running) {
            return;
        }
        self.bar.write32(regs::VTEIMC, ALL_VECTORS);
        for queue in 0..self.pairs {
            self.bar.write32(regs::rx(queue) + DCTL, 0);
            self.bar.write32(regs::tx(queue) + DCTL, 0);
        }
        self.bar.write32(regs::VTCTRL, regs::VTCTRL_RST);
        let quiet = self.device.quiesce().or_else(|_| self.device.reset());
        if let Err(error) = quiet {
            // Gone, then, and quiet for that.
            tracing::debug!(device = self.device.name(), %error, "the device could not be told to be quiet");
        }
        if self.events.is_some() {
            // There may be none any more.
            let _ = self.device.set_interrupts(&[]);
        }
        self.may_send.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Unicast, locally administered.
fn random_mac() -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = RandomState::new().hash_one("mac").to_le_bytes();
    [a & !1 | 2, b, c, d, e, f]
}
