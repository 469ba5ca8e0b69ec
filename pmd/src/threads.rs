//! What each thread of ours is for, and what the program does to it before its work begins.
//!
//! A program that gives rights up does so thread by thread: capabilities and seccomp filters belong to threads, and are
//! inherited by threads started later. Crates that start threads know what these are for and nothing of filters; the program
//! knows filters. They meet here. A program that sets nothing (a test, an example) has threads like any other.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Moves packets. Reached by guests, front ends and the wire.
    Lcore,
    /// Serves one vhost-user front end that connects to us.
    Session,
    /// The same, and connects to it by itself.
    ClientSession,
    /// Looks after a NIC or an interface of the kernel's, and opens it again.
    Nic,
    /// Waits for a signal or the clock, and ends the process.
    Signals,
}

/// Restricts the calling thread, for good.
pub type Confine = Box<dyn Fn(Role) -> io::Result<()> + Send + Sync>;

static CONFINE: OnceLock<Confine> = OnceLock::new();

/// Has every thread restricted that begins from now on. Once for the process: false if it was done before.
pub fn set_confine(confine: Confine) -> bool {
    CONFINE.set(confine).is_ok()
}

/// Restricts the calling thread to what its role needs. It calls this once, after its own set-up.
///
/// # Errors
/// What the system said. The thread must not go on then.
pub fn begin(role: Role) -> io::Result<()> {
    CONFINE.get().map_or(Ok(()), |confine| confine(role))
}

/// Starts a thread that is restricted before `body` runs.
///
/// # Errors
/// No thread, or one that could not be restricted: `body` did not run.
pub fn spawn(name: String, role: Role, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (ready, begun) = channel();
    let confined = move || {
        let outcome = begin(role);
        let restricted = outcome.is_ok();
        if ready.send(outcome).is_ok() && restricted {
            body();
        }
    };
    let thread = Builder::new().name(name).spawn(confined)?;
    begun.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended before it began")))?;
    Ok(thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_program_that_confines_threads_just_run() {
        let (ran, told) = channel();
        let thread = spawn("plain".into(), Role::Session, move || ran.send(7).unwrap()).unwrap();
        assert_eq!((told.recv(), thread.join().is_ok()), (Ok(7), true));
        assert!(begin(Role::Lcore).is_ok());
    }
}
