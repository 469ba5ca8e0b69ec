//! offtheshelf: frames from one vhost-user port of a pair to the other, by vhost-user-backend and virtio-queue as they are.
//!
//! The shortest honest program that one can build on these crates: what a comparison with them is made with. It wakes by the
//! guest's kick, as they are meant to be used, takes all frames that are there, copies each out of one guest's memory and into
//! the other's, and calls once for each kick. Offloads, mergeable buffers and packed rings it has not.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use clap::Parser;
use rust_vmm_vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

/// VIRTIO_F_VERSION_1 and VIRTIO_RING_F_EVENT_IDX.
const FEATURES: u64 = 1 << 32 | 1 << 29;
/// A guest's receive queue, and its transmit queue (virtio 1.3 §5.1.2).
const RX: usize = 0;
const TX: u16 = 1;
const LONGEST: usize = 12 + 65_535;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Forwards between pairs of vhost-user sockets.
#[derive(Parser)]
struct Args {
    /// An even number of sockets to listen on.
    #[arg(required = true)]
    sockets: Vec<PathBuf>,
    /// Run on this CPU.
    #[arg(long)]
    cpu: Option<usize>,
}

/// What a port's partner needs of it.
#[derive(Default)]
struct Shared {
    rings: OnceLock<Vec<VringRwLock>>,
    memory: Mutex<Option<Memory>>,
}

/// One port.
#[derive(Clone)]
struct Port {
    own: Arc<Shared>,
    partner: Arc<Shared>,
}

impl VhostUserBackend for Port {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
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
        *self.own.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    fn handle_event(
        &self,
        device_event: u16,
        _: EventSet,
        rings: &[VringRwLock],
        _: usize,
    ) -> std::io::Result<()> {
        self.own.rings.get_or_init(|| rings.to_vec());
        if device_event != TX {
            return Ok(());
        }
        let Some(memory) = memory_of(&self.own) else { return Ok(()) };
        let ring = &rings[usize::from(TX)];
        loop {
            ring.disable_notification().map_err(std::io::Error::other)?;
            self.forward(ring, &memory)?;
            // Frames may have come in between.
            if !ring.enable_notification().map_err(std::io::Error::other)? {
                return Ok(());
            }
        }
    }
}

impl Port {
    /// Forwards all frames that are there.
    fn forward(&self, ring: &VringRwLock, memory: &Memory) -> std::io::Result<()> {
        let partner = self.partner.rings.get().map(|rings| &rings[RX]).zip(memory_of(&self.partner));
        let mut frame = vec![0; LONGEST];
        loop {
            let Some(chain) = ring.get_mut().get_queue_mut().pop_descriptor_chain(memory.memory()) else {
                break;
            };
            let head = chain.head_index();
            let guard = memory.memory();
            let len = match chain.reader(&guard) {
                Ok(mut reader) => {
                    let len = reader.available_bytes().min(LONGEST);
                    reader.read_exact(&mut frame[..len])?;
                    len
                }
                Err(_) => 0,
            };
            if let Some((to, their_memory)) = &partner {
                give(to, their_memory, &frame[..len])?;
            }
            ring.add_used(head, 0).map_err(std::io::Error::other)?;
        }
        if let Some((to, _)) = &partner
            && to.needs_notification().map_err(std::io::Error::other)?
        {
            to.signal_used_queue()?;
        }
        if ring.needs_notification().map_err(std::io::Error::other)? {
            ring.signal_used_queue()?;
        }
        Ok(())
    }
}

/// Copies a frame, its header in front, into the receiver's next buffer; without a buffer it is lost.
fn give(ring: &VringRwLock, memory: &Memory, frame: &[u8]) -> std::io::Result<()> {
    let Some(chain) = ring.get_mut().get_queue_mut().pop_descriptor_chain(memory.memory()) else {
        return Ok(());
    };
    let head = chain.head_index();
    let guard = memory.memory();
    let written = match chain.writer(&guard) {
        Ok(mut writer) => writer.write(frame)?,
        Err(_) => 0,
    };
    ring.add_used(head, written as u32).map_err(std::io::Error::other)
}

fn memory_of(port: &Shared) -> Option<Memory> {
    port.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Serves one port's guests, one after the other.
fn serve(port: &Port, socket: &PathBuf) -> Result<(), String> {
    let memory = Memory::new(GuestMemoryMmap::new());
    let mut daemon =
        VhostUserDaemon::new("offtheshelf".into(), port.clone(), memory).map_err(|e| e.to_string())?;
    daemon.serve(socket).map_err(|e| e.to_string())
}

fn run(args: &Args) -> Result<(), String> {
    if !args.sockets.len().is_multiple_of(2) {
        return Err("give an even number of sockets".into());
    }
    if let Some(cpu) = args.cpu {
        // All threads of these crates inherit it.
        perf::cpu::pin(cpu)?;
    }
    let shared: Vec<_> = args.sockets.iter().map(|_| Arc::<Shared>::default()).collect();
    std::thread::scope(|scope| {
        for (i, socket) in args.sockets.iter().enumerate() {
            let port = Port { own: Arc::clone(&shared[i]), partner: Arc::clone(&shared[i ^ 1]) };
            scope.spawn(move || {
                if let Err(error) = serve(&port, socket) {
                    eprintln!("offtheshelf: {}: {error}", socket.display());
                }
            });
        }
    });
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("offtheshelf: {error}");
            ExitCode::FAILURE
        }
    }
}
