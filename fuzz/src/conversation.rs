//! What a front end and its guest do, as bytes: what the target `session` reads, and what honest front ends are recorded as.

use vhost::wire::message::{
    MemoryRegion, MemoryTableHead, Request, SingleRegion, VringAddr, VringState, flags, protocol,
};
use vhost::wire::net;
use zerocopy::IntoBytes;

use crate::input::Input;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A message, whole.
    Message(Message),
    /// Bytes as they are: half a message, or none.
    Raw(Vec<u8>),
    /// Waits until everything before was dealt with.
    Barrier,
    /// The switch takes a burst from each ring that the guest sends by.
    Receive,
    /// The switch sends so many frames by each ring that the guest receives by.
    Send(u8),
    /// The lcore wants to sleep, and is woken.
    Sleep,
    /// The guest writes eight bytes of its memory.
    Write { at: u32, value: u64 },
    /// The front end cuts its memory to so many pages.
    Truncate { pages: u16 },
    /// The front end hangs up and comes again.
    Reconnect,
}

/// A message as the front end sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub request: u32,
    pub flags: u32,
    /// As the header says; without, as many bytes as there are.
    pub size: Option<u32>,
    /// What it carries, each by [`Kind`]'s number.
    pub descriptors: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A descriptor that a message can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The guest's memory: a memfd of [`MEMORY`] bytes.
    Memory,
    /// A second one, as long.
    OtherMemory,
    /// An eventfd.
    Event,
    /// A memfd of 5000 bytes.
    OddSize,
    /// A memfd of no bytes.
    Empty,
    /// A memfd that is sealed against writing.
    WriteSealed,
    /// The guest's memory, opened for reading.
    ReadOnly,
    /// The guest's memory, as a path alone.
    Path,
    /// An eventfd that can count no further.
    FullEvent,
    /// A pipe's end to read.
    PipeReader,
    /// A pipe's end to write.
    PipeWriter,
    /// A socket whose other end is closed.
    Socket,
    /// The very socket by which it is sent.
    OwnSocket,
    /// A folder.
    Folder,
    /// A device file.
    Null,
    /// An epoll set.
    Epoll,
}

impl Kind {
    pub const ALL: [Self; 16] = [
        Self::Memory,
        Self::OtherMemory,
        Self::Event,
        Self::OddSize,
        Self::Empty,
        Self::WriteSealed,
        Self::ReadOnly,
        Self::Path,
        Self::FullEvent,
        Self::PipeReader,
        Self::PipeWriter,
        Self::Socket,
        Self::OwnSocket,
        Self::Folder,
        Self::Null,
        Self::Epoll,
    ];

    /// From its number, or any.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        Self::ALL[usize::from(byte) % Self::ALL.len()]
    }
}

/// Bytes of the guest's memory.
pub const MEMORY: u64 = 4 << 20;
/// Where a front end that makes up its own table has it.
const VA: u64 = 0x7f00_0000_0000;
/// Longest run of steps.
pub const MOST: usize = 64;

/// Bits of a message's second byte; the lowest two are the number of descriptors, 3 meaning that it follows.
mod how {
    pub(super) const NEED_REPLY: u8 = 1 << 2;
    pub(super) const RAW_HEADER: u8 = 1 << 3;
    pub(super) const TYPED: u8 = 1 << 4;
}

impl Step {
    /// The next one.
    pub fn read(input: &mut Input<'_>) -> Option<Self> {
        let first = input.byte()?;
        if first & 0x40 == 0 {
            return Message::read(first & 0x3f, input).map(Self::Message);
        }
        Some(match first & 0xf {
            0 => Self::Receive,
            1 => Self::Send(input.byte()?),
            2 => Self::Sleep,
            3 => Self::Truncate { pages: input.u16()? },
            4 => Self::Reconnect,
            5 => {
                let len = input.byte()?;
                Self::Raw(input.bytes(len.into()).to_vec())
            }
            6 | 7 => Self::Write { at: (input.u32()? % MEMORY as u32) & !7, value: input.u64()? },
            _ => Self::Barrier,
        })
    }

    /// Writes it as [`read`](Self::read) reads it.
    pub fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Message(message) => message.write(to),
            Self::Receive => to.push(0x40),
            Self::Send(count) => to.extend([0x41, *count]),
            Self::Sleep => to.push(0x42),
            Self::Truncate { pages } => {
                to.push(0x43);
                to.extend(pages.to_le_bytes());
            }
            Self::Reconnect => to.push(0x44),
            Self::Raw(bytes) => {
                to.extend([0x45, bytes.len() as u8]);
                to.extend(bytes);
            }
            Self::Write { at, value } => {
                to.push(0x46);
                to.extend(at.to_le_bytes());
                to.extend(value.to_le_bytes());
            }
            Self::Barrier => to.push(0x4f),
        }
    }
}

impl Message {
    fn read(number: u8, input: &mut Input<'_>) -> Option<Self> {
        let request = if number == 0 { input.u32()? } else { number.into() };
        let how = input.byte()?;
        let count = if how & 3 == 3 { input.byte()? % 10 } else { how & 3 };
        let descriptors = input.bytes(count.into()).to_vec();
        let need_reply = if how & how::NEED_REPLY != 0 { flags::NEED_REPLY } else { 0 };
        let (flags, size) = if how & how::RAW_HEADER != 0 {
            (input.u32()?, Some(input.u32()?))
        } else {
            (flags::VERSION | need_reply, None)
        };
        let payload = if how & how::TYPED != 0 {
            payload(request, input)?
        } else {
            let len = input.u16()? % 600;
            input.bytes(len.into()).to_vec()
        };
        Some(Self { request, flags, size, descriptors, payload })
    }

    fn write(&self, to: &mut Vec<u8>) {
        if self.request > 0 && self.request < 0x40 {
            to.push(self.request as u8);
        } else {
            to.push(0);
            to.extend(self.request.to_le_bytes());
        }
        let need_reply = if self.flags & flags::NEED_REPLY != 0 { how::NEED_REPLY } else { 0 };
        let count = self.descriptors.len() as u8;
        if count < 3 {
            to.push(need_reply | count);
        } else {
            to.extend([need_reply | 3, count]);
        }
        to.extend(&self.descriptors);
        to.extend((self.payload.len() as u16).to_le_bytes());
        to.extend(&self.payload);
    }
}

/// The payload of a message, made of values that are likely to be right or to be just wrong.
fn payload(request: u32, input: &mut Input<'_>) -> Option<Vec<u8>> {
    use Request as R;
    let Ok(request) = Request::try_from(request) else { return Some(input.u64()?.as_bytes().to_vec()) };
    Some(match request {
        R::SetFeatures => {
            let usual = net::F_VERSION_1 | net::F_PROTOCOL_FEATURES;
            (usual ^ input.pick_bits(&FEATURES)?).as_bytes().to_vec()
        }
        R::SetProtocolFeatures => input.pick_bits(&PROTOCOL_FEATURES)?.as_bytes().to_vec(),
        R::SetMemTable => {
            let regions = input.byte()? % 10;
            let mut bytes = MemoryTableHead { regions: regions.into(), padding: 0 }.as_bytes().to_vec();
            for _ in 0..regions {
                bytes.extend(region(input)?.as_bytes());
            }
            bytes
        }
        R::AddMemReg | R::RemMemReg => {
            SingleRegion { padding: 0, region: region(input)? }.as_bytes().to_vec()
        }
        R::SetVringNum => state(input, &[8, 0, 1, 2, 3, 16, 256, 1024, 32_768, 32_769, 1 << 16, u32::MAX])?,
        R::SetVringBase | R::GetVringBase => {
            state(input, &[0, 0x8000_8000, 1, 7, 0x7fff, 0xffff, 0x8000, 1 << 16, 0x8007_0000, u32::MAX])?
        }
        R::SetVringEnable | R::SetVringEndian | R::VringKick => state(input, &[1, 0, 2, u32::MAX])?,
        R::SetVringAddr => addr(input)?.as_bytes().to_vec(),
        R::SetVringKick | R::SetVringCall | R::SetVringErr => {
            input.pick(&[0u64, 1, 2, 3, 0x100, 0x101, 4, 0xff, 1 << 63])?.as_bytes().to_vec()
        }
        R::NetSetMtu => {
            input.pick(&[1500u64, 0, 67, 68, 9000, 65_535, 65_536, u64::MAX])?.as_bytes().to_vec()
        }
        R::SetStatus => u64::from(input.byte()?).as_bytes().to_vec(),
        _ => Vec::new(),
    })
}

const FEATURES: [u64; 16] = [
    net::F_RING_PACKED,
    net::F_MRG_RXBUF,
    net::F_INDIRECT_DESC,
    net::F_EVENT_IDX,
    net::F_IN_ORDER,
    net::F_CSUM,
    net::F_GUEST_CSUM,
    net::F_HOST_TSO4,
    net::F_GUEST_TSO4,
    net::F_MQ,
    net::F_MTU,
    net::F_PROTOCOL_FEATURES,
    net::F_VERSION_1,
    net::F_LOG_ALL,
    net::F_ACCESS_PLATFORM,
    1 << 63,
];

const PROTOCOL_FEATURES: [u64; 9] = [
    protocol::F_REPLY_ACK,
    protocol::F_MQ,
    protocol::F_CONFIGURE_MEM_SLOTS,
    protocol::F_MTU,
    protocol::F_RARP,
    protocol::F_STATUS,
    protocol::F_RESET_DEVICE,
    protocol::F_CONFIG,
    1 << 63,
];

fn state(input: &mut Input<'_>, numbers: &[u32]) -> Option<Vec<u8>> {
    let (index, num) = (input.pick(&INDEXES)?, input.pick(numbers)?);
    Some(VringState { index, num }.as_bytes().to_vec())
}

const INDEXES: [u32; 8] = [0, 1, 2, 3, 0, 1, 4, u32::MAX];

fn region(input: &mut Input<'_>) -> Option<MemoryRegion> {
    const MIB: u64 = 1 << 20;
    Some(MemoryRegion {
        gpa: input.pick(&[0, MIB, 2 * MIB, 4 * MIB, 4096, 1, 1 << 62, u64::MAX - 4095])?,
        size: input.pick(&[MIB, 2 * MIB, MEMORY, 4096, 0, 5000, 1 << 44, 1 << 47, u64::MAX - 4095])?,
        va: VA + input.pick(&[0, MIB, 2 * MIB, 4 * MIB, 4096, 1, 1 << 62, u64::MAX - VA - 4095])?,
        mmap_offset: input.pick(&[0, MIB, 2 * MIB, 4096, 1, 1 << 62, u64::MAX - 4095])?,
    })
}

fn addr(input: &mut Input<'_>) -> Option<VringAddr> {
    const AT: [u64; 12] = [
        0,
        0x4000,
        0x8000,
        0x1_0000,
        0x1_4000,
        0x1_8000,
        (1 << 20) - 64,
        1,
        8,
        MEMORY,
        1 << 62,
        u64::MAX - VA,
    ];
    let mut at = || input.pick(&AT).map(|at| VA + at);
    let (desc, avail, used) = (at()?, at()?, at()?);
    Some(VringAddr {
        index: input.pick(&INDEXES)?,
        flags: input.pick(&[0, 0, 0, 1])?,
        desc,
        used,
        avail,
        log: 0,
    })
}
