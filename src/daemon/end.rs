//! How the program ends: a signal asks for it, or an lcore died. Either way it does end.

use std::cell::RefCell;
use std::io;
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use pmd::threads::{Role, spawn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vswitch::OnDeath;

use super::cpus;
use crate::failure::Failure;

/// The process ends within this time, whatever its threads wait for: three seconds less a margin.
const LIMIT: Duration = Duration::from_millis(2700);
/// The part of it in which ports are taken down.
pub(super) const TAKE_DOWN: Duration = Duration::from_millis(2000);

thread_local! {
    /// Where and why this thread panicked: the hook knows it, and the lcore's end tells it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Why the program ends.
#[derive(Debug)]
enum Why {
    Signal(i32),
    /// An lcore died: which one and how.
    Death(String),
}

/// What the main thread waits for while the switch runs.
pub(super) struct End {
    tell: Sender<Why>,
    told: Receiver<Why>,
}

impl End {
    /// Takes SIGTERM, SIGINT and panics from here on. If the process is still there [`LIMIT`] after a signal, it is ended with
    /// status 1 and whatever is left. `lcores`: the CPUs that the thread which waits for signals keeps off.
    pub(super) fn watch(lcores: &[usize]) -> Result<Self, Failure> {
        let (tell, told) = channel();
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Failure::runtime)?;
        let (of_signals, lcores) = (tell.clone(), lcores.to_vec());
        let wait = move || {
            cpus::keep_off(&lcores);
            let Some(signal) = signals.forever().next() else { return };
            // Nobody listens any more if it ends already.
            let _ = of_signals.send(Why::Signal(signal));
            end_all_the_same();
        };
        start("signals", wait).map_err(Failure::runtime)?;
        std::panic::set_hook(Box::new(note_panic));
        Ok(Self { tell, told })
    }

    /// What a switch is to do when one of its lcores dies.
    pub(super) fn on_death(&self) -> OnDeath {
        let tell = self.tell.clone();
        OnDeath::call(move |lcore| {
            let why = PANIC.with(|panic| panic.borrow_mut().take()).unwrap_or_default();
            let _ = tell.send(Why::Death(format!("lcore {lcore} died: {why}")));
        })
    }

    /// Whether the end has come already, before anybody waits for it.
    pub(super) fn has_come(&self) -> Option<Result<ExitCode, Failure>> {
        self.told.try_recv().ok().map(ended)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// An lcore died. Its ports' queues died with it, and no other lcore can take them over: a service manager starts the
    /// program again, and guests connect again (docs/decisions/0020).
    pub(super) fn wait(&self) -> Result<ExitCode, Failure> {
        ended(self.told.recv().map_err(|_| Failure::runtime("nobody is left who could end the program"))?)
    }
}

fn ended(why: Why) -> Result<ExitCode, Failure> {
    match why {
        Why::Signal(signal) => {
            tracing::info!(signal, "ending");
            Ok(ExitCode::SUCCESS)
        }
        Why::Death(what) => {
            // Without it the program ends as fast as its ports do, which have a limit of their own.
            let _ = start("watchdog", end_all_the_same);
            let what = format!("{what}; polder ends, to be started again (a bug: please report it)");
            Err(Failure::runtime(what))
        }
    }
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(name.into(), Role::Signals, body).map(drop)
}

/// Ends the process if it is still there after [`LIMIT`].
fn end_all_the_same() {
    thread::sleep(LIMIT);
    tracing::error!("not everything ended within {LIMIT:?}: leaving it to the kernel");
    vhost::give_up_descriptors();
    signal_hook::low_level::exit(1);
}

/// Keeps what an lcore's panic says for the program's last line. Any other thread's is an error in the log: it costs its own
/// port or client, and the program goes on.
fn note_panic(info: &PanicHookInfo<'_>) {
    let why = info.payload_as_str().unwrap_or("a panic without a message");
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let what = format!("panicked at {place}: {}", why.split_whitespace().collect::<Vec<_>>().join(" "));
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    if name.starts_with("lcore") {
        PANIC.with(|panic| *panic.borrow_mut() = Some(what));
    } else {
        tracing::error!(thread = name, "{what}");
    }
}
