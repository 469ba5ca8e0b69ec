//! The configuration file: what it says happens, and what is wrong is named by its line.

use std::fs;

use crate::daemon::{Daemon, assert_refused, polder};

fn refused(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("polder.toml");
    fs::write(&file, text).expect("write a file");
    let control = dir.path().join("control");
    let out = polder()
        .args(["run", "-c"])
        .arg(&file)
        .arg("--control")
        .arg(&control)
        .output()
        .expect("start polder");
    assert!(!control.exists());
    let line = assert_refused(&out, 2);
    line.strip_prefix(&format!("polder: {}:", file.display())).unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[test]
fn s18_what_is_wrong_is_named_by_its_line() {
    for (text, line, word) in [
        ("[switch]\nmac_aging_s = 3\n", 2, "mac_aging_s"),
        ("\nvlan = 3\n", 2, "vlan"),
        ("[[port]]\nname = 'a'\nspec = 'null'\nvlan = 5000\n", 4, "vlan"),
        ("[[port]]\nname = 'a'\nspec = 'floppy:x'\n", 3, "floppy"),
        ("[[port]]\nname = 'a'\nspec = 'vhost-user:/x,queues=0'\n", 3, "queues"),
        ("[[port]]\nname = 'a'\nspec = 'null'\n[[port]]\nname = 'a'\nspec = 'null'\n", 5, "already"),
        ("[[port]]\nname = 'a b'\nspec = 'null'\n", 2, "port name"),
        ("[[lcore]]\ncpu = 1023\n", 2, "1023"),
        ("[[lcore]]\ncpu = 0\n[[lcore]]\ncpu = 0\n", 4, "CPU 0"),
        ("[memory]\nsize = '1G'\nhugepages = 'yes'\n", 3, "yes"),
        ("[memory]\nsize = '1000000000G'\n", 2, "size"),
        ("[[port]]\nname = 'a'\nspec = 'nul", 3, ""),
        ("[[port]\n", 1, ""),
    ] {
        let error = refused(text);
        assert!(error.starts_with(&format!("{line}: ")) && error.contains(word), "{text:?}: {error}");
    }
}

#[test]
fn a_number_out_of_range_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("polder.toml");
    fs::write(&file, "[switch]\nmac_table = 3\n").expect("write a file");
    let control = dir.path().join("control");
    let out = polder()
        .args(["run", "-c"])
        .arg(&file)
        .arg("--control")
        .arg(&control)
        .output()
        .expect("start polder");
    assert!(assert_refused(&out, 2).contains('3'));
    assert!(!control.exists());
}

#[test]
fn the_file_is_followed_and_the_command_line_comes_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("polder.toml");
    let text = "[switch]\nmac_ageing_s = 60\nmac_table = 4096\n[[port]]\nname = 'a'\nspec = 'null'\n\
                [[port]]\nname = 'b'\nspec = 'null'\n";
    fs::write(&file, text).expect("write a file");
    let daemon = Daemon::start_in(
        dir,
        &["-c", &file.display().to_string(), "--port", "b=loopback", "--port", "c=null"],
    );
    let ports = daemon.ask_json(&["port", "list", "--json"]);
    let specs: Vec<_> =
        ports.as_array().unwrap().iter().map(|p| (p["name"].as_str(), p["spec"].as_str())).collect();
    assert_eq!(specs, [(Some("a"), Some("null")), (Some("b"), Some("loopback")), (Some("c"), Some("null"))]);
    assert_eq!(daemon.ask_json(&["stats", "--json"])["fdb"]["capacity"], 4096);
    assert!(daemon.stop().0.success());
}

/// S18: mutations of a good file are refused or followed, and never crash.
#[test]
fn s18_half_written_files_never_crash() {
    let good = "control = '/nonexistent/dir/c'\n[switch]\nmac_ageing_s = 60\n[[lcore]]\ncpu = 0\n[[port]]\nname = 'a'\nspec = 'null'\n";
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("polder.toml");
    // The control socket cannot be made: what is taken for good ends with 1 before anything runs.
    for end in (0..good.len()).step_by(3) {
        let mut text = good.as_bytes()[..end].to_vec();
        text.extend([b'[', 0xff, b'=', b'\n'].iter().take(end % 4));
        fs::write(&file, &text).expect("write a file");
        let out = polder()
            .args(["run", "--control", "/nonexistent/dir/c", "-c"])
            .arg(&file)
            .output()
            .expect("start polder");
        let status = out.status.code().unwrap_or_else(|| panic!("{text:?}: ended by a signal"));
        assert_refused(&out, if status == 1 { 1 } else { 2 });
    }
}
