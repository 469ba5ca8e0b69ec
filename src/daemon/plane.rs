//! The control plane: which ports there are, and how they come and go.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use mbuf::Mempool;
use pmd::{Port, PortError, QueueEnv, Queues};
use vswitch::{FdbConfig, IdlePolicy, LcoreConfig, OnDeath, PortId, Switch, SwitchConfig, SwitchError, View};

use super::confine;
use super::make::make;
use super::memory::make_pool;
use crate::cli::MachineArgs;
use crate::failure::Failure;
use crate::nic::{Machine, warnings_at_start};
use crate::settings::{Hugepages, Poll, PortName, PortSetting, PortSpec, Sandbox, Settings, SwitchSetting};

/// A switch and its ports.
pub(crate) struct Plane {
    /// Held while lcores are waited for, which has a limit: by whoever adds or removes a port, and nobody else.
    switch: Mutex<Switch>,
    /// For those who only look.
    view: View,
    pool: &'static Mempool,
    /// Named to who adds a port for which rights are missing.
    sandbox: Sandbox,
    /// Never held while `switch` is waited for, nor the other way round.
    ports: Mutex<BTreeMap<PortName, Entry>>,
    /// Held by whoever adds or removes a port: one at a time.
    changing: Mutex<()>,
    /// How many want cycles counted by stage just now.
    pub(super) measuring: Mutex<u32>,
    started: Instant,
}

/// A port that is attached.
pub(super) struct Entry {
    pub(super) id: PortId,
    pub(super) spec: PortSpec,
    pub(super) port: Box<dyn Port>,
}

/// Why a port could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaneError {
    #[error("there is no port {0}; 'polder port list' tells which there are")]
    NoSuchPort(PortName),
    #[error("there is a port {0} already; remove it first, or choose another name")]
    PortExists(PortName),
    #[error("port {name} ({spec}): {source}")]
    Port { name: PortName, spec: PortSpec, source: PortError },
    #[error("port {name}: {source}")]
    Switch { name: PortName, source: SwitchError },
}

impl PlaneError {
    /// The same for whoever started the program.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Port { source: PortError::Spec(_), .. } => Failure::usage(self),
            _ => Failure::runtime(self),
        }
    }
}

impl Plane {
    /// Starts the lcores and takes the packet memory from `hugepages`. There are no ports yet. The switch comes first: it
    /// checks its numbers, and a wrong one costs no memory and prints nothing else. `on_death`: what an lcore's death calls.
    pub(crate) fn start(
        settings: &Settings,
        hugepages: Hugepages,
        on_death: OnDeath,
    ) -> Result<Self, Failure> {
        let lcores =
            settings.cpus.iter().enumerate().map(|(id, cpu)| LcoreConfig { id, cpu: Some(*cpu) }).collect();
        let (fdb, idle) = (fdb_config(settings.switch), idle_policy(settings.switch));
        let config = SwitchConfig { lcores, fdb, idle, on_death, ..SwitchConfig::default() };
        let switch = Switch::start(config).map_err(|e| match e {
            SwitchError::Fdb { .. } | SwitchError::CpuNotAllowed { .. } => Failure::usage(e),
            _ => Failure::runtime(e),
        })?;
        Ok(Self {
            view: switch.view().clone(),
            switch: Mutex::new(switch),
            sandbox: settings.sandbox,
            pool: make_pool(settings.memory, hugepages)?,
            ports: Mutex::default(),
            changing: Mutex::default(),
            measuring: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// What can be read of the switch. Waits for nobody.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The switch, to be changed.
    pub(super) fn switch(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The packet memory.
    pub(crate) fn pool(&self) -> &'static Mempool {
        self.pool
    }

    /// What rights were given up.
    pub(crate) fn sandbox(&self) -> Sandbox {
        self.sandbox
    }

    /// How long it has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The ports as they are now. Not to be held for long.
    pub(super) fn ports(&self) -> MutexGuard<'_, BTreeMap<PortName, Entry>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a port and attaches it: all or nothing.
    pub(crate) fn add(&self, setting: &PortSetting) -> Result<(), PlaneError> {
        let PortSetting { name, spec } = setting;
        let _alone = self.change();
        if self.ports().contains_key(name) {
            return Err(PlaneError::PortExists(name.clone()));
        }
        let failed = |source| PlaneError::Port {
            name: name.clone(),
            spec: spec.clone(),
            source: confine::explain(source, spec, self.sandbox),
        };
        let refused = |source| PlaneError::Switch { name: name.clone(), source };
        let mut port = make(spec).map_err(failed)?;
        let id = self.switch().reserve_port(&name.to_string()).map_err(refused)?;
        let attached = port
            .open(QueueEnv { pool: self.pool, port: id.number() })
            .map_err(failed)
            .and_then(|queues| self.switch().attach(id, queues, port.counters()).map_err(refused));
        if let Err(error) = attached {
            self.give_back(name, id);
            return Err(error);
        }
        self.ports().insert(name.clone(), Entry { id, spec: spec.clone(), port });
        self.look_at_card(spec);
        Ok(())
    }

    /// Warns if the PF of a card that a port was added on holds it, or other VFs, to what does not suit a switch.
    fn look_at_card(&self, spec: &PortSpec) {
        let Some(bdf) = spec.card() else { return };
        let cards: Vec<_> = self.ports().values().filter_map(|entry| entry.spec.card()).collect();
        for warning in warnings_at_start(&Machine::new(MachineArgs::default()), bdf, &cards) {
            tracing::warn!("{warning}");
        }
    }

    /// Frees the number of a port that came to nothing.
    fn give_back(&self, name: &PortName, id: PortId) {
        let removed = self.switch().remove_port(id);
        if let Err(error) = removed {
            tracing::warn!(%name, %error, "the number of a port that was not added stays taken");
        }
    }

    /// Detaches a port and ends it. If an lcore does not let go of it in time, it stays, and this can be tried again.
    pub(crate) fn remove(&self, name: &PortName) -> Result<(), PlaneError> {
        let _alone = self.change();
        let id = self.ports().get(name).map(|e| e.id).ok_or_else(|| PlaneError::NoSuchPort(name.clone()))?;
        let home = self.switch().remove_port(id);
        let queues = home.map_err(|source| PlaneError::Switch { name: name.clone(), source })?;
        let ended = self.ports().remove(name);
        // Its own threads are waited for here, with no lock on the table.
        drop((queues, ended));
        Ok(())
    }

    /// Removes all ports within `limit`, all at once. What an lcore does not let go of, or what does not end, is left as it
    /// is; the ports' sockets are gone all the same.
    pub(crate) fn remove_all(&self, limit: Duration) {
        let end = Instant::now() + limit;
        // Whoever is at a change for too long is no reason to stay.
        let _alone = try_lock_until(&self.changing, end - limit / 2);
        let home = self.detach_all(end - limit / 2);
        let mut ended = Vec::new();
        for (name, entry) in std::mem::take(&mut *self.ports()) {
            let (port, shown) = (entry.port, name.clone());
            match std::thread::Builder::new().name("ending".into()).spawn(move || drop(port)) {
                Ok(thread) => ended.push((shown, thread)),
                Err(error) => tracing::error!(port = %name, %error, "no thread to end it"),
            }
        }
        drop(home);
        for (name, thread) in ended {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                tracing::error!(port = %name, "does not end: left as it is");
            }
        }
    }

    /// Takes all ports from the lcores, and their halves home.
    fn detach_all(&self, end: Instant) -> Vec<Queues> {
        let Some(mut switch) = try_lock_until(&self.switch, end) else {
            tracing::error!("a port is being added or removed, which takes too long");
            return Vec::new();
        };
        let ids: Vec<_> = self.ports().values().map(|entry| entry.id).collect();
        let mut home = Vec::new();
        for id in ids {
            switch.set_patience(end.saturating_duration_since(Instant::now()));
            match switch.remove_port(id) {
                Ok(queues) => home.push(queues),
                // Its queues died with the lcore; the port ends without them, and its socket and threads go.
                Err(SwitchError::LcoreDied(_)) => {}
                Err(error) => {
                    // An lcore does not let go: it would not for the others either.
                    tracing::error!(%error, "not all ports were removed");
                    break;
                }
            }
        }
        home
    }
}

/// The lock, if it can be had until `end`.
fn try_lock_until<T>(lock: &Mutex<T>, end: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn idle_policy(setting: SwitchSetting) -> IdlePolicy {
    match setting.poll {
        Poll::Adaptive => IdlePolicy::Adaptive,
        Poll::Always => IdlePolicy::Spin,
    }
}

fn fdb_config(setting: SwitchSetting) -> FdbConfig {
    let default = FdbConfig::default();
    FdbConfig {
        capacity: setting.mac_table.map_or(default.capacity, |n| n as usize),
        age: setting.mac_ageing_s.map_or(default.age, |s| Duration::from_secs(s.into())),
        port_quota: setting.mac_quota.map(|n| n as usize).or(default.port_quota),
        ..default
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::channel;

    use super::super::snapshot;
    use super::*;
    use crate::settings::{MemorySize, allowed_cpus};

    /// With one port and little memory.
    pub(crate) fn plane(on_death: OnDeath) -> Plane {
        let settings = Settings {
            ports: vec!["a=null".parse().unwrap()],
            cpus: allowed_cpus().into_iter().take(1).collect(),
            switch: SwitchSetting::default(),
            memory: "8M".parse::<MemorySize>().unwrap(),
            hugepages: Hugepages::Off,
            sandbox: Sandbox::Off,
            control: None,
        };
        let plane = Plane::start(&settings, Hugepages::Off, on_death).unwrap();
        plane.add(&settings.ports[0]).unwrap();
        plane
    }

    #[test]
    fn who_only_looks_does_not_wait_for_who_changes() {
        let plane = plane(OnDeath::default());
        let (answer, answered) = channel();
        std::thread::scope(|scope| {
            // As one that removes a port holds them while an lcore does not answer.
            let changing = (plane.change(), plane.switch());
            let plane = &plane;
            scope.spawn(move || {
                let seen = (snapshot::stats(plane).ports.len(), snapshot::ports(plane, None).len());
                answer.send((seen, snapshot::fdb(plane).len(), plane.view().stages().len())).unwrap();
            });
            let seen = answered.recv_timeout(Duration::from_secs(5));
            drop(changing);
            assert_eq!(seen, Ok(((1, 1), 0, 1)));
        });
        plane.remove_all(Duration::from_secs(10));
    }
}
