//! The ports that there are: numbers, names, generations. Control path alone.

use pmd::PortCounters;

use crate::stats::Totals;
use crate::{MAX_PORTS, PortId, SwitchError};

/// How far a port is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has a number.
    Reserved,
    /// Its halves are with the lcores.
    Attached,
    /// Its halves are on their way home.
    Leaving,
}

pub(crate) struct PortRecord {
    pub(crate) id: PortId,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) counters: PortCounters,
    pub(crate) rx_queues: usize,
    pub(crate) tx_queues: usize,
    /// What the switch had counted for this number before.
    pub(crate) baseline: Totals,
}

/// A port, as the control path shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Which port.
    pub id: PortId,
    /// Its name.
    pub name: String,
    /// Whether its queues are with the lcores.
    pub attached: bool,
    /// Receive halves.
    pub rx_queues: usize,
    /// Transmit halves.
    pub tx_queues: usize,
}

impl PortRecord {
    pub(crate) fn info(&self) -> PortInfo {
        PortInfo {
            id: self.id,
            name: self.name.clone(),
            attached: self.state == State::Attached,
            rx_queues: self.rx_queues,
            tx_queues: self.tx_queues,
        }
    }
}

/// All numbers, and the ports that have one.
pub(crate) struct Ports {
    slots: Vec<Option<PortRecord>>,
    /// The generation that a number's next port gets.
    generations: Vec<u16>,
    /// Where the search for a number goes on: a number rests as long as possible before it is used again.
    next: usize,
}

impl Default for Ports {
    fn default() -> Self {
        Self { slots: (0..MAX_PORTS).map(|_| None).collect(), generations: vec![1; MAX_PORTS], next: 0 }
    }
}

impl Ports {
    pub(crate) fn reserve(
        &mut self,
        name: &str,
        baseline: impl FnOnce(u16) -> Totals,
    ) -> Result<PortId, SwitchError> {
        if self.iter().any(|p| p.name == name) {
            return Err(SwitchError::DuplicateName(name.to_owned()));
        }
        let free = (0..MAX_PORTS).map(|i| (self.next + i) % MAX_PORTS).find(|at| self.slots[*at].is_none());
        let number = free.ok_or(SwitchError::TooManyPorts)?;
        self.next = number + 1;
        let id = PortId::new(number as u16, self.generations[number]);
        self.slots[number] = Some(PortRecord {
            id,
            name: name.to_owned(),
            state: State::Reserved,
            counters: PortCounters::default(),
            rx_queues: 0,
            tx_queues: 0,
            baseline: baseline(id.number()),
        });
        Ok(id)
    }

    pub(crate) fn get_mut(&mut self, id: PortId) -> Result<&mut PortRecord, SwitchError> {
        let slot = self.slots.get_mut(usize::from(id.number())).and_then(Option::as_mut);
        slot.filter(|p| p.id == id).ok_or(SwitchError::NoSuchPort(id))
    }

    /// Takes a port out; its number may be used again, with the next generation.
    pub(crate) fn free(&mut self, id: PortId) -> Option<PortRecord> {
        let number = usize::from(id.number());
        self.generations[number] = self.generations[number].checked_add(1).unwrap_or(1);
        self.slots[number].take()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PortRecord> {
        self.slots.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(ports: &mut Ports, name: &str) -> Result<PortId, SwitchError> {
        ports.reserve(name, |_| Totals::default())
    }

    #[test]
    fn an_old_id_does_not_name_the_numbers_next_port() {
        let mut ports = Ports::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 * MAX_PORTS {
            let id = reserve(&mut ports, "a").unwrap();
            assert!(seen.insert(id), "{id} was there before");
            assert!(ports.free(id).is_some());
            assert!(matches!(ports.get_mut(id), Err(SwitchError::NoSuchPort(_))));
        }
    }

    #[test]
    fn names_are_unique_and_numbers_end() {
        let mut ports = Ports::default();
        for n in 0..MAX_PORTS {
            reserve(&mut ports, &n.to_string()).unwrap();
        }
        assert!(matches!(reserve(&mut ports, "7"), Err(SwitchError::DuplicateName(n)) if n == "7"));
        assert!(matches!(reserve(&mut ports, "more"), Err(SwitchError::TooManyPorts)));
    }
}
