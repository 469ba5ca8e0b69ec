//! Lists of system calls as seccomp filters.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::lists;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The compiled filters.
#[derive(Debug)]
pub(super) struct Filters {
    /// Of every thread; what it lacks fails with EPERM.
    pub(super) process: BpfProgram,
    /// What it lacks kills the process.
    pub(super) lcore: BpfProgram,
    pub(super) session: BpfProgram,
    /// A session that connects by itself: sockets, of Unix alone.
    pub(super) client_session: BpfProgram,
    /// Refuses, politely, what a panic would like to know.
    pub(super) polite: BpfProgram,
}

impl Filters {
    pub(super) fn compile() -> io::Result<Self> {
        let kill = SeccompAction::KillProcess;
        let refuse = |errno: i32| SeccompAction::Errno(errno as u32);
        let allow = SeccompAction::Allow;
        let polite = |calls: Vec<i64>| [calls, lists::REFUSED.to_vec()].concat();
        let mut session = allowed(&polite(lists::session()))?;
        // Whether a connection that is closed has anything unread (decision 0018).
        session.insert(libc::SYS_ioctl, vec![only(1, SeccompCmpOp::Eq, libc::FIONREAD)?]);
        let mut client = session.clone();
        client.insert(libc::SYS_connect, vec![]);
        client.insert(libc::SYS_socket, vec![only(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?]);
        let refused = lists::REFUSED.iter().map(|call| (*call, vec![])).collect();
        Ok(Self {
            process: compiled(allowed(&lists::process())?, refuse(libc::EPERM), allow.clone())?,
            lcore: compiled(allowed(&polite(lists::lcore()))?, kill.clone(), allow.clone())?,
            session: compiled(session, kill.clone(), allow.clone())?,
            client_session: compiled(client, kill, allow.clone())?,
            polite: compiled(refused, allow, refuse(libc::EACCES))?,
        })
    }
}

/// These calls, with any arguments; and memory that is not executable.
fn allowed(calls: &[i64]) -> io::Result<Rules> {
    let mut rules: Rules = calls.iter().map(|call| (*call, vec![])).collect();
    for call in lists::NOT_EXECUTABLE {
        let executable = libc::PROT_EXEC as u64;
        rules.insert(call, vec![only(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    Ok(rules)
}

/// Where an argument is so.
fn only(argument: u8, is: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value);
    SeccompRule::new(vec![condition.map_err(io::Error::other)?]).map_err(io::Error::other)
}

fn compiled(rules: Rules, otherwise: SeccompAction, on_list: SeccompAction) -> io::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, on_list, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

/// For the calling thread and those that it starts.
pub(super) fn apply(filter: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(filter).map_err(io::Error::other)
}
