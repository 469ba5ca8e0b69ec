//! `PATH[,queues=N][,client][,mtu=N][,memory=SIZE][,uid=N]...`

use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use pmd::PortError;

use crate::session::{MAX_PATH, MIN_MTU, UidPolicy};

/// Most queue pairs: a ring's number has eight bits in some messages.
const MAX_QUEUES: u16 = 128;
/// What a limit of guest memory may be: no table is smaller, and no process has room for more.
const MEMORY: RangeInclusive<u64> = 1 << 20..=64 << 40;
const MEMORY_IS_DUE: &str = "bytes from 1M to 64T, as in memory=64G (K, M, G, T: powers of 1024)";

/// What a vhost-user port is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserSpec {
    /// The Unix socket: at most 107 bytes.
    pub path: PathBuf,
    /// Queue pairs, 1 to 128. A guest may use fewer.
    pub queues: u16,
    /// Connect to a front end that listens at `path`, instead of listening there.
    pub client: bool,
    /// The largest MTU that a front end may set, 68 to 65,535; any if `None`.
    pub mtu: Option<u16>,
    /// Most bytes of guest memory that a front end may have mapped, 1 MiB to 64 TiB; so many are set aside for the port. 1 TiB
    /// if `None`, of which 60 GiB are set aside.
    pub memory: Option<u64>,
    /// Whose processes may be front ends, besides root's and our own. If there are none, we run as root and listen,
    /// anybody's may whom the socket's file lets in: its mode is 0660, so its owner and group say who that is. In client mode
    /// the file is the front end's and says nothing: whoever can write in its directory can listen there.
    pub uids: Vec<u32>,
}

impl VhostUserSpec {
    /// A server with one queue pair.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), queues: 1, client: false, mtu: None, memory: None, uids: Vec::new() }
    }

    /// Checks what a field can hold but a port cannot use.
    pub(super) fn check(&self) -> Result<(), PortError> {
        let path = self.path.as_os_str().as_bytes();
        if path.is_empty() || path.contains(&0) {
            return wrong("vhost-user: a path to a socket is due, as in vhost-user:/run/polder/vm1.sock");
        }
        if path.len() > MAX_PATH {
            let (shown, len) = (self.path.display(), path.len());
            return wrong(format!("{shown}: {len} bytes; a socket's path has at most {MAX_PATH}"));
        }
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return wrong(format!("queues={}: 1 to {MAX_QUEUES} is due", self.queues));
        }
        if let Some(memory) = self.memory.filter(|memory| !MEMORY.contains(memory)) {
            return wrong(format!("memory={memory}: {MEMORY_IS_DUE} is due"));
        }
        match self.mtu {
            Some(mtu) if mtu < MIN_MTU => wrong(format!("mtu={mtu}: {MIN_MTU} to 65535 is due")),
            _ => Ok(()),
        }
    }

    pub(super) fn uid_policy(&self) -> UidPolicy {
        let us = rustix::process::geteuid().as_raw();
        if self.uids.is_empty() && us == 0 && !self.client {
            return UidPolicy::Any;
        }
        UidPolicy::Listed([&[0, us], self.uids.as_slice()].concat())
    }

    /// For `top -H` and debuggers; the kernel keeps its first 15 bytes.
    pub(super) fn thread_name(&self) -> String {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        format!("vhost:{name}")
    }

    fn set(&mut self, option: &str) -> Result<(), PortError> {
        match option.split_once('=') {
            None if option == "client" => self.client = true,
            Some(("queues", n)) => self.queues = number("queues", n, "1 to 128")?,
            Some(("mtu", n)) => self.mtu = Some(number("mtu", n, "68 to 65535")?),
            Some(("memory", size)) => self.memory = Some(bytes(size)?),
            Some(("uid", n)) => self.uids.push(number("uid", n, "a user's number (see id -u)")?),
            _ => {
                return wrong(format!(
                    "vhost-user: unknown option {option:?}; there are queues=N, client, mtu=N, memory=SIZE and uid=N"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for VhostUserSpec {
    type Err = PortError;

    /// The part of a port's specification behind `vhost-user:`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let mut words = text.split(',');
        let mut spec = Self::new(words.next().unwrap_or_default());
        words.try_for_each(|option| spec.set(option))?;
        spec.check()?;
        Ok(spec)
    }
}

fn wrong<T>(why: impl Into<String>) -> Result<T, PortError> {
    Err(PortError::Spec(why.into()))
}

fn number<N: FromStr>(option: &str, text: &str, due: &str) -> Result<N, PortError> {
    text.parse().or_else(|_| wrong(format!("{option}={text}: {due} is due")))
}

/// A number of bytes, with K, M, G or T behind it for powers of 1024.
fn bytes(text: &str) -> Result<u64, PortError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let size = || digits.parse::<u64>().ok()?.checked_mul(1 << shift?);
    size().map_or_else(|| wrong(format!("memory={text}: {MEMORY_IS_DUE} is due")), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_options() {
        let spec: VhostUserSpec =
            "/run/a.sock,queues=4,client,mtu=9000,memory=64G,uid=64055,uid=107".parse().expect("good");
        let uids = vec![64055, 107];
        let path = PathBuf::from("/run/a.sock");
        let memory = Some(64 << 30);
        assert_eq!(spec, VhostUserSpec { path, queues: 4, client: true, mtu: Some(9000), memory, uids });
        assert_eq!("x.sock".parse::<VhostUserSpec>().expect("good"), VhostUserSpec::new("x.sock"));
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let long = format!("/tmp/{}", "x".repeat(103));
        for (text, says) in [
            ("", "a path"),
            ("a\0b", "a path"),
            (long.as_str(), "at most 107"),
            ("a,queues=0", "1 to 128"),
            ("a,queues=129", "1 to 128"),
            ("a,queues=many", "1 to 128"),
            ("a,queues=99999", "1 to 128"),
            ("a,mtu=67", "68 to 65535"),
            ("a,mtu=65536", "68 to 65535"),
            ("a,memory=", "1M to 64T"),
            ("a,memory=G", "1M to 64T"),
            ("a,memory=64GB", "1M to 64T"),
            ("a,memory=1023K", "1M to 64T"),
            ("a,memory=65T", "1M to 64T"),
            ("a,memory=18446744073709551615T", "1M to 64T"),
            ("a,uid=root", "id -u"),
            ("a,server", "there are queues=N"),
            ("a,", "there are queues=N"),
        ] {
            let e = text.parse::<VhostUserSpec>().expect_err(text).to_string();
            assert!(e.contains(says), "{text:?}: {e}");
        }
        assert!(long[..107].parse::<VhostUserSpec>().is_ok(), "107 bytes are not too many");
    }
}
