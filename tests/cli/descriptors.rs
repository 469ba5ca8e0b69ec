//! The limit of open files (setrlimit(2), RLIMIT_NOFILE): raised at start, and shared out among ports (A3, C11).

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{PATIENCE, assert_refused, polder};

/// `polder run` under these limits, with vhost-user ports of so many queue pairs each.
fn run_with(soft: u32, hard: u32, pairs: &[u16]) -> (Command, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let program = polder();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$@\"")).arg("sh");
    command.arg(program.get_program()).args(["run", "--memory", "8M", "--hugepages", "off", "--control"]);
    command.arg(dir.path().join("control"));
    for (n, pairs) in pairs.iter().enumerate() {
        let path = dir.path().join(format!("vm{n}"));
        command.arg("--port").arg(format!("vm{n}=vhost-user:{},queues={pairs}", path.display()));
    }
    command.env_remove("POLDER_CONTROL").env_remove("POLDER_LOG").env_remove("NOTIFY_SOCKET");
    (command, dir)
}

fn first_line(child: &mut Child) -> String {
    use std::io::BufRead;
    let out = child.stdout.take().expect("its output");
    std::io::BufReader::new(out).lines().next().and_then(Result::ok).unwrap_or_default()
}

/// What it said until its end, or until it was clear that there will be none.
fn output_of(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start polder");
    let end = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    // It has ended, or goes on though it should not.
    let _ = child.kill();
    child.wait_with_output().expect("its end")
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let (mut command, _dir) = run_with(256, 4096, &[128]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start polder");
    let line = first_line(&mut child);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap_or_default();
    child.kill().expect("a child");
    let Output { stderr, .. } = child.wait_with_output().expect("its end");
    assert_eq!(line, "ready", "{}", String::from_utf8_lossy(&stderr));
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(files.split_whitespace().nth(3), Some("4096"), "{files}");
}

#[test]
fn a_port_whose_descriptors_do_not_fit_is_refused_with_the_command() {
    // One of 16 pairs fits beside what the process itself needs; a second one does not.
    let (command, _dir) = run_with(400, 400, &[16, 16]);
    let error = assert_refused(&output_of(command), 1);
    assert!(error.contains("port vm1") && error.contains("file descriptors"), "{error}");
    assert!(error.contains("ulimit -n ") && error.contains("LimitNOFILE="), "{error}");
}
