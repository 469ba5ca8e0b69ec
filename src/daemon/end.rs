//! How the program ends: a signal asks for it, or an lcore died.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use vswitch::OnDeath;

use crate::failure::Failure;

thread_local! {
    /// Where and why this thread panicked: the hook knows it, and the lcore's end tells it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the main thread waits for while the switch runs.
pub(super) struct End {
    signals: Signals,
    dead: Arc<DeadLcore>,
}

/// Takes the first lcore that died and ends the main thread's wait.
struct DeadLcore {
    what: OnceLock<String>,
    signals: Handle,
}

impl End {
    /// Takes SIGTERM, SIGINT and panics from here on.
    pub(super) fn watch() -> Result<Self, Failure> {
        let signals = Signals::new([SIGTERM, SIGINT]).map_err(Failure::runtime)?;
        let dead = Arc::new(DeadLcore { what: OnceLock::new(), signals: signals.handle() });
        std::panic::set_hook(Box::new(note_panic));
        Ok(Self { signals, dead })
    }

    /// What a switch is to do when one of its lcores dies.
    pub(super) fn on_death(&self) -> OnDeath {
        let dead = Arc::clone(&self.dead);
        OnDeath::call(move |lcore| {
            let why = PANIC.with(|panic| panic.borrow_mut().take()).unwrap_or_default();
            // Of several that die the first one counts.
            let _ = dead.what.set(format!("lcore {lcore} died: {why}"));
            dead.signals.close();
        })
    }

    /// Whether a signal has asked for the end already, before anybody waits for it.
    pub(super) fn was_asked_for(&mut self) -> bool {
        let signal = self.signals.pending().next();
        if let Some(signal) = signal {
            tracing::info!(signal, "ending before all ports are there");
        }
        signal.is_some()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// An lcore died. Its ports' queues died with it, and no other lcore can take them over: a service manager starts the
    /// program again, and guests connect again (docs/decisions/0020).
    pub(super) fn wait(mut self) -> Result<ExitCode, Failure> {
        let signal = self.signals.forever().next();
        if let Some(what) = self.dead.what.get() {
            return Err(Failure::runtime(format!(
                "{what}; polder ends, to be started again (a bug: please report it)"
            )));
        }
        tracing::info!(?signal, "ending");
        Ok(ExitCode::SUCCESS)
    }
}

/// Keeps what an lcore's panic says for the program's last line. Any other thread's is an error in the log: it costs its own
/// port or client, and the program goes on.
fn note_panic(info: &PanicHookInfo<'_>) {
    let why = info.payload_as_str().unwrap_or("a panic without a message");
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let what = format!("panicked at {place}: {}", why.split_whitespace().collect::<Vec<_>>().join(" "));
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    if name.starts_with("lcore") {
        PANIC.with(|panic| *panic.borrow_mut() = Some(what));
    } else {
        tracing::error!(thread = name, "{what}");
    }
}
