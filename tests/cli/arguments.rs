//! Bad arguments: status 2, one line, nothing started.

use crate::daemon::{assert_refused, polder, run};

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (args, expected) in [
        (&[] as &[&str], "subcommand"),
        (&["fly"], "fly"),
        (&["run", "--prot", "a=null"], "--port"),
        (&["run", "--port", "a"], "NAME=SPEC"),
        (&["run", "--port", "a b=null"], "port name"),
        (&["run", "--port", "a=floppy:x"], "vhost-user:PATH"),
        (&["run", "--port", "a=vhost-user:/x,queues=0"], "queues"),
        (&["run", "--port", "a=null", "--port", "a=null"], "twice"),
        (&["run", "--lcores", "x"], "0,2-3"),
        (&["run", "--lcores", "0,0"], "twice"),
        (&["run", "--lcores", "1023"], "1023"),
        (&["run", "--memory", "1"], "64M"),
        (&["run", "--hugepages", "4k"], "2m"),
        (&["run", "--log", "loud"], "loud"),
        (&["run", "-c", "/no/such/file"], "/no/such/file"),
        (&["port", "add", "x"], "NAME=SPEC"),
        (&["port", "add", "x=floppy:"], "vhost-user:PATH"),
        (&["port", "del"], "NAME"),
        (&["demo", "--size", "5"], "60..=1514"),
        (&["demo", "--seconds", "0"], "1..="),
        (&["stats", "--colour"], "--colour"),
        (&["nic", "bind", "1:10.0"], "0000:01:10.0"),
        (&["nic", "bind"], "BDF"),
        (&["nic", "vfs", "01:00.0"], "N"),
        (&["nic", "vfs", "01:00.0", "-1"], "-1"),
    ] {
        let line = assert_refused(&run(args), 2);
        assert!(line.contains(expected), "{args:?}: {line}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"] as &[&str], &["run", "--help"], &["help", "port"], &["--version"]] {
        let out = run(args);
        assert!(out.status.success() && out.stderr.is_empty() && !out.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn without_a_daemon_the_commands_say_how_to_start_one() {
    let path = "/no/such/dir/control";
    for args in
        [&["stats", "--json"] as &[&str], &["port", "list"], &["port", "add", "a=null"], &["fdb", "flush"]]
    {
        let out = polder().args(args).args(["--control", path]).output().expect("start polder");
        let line = assert_refused(&out, 1);
        assert!(line.contains(path) && line.contains("polder run"), "{line}");
    }
}
