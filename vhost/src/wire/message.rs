//! The vhost-user messages (QEMU docs/interop/vhost-user.rst). Numbers stand in the host's own byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! requests {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A message from front end to back end, by its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Request { $($(#[$doc])* $variant = $number,)* }

        impl Request {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The specification's name for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl TryFrom<u32> for Request {
            type Error = UnknownRequest;
            fn try_from(number: u32) -> Result<Self, UnknownRequest> {
                match number { $($number => Ok(Self::$variant),)* _ => Err(UnknownRequest(number)) }
            }
        }
    };
}

/// No message has this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown vhost-user request {0}")]
pub struct UnknownRequest(pub u32);

requests! {
    /// No payload; reply `u64`.
    GetFeatures = 1, "GET_FEATURES";
    /// `u64`.
    SetFeatures = 2, "SET_FEATURES";
    /// No payload.
    SetOwner = 3, "SET_OWNER";
    /// No payload.
    ResetOwner = 4, "RESET_OWNER";
    /// [`MemoryTableHead`], then a [`MemoryRegion`] and a descriptor for each region.
    SetMemTable = 5, "SET_MEM_TABLE";
    /// [`LogBase`] and a descriptor; reply `u64`. With LOG_SHMFD.
    SetLogBase = 6, "SET_LOG_BASE";
    /// One descriptor.
    SetLogFd = 7, "SET_LOG_FD";
    /// [`VringState`]: descriptors of the ring.
    SetVringNum = 8, "SET_VRING_NUM";
    /// [`VringAddr`].
    SetVringAddr = 9, "SET_VRING_ADDR";
    /// [`VringState`]: the next available index.
    SetVringBase = 10, "SET_VRING_BASE";
    /// [`VringState`] (its `num` unused); reply [`VringState`].
    GetVringBase = 11, "GET_VRING_BASE";
    /// `u64` as [`vring_fd`] says, and a descriptor unless it says none.
    SetVringKick = 12, "SET_VRING_KICK";
    /// As [`Self::SetVringKick`].
    SetVringCall = 13, "SET_VRING_CALL";
    /// As [`Self::SetVringKick`].
    SetVringErr = 14, "SET_VRING_ERR";
    /// No payload; reply `u64`.
    GetProtocolFeatures = 15, "GET_PROTOCOL_FEATURES";
    /// `u64`.
    SetProtocolFeatures = 16, "SET_PROTOCOL_FEATURES";
    /// No payload; reply `u64`: rings or pairs, front ends differ. With MQ.
    GetQueueNum = 17, "GET_QUEUE_NUM";
    /// [`VringState`]: 1 or 0. With PROTOCOL_FEATURES.
    SetVringEnable = 18, "SET_VRING_ENABLE";
    /// `u64`: the MAC address in its first six bytes. With RARP.
    SendRarp = 19, "SEND_RARP";
    /// `u64`: bytes. With MTU.
    NetSetMtu = 20, "NET_SET_MTU";
    /// One descriptor, a socket. With BACKEND_REQ.
    SetBackendReqFd = 21, "SET_BACKEND_REQ_FD";
    /// With IOMMU_PLATFORM.
    IotlbMsg = 22, "IOTLB_MSG";
    /// [`VringState`]. With CROSS_ENDIAN.
    SetVringEndian = 23, "SET_VRING_ENDIAN";
    /// [`ConfigHead`] and as many bytes as it says; reply the same. With CONFIG.
    GetConfig = 24, "GET_CONFIG";
    /// [`ConfigHead`] and as many bytes as it says. With CONFIG.
    SetConfig = 25, "SET_CONFIG";
    /// With CRYPTO_SESSION.
    CreateCryptoSession = 26, "CREATE_CRYPTO_SESSION";
    /// With CRYPTO_SESSION.
    CloseCryptoSession = 27, "CLOSE_CRYPTO_SESSION";
    /// With PAGEFAULT.
    PostcopyAdvise = 28, "POSTCOPY_ADVISE";
    /// With PAGEFAULT.
    PostcopyListen = 29, "POSTCOPY_LISTEN";
    /// With PAGEFAULT.
    PostcopyEnd = 30, "POSTCOPY_END";
    /// With INFLIGHT_SHMFD.
    GetInflightFd = 31, "GET_INFLIGHT_FD";
    /// With INFLIGHT_SHMFD.
    SetInflightFd = 32, "SET_INFLIGHT_FD";
    /// One descriptor. Of GPU devices.
    GpuSetSocket = 33, "GPU_SET_SOCKET";
    /// No payload. With RESET_DEVICE.
    ResetDevice = 34, "RESET_DEVICE";
    /// [`VringState`]. With INBAND_NOTIFICATIONS.
    VringKick = 35, "VRING_KICK";
    /// No payload; reply `u64`. With CONFIGURE_MEM_SLOTS.
    GetMaxMemSlots = 36, "GET_MAX_MEM_SLOTS";
    /// [`SingleRegion`] and a descriptor. With CONFIGURE_MEM_SLOTS.
    AddMemReg = 37, "ADD_MEM_REG";
    /// [`SingleRegion`]. With CONFIGURE_MEM_SLOTS.
    RemMemReg = 38, "REM_MEM_REG";
    /// `u64`: the virtio device status. With STATUS.
    SetStatus = 39, "SET_STATUS";
    /// No payload; reply `u64`. With STATUS.
    GetStatus = 40, "GET_STATUS";
    /// With SHARED_OBJECT.
    GetSharedObject = 41, "GET_SHARED_OBJECT";
    /// With DEVICE_STATE.
    SetDeviceStateFd = 42, "SET_DEVICE_STATE_FD";
    /// With DEVICE_STATE.
    CheckDeviceState = 43, "CHECK_DEVICE_STATE";
}

/// What every message starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// A [`Request`]'s number.
    pub request: u32,
    /// [`flags`].
    pub flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

/// A header's `flags`.
pub mod flags {
    /// Bits 0 and 1: the protocol's version.
    pub const VERSION_MASK: u32 = 0x3;
    /// The only version there is.
    pub const VERSION: u32 = 0x1;
    /// This is a reply.
    pub const REPLY: u32 = 1 << 2;
    /// The sender wants a `u64` back, 0 if all went well. With REPLY_ACK.
    pub const NEED_REPLY: u32 = 1 << 3;
}

/// One ring and one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VringState {
    /// The ring: receive queues of the guest are even, transmit queues odd.
    pub index: u32,
    /// What the message says it is.
    pub num: u32,
}

/// Where a ring lies, in the front end's own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VringAddr {
    /// The ring.
    pub index: u32,
    /// [`VRING_ADDR_F_LOG`].
    pub flags: u32,
    /// The descriptor table.
    pub desc: u64,
    /// The used ring.
    pub used: u64,
    /// The available ring.
    pub avail: u64,
    /// The used ring's guest-physical address, for the log.
    pub log: u64,
}

/// A ring's writes to its used ring are to be logged.
pub const VRING_ADDR_F_LOG: u32 = 1 << 0;

/// The `u64` of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
pub mod vring_fd {
    /// The ring.
    pub const INDEX_MASK: u64 = 0xff;
    /// No descriptor comes along: poll (kick), or tell nobody (call, err).
    pub const NO_FD: u64 = 1 << 8;
}

/// One region of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRegion {
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub size: u64,
    /// Address in the front end's space.
    pub va: u64,
    /// Where it starts in the descriptor's file.
    pub mmap_offset: u64,
}

/// The head of SET_MEM_TABLE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryTableHead {
    /// Regions that follow.
    pub regions: u32,
    /// Nothing.
    pub padding: u32,
}

/// ADD_MEM_REG and REM_MEM_REG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SingleRegion {
    /// Nothing.
    pub padding: u64,
    /// The region.
    pub region: MemoryRegion,
}

/// SET_LOG_BASE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LogBase {
    /// Bytes of the log.
    pub mmap_size: u64,
    /// Where it starts in the descriptor's file.
    pub mmap_offset: u64,
}

/// The head of GET_CONFIG and SET_CONFIG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigHead {
    /// Where in the virtio configuration space.
    pub offset: u32,
    /// Bytes that follow.
    pub size: u32,
    /// 1: a write by the migration, not by the guest.
    pub flags: u32,
}

/// Protocol features (bits).
pub mod protocol {
    /// Several queues; GET_QUEUE_NUM.
    pub const F_MQ: u64 = 1 << 0;
    /// The dirty log comes as shared memory.
    pub const F_LOG_SHMFD: u64 = 1 << 1;
    /// SEND_RARP.
    pub const F_RARP: u64 = 1 << 2;
    /// Any message can ask for an answer.
    pub const F_REPLY_ACK: u64 = 1 << 3;
    /// NET_SET_MTU.
    pub const F_MTU: u64 = 1 << 4;
    /// A channel for requests of the back end.
    pub const F_BACKEND_REQ: u64 = 1 << 5;
    /// SET_VRING_ENDIAN.
    pub const F_CROSS_ENDIAN: u64 = 1 << 6;
    /// Crypto sessions.
    pub const F_CRYPTO_SESSION: u64 = 1 << 7;
    /// Post-copy migration.
    pub const F_PAGEFAULT: u64 = 1 << 8;
    /// GET_CONFIG and SET_CONFIG.
    pub const F_CONFIG: u64 = 1 << 9;
    /// The back end's requests carry descriptors.
    pub const F_BACKEND_SEND_FD: u64 = 1 << 10;
    /// The back end shares doorbells.
    pub const F_HOST_NOTIFIER: u64 = 1 << 11;
    /// GET_INFLIGHT_FD and SET_INFLIGHT_FD.
    pub const F_INFLIGHT_SHMFD: u64 = 1 << 12;
    /// RESET_DEVICE.
    pub const F_RESET_DEVICE: u64 = 1 << 13;
    /// Kicks and calls as messages.
    pub const F_INBAND_NOTIFICATIONS: u64 = 1 << 14;
    /// GET_MAX_MEM_SLOTS, ADD_MEM_REG and REM_MEM_REG.
    pub const F_CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// SET_STATUS and GET_STATUS.
    pub const F_STATUS: u64 = 1 << 16;
    /// Xen's mappings.
    pub const F_XEN_MMAP: u64 = 1 << 17;
    /// Shared objects.
    pub const F_SHARED_OBJECT: u64 = 1 << 18;
    /// The back end's state migrates.
    pub const F_DEVICE_STATE: u64 = 1 << 19;
}

/// Most regions of one SET_MEM_TABLE.
pub const MAX_TABLE_REGIONS: usize = 8;
/// Most descriptors of one message: a region each.
pub const MAX_FDS: usize = MAX_TABLE_REGIONS;
/// Most bytes of configuration in one GET_CONFIG or SET_CONFIG.
pub const MAX_CONFIG: usize = 256;
/// Longest payload of any message: a full memory table, or a configuration.
pub const MAX_PAYLOAD: usize = 512;

const _: () = {
    assert!(size_of::<Header>() == 12);
    assert!(size_of::<VringState>() == 8);
    assert!(size_of::<VringAddr>() == 40);
    assert!(size_of::<MemoryRegion>() == 32);
    assert!(size_of::<MemoryTableHead>() == 8);
    assert!(size_of::<SingleRegion>() == 40);
    assert!(size_of::<LogBase>() == 16);
    assert!(size_of::<ConfigHead>() == 12);
    assert!(size_of::<MemoryTableHead>() + MAX_TABLE_REGIONS * size_of::<MemoryRegion>() <= MAX_PAYLOAD);
    assert!(size_of::<ConfigHead>() + MAX_CONFIG <= MAX_PAYLOAD);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_there_and_back() {
        for (i, &request) in Request::ALL.iter().enumerate() {
            assert_eq!(request as u32 as usize, i + 1, "no gap in the numbers");
            assert_eq!(Request::try_from(request as u32), Ok(request));
            assert!(!request.name().is_empty());
        }
    }

    #[test]
    fn c01_numbers_that_are_no_request() {
        for number in [0, 44, 255, 256, 257, 0x101, u32::MAX] {
            assert_eq!(Request::try_from(number), Err(UnknownRequest(number)));
        }
    }
}
