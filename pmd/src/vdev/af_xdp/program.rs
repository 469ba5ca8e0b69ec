//! The XDP program that sends an interface's frames to our sockets, and its place on the interface.
//!
//! It is six instructions, written out here: `return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS)`. A queue
//! without a socket keeps its frames for the host. A BPF loader library would bring an ELF parser and some twenty crates
//! to do this.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::vdev::af_xdp::bpf;

const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// A map of sockets and the program over it.
#[derive(Debug)]
pub(crate) struct Program {
    sockets: OwnedFd,
    program: OwnedFd,
}

/// Where on the frames' way the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// In the interface's driver.
    Native,
    /// In the host's stack, before all else, since the driver has no place for it: slower, and never without a copy.
    Generic,
}

impl Attached {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// The program's place on an interface: it is there until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Place {
    _link: OwnedFd,
    pub(crate) attached: Attached,
}

impl Program {
    /// Loads it, for queues below `queues`.
    pub(crate) fn load(queues: u32) -> io::Result<Self> {
        let sockets = bpf::create_socket_map(queues)?;
        let instructions = instructions(&sockets);
        let program = match bpf::load_program(&instructions, true) {
            // Linux before 5.18 has frames in one buffer only.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => bpf::load_program(&instructions, false),
            done => done,
        }?;
        Ok(Self { sockets, program })
    }

    /// Frames of `queue` go to `socket` from here on.
    pub(crate) fn send_to(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::put_socket(self.sockets.as_fd(), queue, socket)
    }

    /// Attaches it to interface `index`: in its driver, or if that has no XDP at all in the stack.
    pub(crate) fn attach(&self, index: u32) -> io::Result<Place> {
        let attach = |flags, attached| {
            let link = bpf::link_to_interface(self.program.as_fd(), index, flags)?;
            Ok(Place { _link: link, attached })
        };
        attach(XDP_FLAGS_DRV_MODE, Attached::Native).or_else(|e: io::Error| match e.raw_os_error() {
            Some(libc::EOPNOTSUPP) => attach(XDP_FLAGS_SKB_MODE, Attached::Generic),
            _ => Err(e),
        })
    }
}

/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: u16 = 16;
const XDP_PASS: u32 = 2;
const BPF_FUNC_REDIRECT_MAP: u32 = 51;

/// The program (the kernel's Documentation/bpf/standardization/instruction-set.rst).
fn instructions(sockets: &OwnedFd) -> [u64; 6] {
    const LDX_W: u8 = 0x61;
    const LD_IMM64: u8 = 0x18;
    const MOV64_K: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const PSEUDO_MAP_FD: u8 = 1;
    let (r1, r2, r3) = (1, 2, 3);
    [
        instruction(LDX_W, r2, r1, RX_QUEUE_INDEX, 0),
        instruction(LD_IMM64, r1, PSEUDO_MAP_FD, 0, sockets.as_raw_fd() as u32),
        instruction(0, 0, 0, 0, 0),
        instruction(MOV64_K, r3, 0, 0, XDP_PASS),
        instruction(CALL, 0, 0, 0, BPF_FUNC_REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// `struct bpf_insn`: opcode, destination and source register, offset, immediate.
fn instruction(opcode: u8, destination: u8, source: u8, offset: u16, immediate: u32) -> u64 {
    let [offset_low, offset_high] = offset.to_ne_bytes();
    let registers =
        if cfg!(target_endian = "little") { destination | source << 4 } else { source | destination << 4 };
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([opcode, registers, offset_low, offset_high, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_instruction_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(instruction(0x61, 2, 1, 16, 0), 0x0000_0000_0010_1261);
        assert_eq!(instruction(0xb7, 3, 0, 0, 2), 0x0000_0002_0000_03b7);
        assert_eq!(instruction(0x95, 0, 0, 0, 0), 0x95);
    }
}
