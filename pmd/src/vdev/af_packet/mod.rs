//! AF_PACKET: an interface that exists already (a NIC, a veth, a bridge's port), by packet sockets.
//!
//! The interface is set to promiscuous mode and the port gets a copy of each frame that comes in by it; the host's own
//! stack gets it too, so the interface should have no addresses. What the port sends goes out by the interface past its
//! queueing discipline. Frames go both ways with their checksum and TCP segmentation offloads, by virtio-net headers; UDP
//! segmentation is done in software, since not every kernel knows it here.
//!
//! One system call a burst each way, and one copy.

mod mmsg;
mod rx;
pub(crate) mod socket;
mod tx;

use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;

use crate::offload::OffloadSet;
use crate::vdev::interface::Interface;
use crate::vdev::life::Owner;
use crate::vdev::spec::{check_interface, check_queues, interface_and_queues};
use crate::{Link, Port, PortCounters, PortError, QueueEnv, Queues};

use rx::AfPacketRx;
use tx::AfPacketTx;

/// What the kernel takes with a virtio-net header on a packet socket, whatever its version.
const ACCEPTED: OffloadSet =
    OffloadSet::CSUM.union(OffloadSet::TSO4).union(OffloadSet::TSO6).union(OffloadSet::ECN);
/// What the kernel may say of a frame that it gives us.
const ALLOWED: OffloadSet = OffloadSet::ALL.union(OffloadSet::DATA_VALID);

/// Which interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfPacketConfig {
    /// Its name.
    pub interface: String,
    /// Queues each way, 1 to 16: the kernel spreads flows over them by their hash.
    pub queues: usize,
}

impl FromStr for AfPacketConfig {
    type Err = PortError;

    fn from_str(rest: &str) -> Result<Self, PortError> {
        let (interface, queues) = interface_and_queues("af_packet", rest)?;
        Ok(Self { interface, queues })
    }
}

/// The port.
#[derive(Debug)]
pub struct AfPacketPort {
    owner: Owner,
    counters: PortCounters,
    interface: Interface,
    fds: Vec<Arc<OwnedFd>>,
}

impl AfPacketPort {
    /// Opens the sockets, and sets the interface up if it is not.
    ///
    /// # Errors
    /// [`PortError`]: says what is missing (the interface, the right).
    pub fn new(config: &AfPacketConfig) -> Result<Self, PortError> {
        check_interface("af_packet", &config.interface)?;
        check_queues("af_packet", config.queues)?;
        let no_socket =
            |source| PortError::Os { what: "cannot make a socket for interface calls".into(), source };
        let interface = Interface::new(&config.interface).map_err(no_socket)?;
        let index =
            interface.index().map_err(|e| interface.error("find (`ip link` lists those there are)", e))?;
        // Before the sockets: one that is bound to an interface that is down has an error waiting.
        interface.bring_up()?;
        let fds = sockets(index, config.queues).map_err(|e| interface.error(refused(&e), e))?;
        Ok(Self {
            owner: Owner::new(),
            counters: PortCounters::new(config.queues, config.queues),
            interface,
            fds: fds.into_iter().map(Arc::new).collect(),
        })
    }
}

fn refused(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM) => "open a packet socket (run as root, or with CAP_NET_RAW) on",
        Some(libc::ENOPROTOOPT | libc::EINVAL) => {
            "set the packet socket's options (Linux 4.20 and later have them) on"
        }
        _ => "open a packet socket on",
    }
}

fn sockets(index: u32, queues: usize) -> io::Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    let mut group = None;
    for _ in 0..queues {
        let fd = socket::open(index)?;
        if queues > 1 {
            group = Some(socket::join(&fd, group)?);
        }
        fds.push(fd);
    }
    Ok(fds)
}

impl Port for AfPacketPort {
    fn kind(&self) -> &'static str {
        "af_packet"
    }

    fn open(&mut self, env: QueueEnv) -> Result<Queues, PortError> {
        self.owner.check_unopened()?;
        self.owner.set_opened();
        let mut queues = Queues::default();
        for (i, fd) in self.fds.drain(..).enumerate() {
            let life = self.owner.life();
            queues.rx.push(Box::new(AfPacketRx::new(
                life.clone(),
                fd.clone(),
                self.counters.rx[i].clone(),
                env,
            )));
            queues.tx.push(Box::new(AfPacketTx::new(life, fd, self.counters.tx[i].clone())));
        }
        Ok(queues)
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        self.interface.link()
    }

    fn max_frame(&self) -> usize {
        self.interface.mtu().map_or(1514, |mtu| mtu + 14)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("interface", self.interface.name().to_owned())]
    }
}
