//! floor: what moving frames between guests costs at the very least, on one core.
//!
//! Vhost-user ports in pairs. Between the two guests of a pair it moves the bytes and the ring entries that any device must
//! move (available index and entry, descriptor, header and frame, used entry, used index), and does nothing else: no check, no
//! lookup, no count, no call. How far a device is from it is what its bookkeeping costs. It talks to guests by
//! vhost-user-backend until their rings run; then one thread turns them ([`bare`]). Split rings, a descriptor a frame,
//! mergeable or not.
//!
//! **It trusts its guests with its life.** It is for measuring, with `polder-perf` and `pktgen` as the guests, and nothing else.

mod bare;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use clap::Parser;
use rust_vmm_vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use bare::{MAX_BURST, Ring, Way};

/// VIRTIO_F_VERSION_1, VIRTIO_NET_F_MQ and VIRTIO_NET_F_MRG_RXBUF.
const FEATURES: u64 = 1 << 32 | 1 << 22 | 1 << 15;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Moves frames between pairs of vhost-user sockets, and does nothing else.
#[derive(Parser)]
struct Args {
    /// An even number of sockets to listen on.
    #[arg(required = true)]
    sockets: Vec<PathBuf>,
    /// Run on this CPU.
    #[arg(long)]
    cpu: Option<usize>,
    /// Frames moved at once, at most.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=MAX_BURST as i64))]
    burst: u16,
    /// How often each frame is copied: 1, or 2 by way of a buffer of its own, as devices do that receive before they send.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    copies: u8,
    /// Queue pairs of each guest: no more, and no less.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    queues: u16,
}

/// A ring's place: its port, and its number there. Even ones are receive queues (virtio 1.3 §5.1.2).
type Place = (usize, u16);

/// All rings that run.
#[derive(Default)]
struct Rings {
    by_place: Mutex<BTreeMap<Place, Ring>>,
    one_more: Condvar,
}

impl Rings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Ring>> {
        self.by_place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, place: Place, ring: impl FnOnce() -> Result<Ring, String>) -> std::io::Result<()> {
        let mut rings = self.lock();
        if let std::collections::btree_map::Entry::Vacant(vacant) = rings.entry(place) {
            vacant.insert(ring().map_err(std::io::Error::other)?);
            self.one_more.notify_one();
        }
        Ok(())
    }

    /// Waits until all run, and takes them.
    fn take(&self, all: usize) -> BTreeMap<Place, Ring> {
        let mut rings = self.lock();
        while rings.len() < all {
            rings = self.one_more.wait(rings).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut rings)
    }
}

/// One port, for as long as its guest sets things up.
#[derive(Clone)]
struct Port {
    number: usize,
    queues: u16,
    rings: Arc<Rings>,
    memory: Arc<Mutex<Option<Memory>>>,
}

impl VhostUserBackend for Port {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        usize::from(2 * self.queues)
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, memory: Memory) -> std::io::Result<()> {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    /// A ring runs from its first kick on; it gets no other, for the thread that turns it asks for none.
    fn handle_event(&self, ring: u16, _: EventSet, rings: &[VringRwLock], _: usize) -> std::io::Result<()> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(memory) = memory else { return Ok(()) };
        let state = rings[usize::from(ring)].get_ref();
        self.rings.add((self.number, ring), || Ring::new(&memory, state.get_queue()))
    }
}

fn serve(port: Port, socket: &Path) -> Result<(), String> {
    let memory = Memory::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("floor".into(), port, memory).map_err(|e| e.to_string())?;
    daemon.serve(socket).map_err(|e| e.to_string())
}

/// From each transmit queue to the partner's receive queue of the same number.
fn ways(mut rings: BTreeMap<Place, Ring>, copies: u8) -> Vec<Way> {
    let transmit: Vec<_> = rings.keys().copied().filter(|(_, ring)| ring % 2 == 1).collect();
    let pairs = transmit.into_iter().filter_map(|(port, ring)| {
        Some(Way::new(rings.remove(&(port, ring))?, rings.remove(&(port ^ 1, ring - 1))?, copies))
    });
    pairs.collect()
}

fn run(args: &Args) -> Result<(), String> {
    if !args.sockets.len().is_multiple_of(2) {
        return Err("give an even number of sockets".into());
    }
    if let Some(cpu) = args.cpu {
        // All threads inherit it.
        perf::cpu::pin(cpu)?;
    }
    let rings = Arc::<Rings>::default();
    std::thread::scope(|scope| {
        for (number, socket) in args.sockets.iter().enumerate() {
            let port =
                Port { number, queues: args.queues, rings: Arc::clone(&rings), memory: Arc::default() };
            scope.spawn(move || {
                if let Err(error) = serve(port, socket) {
                    eprintln!("floor: {}: {error}", socket.display());
                }
            });
        }
        let all = rings.take(args.sockets.len() * usize::from(2 * args.queues));
        let mut ways = ways(all, args.copies);
        loop {
            for way in &mut ways {
                way.turn(args.burst.into());
            }
        }
    })
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}
