//! Pings and TCP streams between guests.

use std::time::Duration;

use crate::card::{Offloads, set_mtu, set_offloads};
use crate::deadline::secs;
use crate::guest::Guest;
use crate::process::timed;
use crate::scene::Scene;

/// One ping of the summary `N packets transmitted, M packets received`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PingCount {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl PingCount {
    pub(crate) fn parse(text: &str) -> Self {
        let number_before = |words: &str| {
            let before = text.split(words).next().filter(|b| b.len() < text.len());
            before.and_then(|b| b.rsplit([' ', '\n']).next()).and_then(|n| n.parse().ok())
        };
        let (Some(sent), Some(received)) =
            (number_before(" packets transmitted"), number_before(" packets received"))
        else {
            panic!("no ping summary in {text:?}");
        };
        Self { sent, received }
    }

    /// All the summaries in a text together.
    pub(crate) fn sum(text: &str) -> Self {
        let summaries = text.lines().filter(|line| line.contains(" packets transmitted")).map(Self::parse);
        summaries.fold(Self { sent: 0, received: 0 }, |sum, one| Self {
            sent: sum.sent + one.sent,
            received: sum.received + one.received,
        })
    }

    pub(crate) fn lost(self) -> u64 {
        self.sent - self.received
    }
}

/// Pings `to`, 20 times with `size` bytes of payload; none may be lost.
pub(crate) fn ping_loses_nothing(from: &mut Guest, to: &str, size: u16) {
    let command = format!("ping -q -c 20 -i 0.05 -s {size} -W 5 {to}");
    let output = from.sh_within(&command, secs(30));
    let count = PingCount::parse(&output.text);
    assert_eq!(count, PingCount { sent: 20, received: 20 }, "{}$ {command}", from.name());
}

pub(crate) fn ping_both_ways((a, b): (&mut Guest, &mut Guest), size: u16) {
    ping_loses_nothing(a, &b.ip(), size);
    ping_loses_nothing(b, &a.ip(), size);
}

/// The shell command that pings until one answer comes: neighbours may have to be found, again, too.
pub(crate) fn ping_until_answered(to: &str) -> String {
    format!("for i in $(seq 20); do ping -q -c 1 -W 1 {to} && exit 0; done; exit 1")
}

/// Pings until one answer comes, after a card came back.
pub(crate) fn ping_comes_back(from: &mut Guest, to: &str) {
    let output = from.sh_within(&ping_until_answered(to), secs(40));
    assert_eq!(output.status, 0, "{}: no answer from {to}: {}", from.name(), output.text);
}

/// Starts pings that go on beside what follows, about 50 a second.
pub(crate) fn start_pings(from: &mut Guest, to: &str) {
    // Half a second's at a time: none is on its way when they are to end.
    let some = format!("ping -q -c 25 -i 0.02 -W 5 {to}");
    from.spawn("ping", &format!("until [ -e /tmp/ping.enough ]; do {some} || exit 1; done"));
}

/// Ends the pings of [`start_pings`]; counts them all.
pub(crate) fn finish_pings(from: &mut Guest) -> PingCount {
    from.sh("touch /tmp/ping.enough");
    PingCount::sum(&from.finish("ping", secs(90)))
}

/// A TCP stream that goes on beside what follows, until [`stop_flood`] or the death of an end.
pub(crate) fn start_flood(from: &mut Guest, to: &mut Guest) {
    to.spawn("flood", "nc -l -p 4000 -e sh -c 'exec cat >/dev/null'");
    from.spawn("flood", &format!("usleep 300000; nc {} 4000 -e cat /dev/zero", to.ip()));
    // Deep enough into the stream that its queues are full.
    from.sh("sleep 1; pidof cat");
}

/// Ends this guest's side of [`start_flood`].
pub(crate) fn stop_flood(guest: &mut Guest) {
    guest.sh("killall -9 cat nc; true");
}

/// 100 MB from the first guest to the second, one stream a queue pair; the cards are left as they were at boot.
pub(crate) fn tcp_100mb(scene: &mut Scene, mtu: u16, offloads: Offloads) {
    let streams = scene.kind.queue_pairs;
    set_mtu(scene.pair(), mtu);
    let (a, b) = scene.pair();
    set_offloads(a, offloads);
    set_offloads(b, offloads);
    tcp_arrives_whole(a, b, &b.ip(), streams, 100 / u32::from(streams));
    set_offloads(a, Offloads::On);
    set_offloads(b, Offloads::On);
    set_mtu(scene.pair(), 1500);
}

/// Streams `megabytes` of random bytes in each of `streams` TCP connections, by the card of `to` that has `address`; the
/// checksums taken on both sides must match.
pub(crate) fn tcp_arrives_whole(
    from: &mut Guest,
    to: &mut Guest,
    address: &str,
    streams: u16,
    megabytes: u32,
) {
    let limit = secs(120);
    // The same bytes each time in one boot.
    let sum = format!("/tmp/stream{megabytes}.md5");
    let sent = from.sh(&format!("[ -s {sum} ] || stream {megabytes} | md5sum >{sum}; cat {sum}"));
    for port in ports(streams) {
        let receive = format!("nc -l -p {port} -e sh -c 'md5sum >/tmp/{port}.md5'; cat /tmp/{port}.md5");
        to.spawn(&format!("tcp{port}"), &receive);
    }
    to.sh("usleep 300000");
    let ((), took) = timed(|| {
        for port in ports(streams) {
            from.spawn(&format!("tcp{port}"), &format!("nc {address} {port} -e stream {megabytes}"));
        }
        for port in ports(streams) {
            let received = to.finish(&format!("tcp{port}"), limit);
            assert_eq!(sent, received, "MD5 of {megabytes} MB over TCP, sent and received");
        }
    });
    report_rate(u32::from(streams) * megabytes, took);
}

fn ports(streams: u16) -> std::ops::Range<u16> {
    5001..5001 + streams
}

fn report_rate(megabytes: u32, took: Duration) {
    eprintln!(
        "{megabytes} MB in {:.1} s, {:.0} Mbit/s",
        took.as_secs_f64(),
        f64::from(megabytes) * 8.0 / took.as_secs_f64()
    );
}

#[test]
fn ping_summary_is_read() {
    let text =
        "--- 10.0.0.2 ping statistics ---\n20 packets transmitted, 19 packets received, 5% packet loss\n";
    let count = PingCount::parse(text);
    assert_eq!(count, PingCount { sent: 20, received: 19 });
    assert_eq!(count.lost(), 1);
    let twice = format!("{text}round-trip min/avg/max = 0.1/0.2/0.3 ms\n{text}");
    assert_eq!(PingCount::sum(&twice), PingCount { sent: 40, received: 38 });
}
