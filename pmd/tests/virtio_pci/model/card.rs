//! The card: what the test holds of it, and what the driver gets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mbuf::Zone;
use pmd::alarm::Alarm;
use pmd::bus::{BusError, DmaMapping, PciDevice, PciIds};
use pmd::nic::{NicError, NicOptions, NicPort};
use pmd::virtio_pci::VirtioPci;

use super::bar::ModelBar;
use super::net::Packet;
use super::queue::Queue;
use super::{CardConfig, ConfigSpace, feature};
use crate::device_memory::DeviceMemory;

/// All that a card is.
pub(crate) struct State {
    pub(crate) config: CardConfig,
    pub(crate) space: ConfigSpace,
    /// It sits in its slot.
    pub(crate) present: bool,
    /// Its BAR's pages were taken away.
    pub(crate) faulting: bool,
    /// Accesses to registers until it is gone.
    pub(crate) lives: Option<u32>,
    pub(crate) link: bool,
    /// Resets are not answered; features not agreed to; the configuration changes all the time.
    pub(crate) deaf: bool,
    pub(crate) disagrees: bool,
    pub(crate) restless: bool,
    /// `queue_notify_off` of all queues, if it is not the queue's number.
    pub(crate) notify_off: Option<u16>,
    /// What the control queue says to commands; `None`: nothing.
    pub(crate) answer: Option<u8>,
    /// Commands that it was given.
    pub(crate) commands: Vec<Vec<u8>>,
    pub(crate) status: u8,
    pub(crate) accepted: u64,
    pub(crate) device_select: u32,
    pub(crate) driver_select: u32,
    pub(crate) queue_select: u16,
    pub(crate) config_vector: u16,
    pub(crate) generation: u8,
    pub(crate) generation_reads: u64,
    pub(crate) queues: Vec<Queue>,
    pub(crate) interrupts: Vec<OwnedFd>,
    pub(crate) resets: u64,
    pub(crate) memory: DeviceMemory,
}

/// The test's handle. Clones are the same card.
#[derive(Clone)]
pub(crate) struct Card {
    state: Arc<Mutex<State>>,
    pub(crate) memory: DeviceMemory,
    /// Raised when the system wants the device back.
    pub(crate) removal: Arc<Alarm>,
}

/// What the driver holds.
pub(crate) struct ModelDevice {
    card: Card,
    bar: Arc<ModelBar>,
}

pub(crate) type Driver = VirtioPci<ModelDevice>;

impl Card {
    pub(crate) fn new(config: CardConfig) -> Self {
        let memory = DeviceMemory::new(config.offset);
        let state = State {
            space: ConfigSpace::new(),
            present: true,
            faulting: false,
            lives: None,
            link: true,
            deaf: false,
            disagrees: false,
            restless: false,
            notify_off: None,
            answer: Some(0),
            commands: Vec::new(),
            status: 0,
            accepted: 0,
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
            config_vector: 0xffff,
            generation: 0,
            generation_reads: 0,
            queues: Vec::new(),
            interrupts: Vec::new(),
            resets: 0,
            memory: memory.clone(),
            config,
        };
        let card = Self {
            state: Arc::new(Mutex::new(state)),
            memory,
            removal: Arc::new(Alarm::new().expect("eventfd")),
        };
        card.state().set_status(0);
        card
    }

    pub(crate) fn with_features(features: u64) -> Self {
        Self::new(CardConfig { features, ..CardConfig::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the bus gives to a driver, if the card is there.
    pub(crate) fn device(&self) -> Result<ModelDevice, BusError> {
        if !self.state().present {
            return Err(BusError::Gone(NAME.to_owned()));
        }
        self.memory.set_bus_master(false);
        Ok(ModelDevice { card: self.clone(), bar: Arc::new(ModelBar(self.clone())) })
    }

    /// The driver on it.
    pub(crate) fn driver(&self, options: &NicOptions) -> Result<Driver, NicError> {
        VirtioPci::new(self.device()?, options)
    }

    /// A port with that driver.
    pub(crate) fn port(&self, options: NicOptions) -> NicPort<Driver> {
        let card = self.clone();
        NicPort::new("vfio", NAME, move || card.driver(&options)).expect("the card is there")
    }

    /// Pulls it out, or puts it back in, fresh.
    pub(crate) fn set_present(&self, present: bool) {
        let mut state = self.state();
        state.present = present;
        state.set_status(0);
        state.space = ConfigSpace::new();
    }

    pub(crate) fn set_link(&self, up: bool) {
        let mut state = self.state();
        state.link = up;
        state.config_interrupt();
    }

    /// DEVICE_NEEDS_RESET
    pub(crate) fn break_down(&self) {
        let mut state = self.state();
        state.status |= 64;
        state.config_interrupt();
    }

    /// Brings a packet to receive queue `pair`; false if there were no buffers.
    pub(crate) fn receive(&self, pair: usize, packet: &Packet) -> bool {
        self.state().receive(pair, packet)
    }

    /// Takes all that was sent on transmit queue `pair`.
    pub(crate) fn sent(&self, pair: usize) -> Vec<Packet> {
        self.state().transmit(pair)
    }
}

pub(crate) const NAME: &str = "0000:00:04.0";

impl State {
    pub(crate) fn offered(&self) -> u64 {
        self.config.features
    }

    /// One more access.
    pub(crate) fn live_on(&mut self) {
        if let Some(left) = &mut self.lives {
            self.present &= *left > 0;
            *left = left.saturating_sub(1);
        }
    }

    /// `device_status`
    pub(crate) fn set_status(&mut self, value: u8) {
        if value == 0 {
            if !self.deaf {
                self.reset();
            }
            return;
        }
        assert_eq!(self.status & !value & 0x0f, 0, "a driver takes status bits back: {value:#x}");
        let mut value = value;
        if self.disagrees || self.accepted & feature::VERSION_1 == 0 {
            value &= !8;
        }
        assert!(value & 4 == 0 || value & 8 != 0, "DRIVER_OK without FEATURES_OK");
        self.status = value;
    }

    fn reset(&mut self) {
        self.resets += 1;
        (self.status, self.accepted, self.config_vector) = (0, 0, 0xffff);
        let fresh = Queue::fresh(self.config.queue_size);
        let control = usize::from(self.offered() & feature::CTRL_VQ != 0);
        self.queues = vec![fresh; 2 * usize::from(self.config.max_pairs) + control];
    }

    pub(crate) fn is_live(&self) -> bool {
        self.present && self.status & 4 != 0 && self.status & 64 == 0
    }

    pub(crate) fn signal(&self, vector: u16) {
        if let Some(event) = self.interrupts.get(usize::from(vector)) {
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }

    fn config_interrupt(&self) {
        self.signal(self.config_vector);
    }

    /// A doorbell was rung.
    pub(crate) fn doorbell(&mut self, slot: usize, value: u32) {
        assert!(self.status & 4 != 0, "doorbell {slot} before DRIVER_OK (§3.1.1)");
        if self.notify_off.is_none() {
            assert_eq!(slot, value as usize, "each queue has its own doorbell");
        }
        let Some(queue) = self.queues.get_mut(value as usize) else { panic!("doorbell of queue {value}") };
        queue.kicked = true;
        queue.kicks += 1;
        if value as usize == 2 * usize::from(self.config.max_pairs) {
            self.control();
        }
    }
}

impl PciDevice for ModelDevice {
    type Bar = ModelBar;

    fn name(&self) -> &str {
        NAME
    }

    fn ids(&self) -> PciIds {
        PciIds { vendor: 0x1af4, device: 0x1041, subsystem_vendor: 0x1af4, subsystem: 0x1100, revision: 1 }
    }

    fn read_config(&self, offset: u16, bytes: &mut [u8]) -> Result<(), BusError> {
        let state = self.card.state();
        if !state.present {
            bytes.fill(0xff);
            return Ok(());
        }
        let at = usize::from(offset);
        match state.space.0.get(at..at + bytes.len()) {
            Some(from) => bytes.copy_from_slice(from),
            None => bytes.fill(0),
        }
        Ok(())
    }

    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError> {
        let mut state = self.card.state();
        if state.present {
            let at = usize::from(offset);
            state.space.0[at..at + bytes.len()].copy_from_slice(bytes);
            self.card.memory.set_bus_master(state.space.is_bus_master());
        }
        Ok(())
    }

    fn bar(&self, index: u8) -> Result<Arc<ModelBar>, BusError> {
        if index == 4 {
            return Ok(Arc::clone(&self.bar));
        }
        Err(BusError::Lacks { device: NAME.to_owned(), what: format!("no BAR {index}") })
    }

    fn map(&self, zone: &Zone) -> Result<DmaMapping, BusError> {
        Ok(self.card.memory.map(zone))
    }

    fn has_iommu(&self) -> bool {
        self.card.state().config.iommu
    }

    fn reset(&self) -> Result<(), BusError> {
        self.card.state().set_status(0);
        Ok(())
    }

    fn vectors(&self) -> usize {
        self.card.state().config.vectors
    }

    fn set_interrupts(&self, events: &[OwnedFd]) -> Result<(), BusError> {
        let events: Result<_, _> = events.iter().map(OwnedFd::try_clone).collect();
        self.card.state().interrupts = events.map_err(BusError::os("dup"))?;
        Ok(())
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        Some(self.card.removal.as_fd())
    }
}
