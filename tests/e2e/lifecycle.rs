//! Cards and guests that come and go under traffic.

use crate::deadline::secs;
use crate::guest::Guest;
use crate::traffic::{finish_pings, ping_comes_back, start_pings};

/// What is done to a guest takes a second at least.
const LEAST_PINGS: u64 = 50;

/// Pings go from `c` to `a` while `act` works on a third guest; none may be lost.
pub(crate) fn while_others_lose_nothing<T>(
    a: &mut Guest,
    c: &mut Guest,
    act: impl FnOnce(&mut Guest) -> T,
) -> T {
    ping_comes_back(c, &a.ip());
    start_pings(c, &a.ip());
    let result = act(a);
    let count = finish_pings(c);
    let counts = format!("pings between the two other guests\n{}{}", card_counts(c), card_counts(a));
    assert_eq!(count.lost(), 0, "{count:?} {counts}");
    assert!(count.sent >= LEAST_PINGS, "{count:?} {counts}");
    result
}

/// What the guest itself counted, to tell whose loss it was.
fn card_counts(guest: &mut Guest) -> String {
    format!("{}: {}", guest.name(), guest.sh("ifconfig eth0; grep ^Icmp: /proc/net/snmp"))
}

/// Takes the card's driver away and gives it back.
pub(crate) fn rebind(guest: &mut Guest, bus: &str, driver: &str, device: &str) {
    let folder = format!("/sys/bus/{bus}/drivers/{driver}");
    let output = guest.sh_within(&format!("echo {device} >{folder}/unbind"), secs(60));
    assert_eq!(output.status, 0, "unbind: {}", output.text);
    guest.sh("! [ -e /sys/class/net/eth0 ]");
    guest.sh(&format!("echo {device} >{folder}/bind"));
    guest.nic_up();
}
