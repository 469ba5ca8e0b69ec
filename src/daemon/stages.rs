//! Measures for a while where the lcores' cycles go.

use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use vswitch::Stage;

use super::plane::Plane;
use crate::report::{LcoreStages, StageStats, Stages};

/// Has the lcores count for as long as it lives. It is the daemon that holds it, so that a client which goes away leaves
/// nothing switched on.
struct Measuring<'p>(&'p Plane);

impl<'p> Measuring<'p> {
    fn start(plane: &'p Plane) -> Self {
        Self::want(plane, |wanted| *wanted += 1);
        Self(plane)
    }

    /// Several may measure at a time: the first switches on, the last off.
    fn want(plane: &Plane, change: impl FnOnce(&mut u32)) {
        let mut wanted = plane.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *wanted;
        change(&mut wanted);
        if (before == 0) != (*wanted == 0) {
            plane.view().set_stages(*wanted != 0);
        }
    }
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        Self::want(self.0, |wanted| *wanted -= 1);
    }
}

/// Measures for `span` and returns then.
pub(super) fn measure(plane: &Plane, span: Duration) -> Stages {
    let (earlier, now, seconds) = {
        let _on = Measuring::start(plane);
        let (earlier, start) = (plane.view().stages(), Instant::now());
        thread::sleep(span);
        (earlier, plane.view().stages(), start.elapsed().as_secs_f64())
    };
    let lcores = now.into_iter().zip(&earlier).map(|(now, then)| lcore(plane, &now.since(then))).collect();
    Stages { seconds, lcores }
}

fn lcore(plane: &Plane, counted: &vswitch::LcoreStages) -> LcoreStages {
    let stages = counted.iter().map(|(stage, count)| {
        let (stage, port) = named(plane, stage);
        StageStats { stage, port, packets: count.packets, times: count.times, cycles: count.cycles }
    });
    LcoreStages { id: counted.id, stages: stages.collect() }
}

/// A stage's name and its port's. A guest's ring is dequeued from and enqueued into, any other port receives and transmits.
fn named(plane: &Plane, stage: Stage) -> (String, Option<String>) {
    let of_port = |number, guests: &str, others: &str| {
        let ports = plane.ports();
        let port = ports.iter().find(|(_, entry)| entry.id.number() == number);
        let is_guest = port.is_some_and(|(_, entry)| entry.port.kind() == "vhost-user");
        // One that was removed in between has no name any more.
        let name = port.map_or_else(|| "?".to_owned(), |(name, _)| name.to_string());
        (if is_guest { guests } else { others }.to_owned(), Some(name))
    };
    let own = |name: &str| (name.to_owned(), None);
    match stage {
        Stage::Empty => own("empty"),
        Stage::Receive(number) => of_port(number, "dequeue", "receive"),
        Stage::TakeOver => own("take_over"),
        Stage::LookUp => own("look_up"),
        Stage::Sort => own("sort"),
        Stage::Transmit(number) => of_port(number, "enqueue", "transmit"),
        Stage::HandOver => own("hand_over"),
        Stage::Publish => own("publish"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::plane::tests::plane;

    /// Whether the lcore counts; it has turned over before that is looked at.
    fn counts(plane: &Plane) -> bool {
        let polls = || plane.view().stats().lcores[0].polls;
        let visits = || plane.view().stages()[0].count(Stage::Empty).times;
        let turn = || {
            let before = polls();
            while polls() < before + 3 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        turn();
        let before = visits();
        turn();
        visits() != before
    }

    #[test]
    fn counting_ends_with_the_last_who_wants_it() {
        let plane = plane(vswitch::OnDeath::default());
        assert!(!counts(&plane));
        let one = Measuring::start(&plane);
        let other = Measuring::start(&plane);
        assert!(counts(&plane));
        drop(one);
        assert!(counts(&plane), "the other still wants it");
        drop(other);
        assert!(!counts(&plane));
        assert!(measure(&plane, Duration::from_millis(100)).lcores[0].stages[0].times > 0);
        assert!(!counts(&plane));
        plane.remove_all(Duration::from_secs(10));
    }
}
