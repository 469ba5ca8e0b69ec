//! A receive half as an lcore has it that sleeps: armed, and watched for edges.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::fd::OwnedFd;
use std::time::Duration;

use mbuf::{Burst, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{Port, QueueEnv, RxQueue};
use rustix::event::{Timespec, epoll};
use vhost::driver::{Kicks, VirtioNet, VirtioNetConfig};
use vhost::wire::message::protocol::F_RARP;
use vhost::wire::net::{F_EVENT_IDX, F_RING_PACKED};
use vhost::{VhostUserPort, VhostUserSpec};

/// A split ring by the usual features.
pub(crate) const SPLIT: u64 = !F_RING_PACKED;
/// What may be negotiated of each kind of ring: split and packed, with and without EVENT_IDX.
pub(crate) const RINGS: [u64; 4] = [SPLIT & !F_EVENT_IDX, !F_EVENT_IDX, SPLIT, u64::MAX];

/// A port, its receive half, and what an lcore waits on.
pub(crate) struct Sleeper {
    pub(crate) rx: Box<dyn RxQueue>,
    set: OwnedFd,
    pub(crate) pool: &'static Mempool,
    directory: tempfile::TempDir,
    _port: VhostUserPort,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let pool = Mempool::new(&MempoolConfig { mbufs: 512, cache: 0, zone, ..MempoolConfig::default() });
        let pool = pool.unwrap();
        let spec: VhostUserSpec = directory.path().join("s").to_str().unwrap().parse().unwrap();
        let mut port = VhostUserPort::new(&spec).unwrap();
        let rx = port.open(QueueEnv { pool, port: 1 }).unwrap().rx.pop().unwrap();
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, rx.wake_fd().unwrap(), epoll::EventData::new_u64(0), edges).unwrap();
        Self { rx, set, pool, directory, _port: port }
    }

    /// A guest with those of `features` that there are.
    pub(crate) fn connect(&self, features: u64, kicks: Kicks) -> VirtioNet {
        let default = VirtioNetConfig::default();
        let (features, protocol_features) =
            ((default.features | F_RING_PACKED | F_EVENT_IDX) & features, default.protocol_features | F_RARP);
        let config = VirtioNetConfig { features, protocol_features, kicks, ..default };
        VirtioNet::connect(self.directory.path().join("s"), config).unwrap()
    }

    /// Whether it wakes within this time.
    pub(crate) fn wakes(&self, within: Duration) -> bool {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        epoll::wait(&self.set, &mut events[..], Some(&Timespec::try_from(within).unwrap())).unwrap() > 0
    }

    pub(crate) fn wakes_soon(&self) -> bool {
        self.wakes(Duration::from_secs(5))
    }

    /// What signalled until now, that is, since the last look.
    pub(crate) fn wakes_now(&self) -> bool {
        self.wakes(Duration::ZERO)
    }

    /// Frames that came.
    pub(crate) fn poll(&mut self) -> usize {
        let mut burst = Burst::new();
        let n = self.rx.rx_burst(&mut burst);
        drop(burst);
        self.rx.complete();
        n
    }

    /// Polls what is there and arms, as often as it takes: the control plane may be inside for a moment.
    pub(crate) fn arm(&mut self) {
        while !self.rx.arm() {
            self.poll();
        }
        self.wakes_now();
    }
}
