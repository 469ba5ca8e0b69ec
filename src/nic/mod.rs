//! `polder nic`: the network cards of this machine, and how they change hands. Needs no daemon.
//!
//! `survey` looks at the cards, [`Verdict`] says of each whether Polder can drive it or what is missing, [`show`] prints
//! that, [`change`] binds, unbinds and makes VFs. `polder doctor` asks the same survey, and the [`Policy`] that a PF's
//! driver holds its VFs to.

mod change;
mod known;
mod machine;
mod policy;
mod show;
mod start;
mod survey;
mod verdict;

use std::process::ExitCode;

pub(crate) use machine::{GroupAccess, Machine};
pub(crate) use policy::{Policy, in_the_way};
pub(crate) use start::warnings_at_start;
pub(crate) use survey::{Nic, survey};
pub(crate) use verdict::{Obstacle, Verdict};

use crate::cli::{NicArgs, NicCommand};
use crate::failure::Failure;

/// `polder nic`
pub(crate) fn run(args: NicArgs) -> Result<ExitCode, Failure> {
    let machine = Machine::new(args.machine);
    match args.command {
        NicCommand::List { json } => {
            let nics = survey(&machine).map_err(Failure::runtime)?;
            crate::ask::print(&if json { show::as_json(&nics) } else { show::as_table(&nics) })
        }
        NicCommand::Vfs { pf, count, force } => change::vfs(&machine, pf, count, force),
        NicCommand::Bind { bdf, force } => change::bind(&machine, bdf, force),
        NicCommand::Unbind { bdf, force } => change::unbind(&machine, bdf, force),
    }
}
