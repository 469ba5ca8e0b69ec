//! File descriptors, shared out: a port is made only if all that it can ever hold are left, so that no port's front end
//! takes those of another.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use pmd::PortError;
use rustix::process::{Resource, getrlimit};

use crate::wire::message::MAX_FDS;

/// Of a port: listener and its directory, alarm, stop, connection, one that is accepted only to be closed, a call's or
/// err's duplicate while it takes another's place; and what came with the message at hand.
const OF_A_PORT: u64 = 8 + MAX_FDS as u64;
/// Of a queue pair: what wakes an lcore (2), and of either ring the kick, and call and err twice each.
const OF_A_PAIR: u64 = 2 + 2 * 5;
/// What the process needs for all else: lcores, control socket and its clients, devices, the log.
const RESERVE: u64 = 64;

/// What ports have set aside.
static SET_ASIDE: Mutex<u64> = Mutex::new(0);

/// A port's descriptors, set aside until dropped.
#[derive(Debug)]
pub(super) struct Descriptors(u64);

impl Descriptors {
    /// For a port of so many queue pairs.
    pub(super) fn set_aside(path: &Path, pairs: u16) -> Result<Self, PortError> {
        let n = OF_A_PORT + OF_A_PAIR * u64::from(pairs);
        let mut sum = SET_ASIDE.lock().unwrap_or_else(PoisonError::into_inner);
        match getrlimit(Resource::Nofile).current {
            Some(limit) if RESERVE + *sum + n > limit => Err(refused(path, n, *sum, limit)),
            _ => {
                *sum += n;
                Ok(Self(n))
            }
        }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        *SET_ASIDE.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
    }
}

fn refused(path: &Path, n: u64, sum: u64, limit: u64) -> PortError {
    let (shown, due) = (path.display(), RESERVE + sum + n);
    PortError::Os {
        what: format!(
            "vhost-user port {shown} may need {n} file descriptors; of the limit of {limit}, {sum} are set aside for other \
             ports and {RESERVE} for the rest: raise it by `ulimit -n {due}`, or LimitNOFILE={due} in the systemd unit, or \
             give ports fewer queues"
        ),
        source: io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()),
    }
}
