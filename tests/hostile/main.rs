//! Hostile guests, hostile front ends, failing memory: what must not hurt anybody else.
//!
//! An attacker that is front end and guest in one plays each case at port `x` of a daemon whose ports `a` and `b` carry an
//! honest, checked stream all the time; port `y` is the honest receiver of what the attacker sends. Cases have the numbers
//! of docs/hostile.md in their names. All of them meet the same daemon, one after the other, and [`scene::case`] judges
//! each by the same oracle, O1 to O8 there:
//!
//! | | here |
//! |---|---|
//! | O1 alive | the lcore turned and the victims' streams went on during the case |
//! | O2 victims | 0 lost, 0 corrupt, 0 reordered, 0 duplicated: sequence and CRC32C in a window that cannot overflow |
//! | O3 nothing left over | descriptors, guest memory mappings and mbufs as before, to the last one |
//! | O4, O5 stray writes | the attacker's RAM outside of what it allowed is as it was ([`attacker::Attacker::judge`]) |
//! | O6 a named state | each case names the fault, the drop reason or the refusal that it expects |
//! | O7 bounded turns | no gap in the victims' streams that the scheduler cannot explain |
//! | O8 works again | a sane driver at the same port exchanges frames with `y` |
//!
//! Not measured here: latency (O2's p99) and the log, which has no subscriber. `POLDER_SOAK=n` makes the races n times as
//! long.

mod address_space;
mod attacker;
mod bell;
mod buffers;
mod chains;
mod connection;
mod files;
mod frames;
mod gaps;
mod headers;
mod indirect;
mod load;
mod memory;
mod messages;
mod notify;
mod numbers;
mod packed;
mod packed_races;
mod races;
mod raw;
mod receive;
mod regions;
mod rings;
mod scene;
mod silent_file;
mod slow_memory;
mod stuck_control;
mod switch;
mod two_passes;
mod vanish;
mod victims;
