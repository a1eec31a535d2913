//! However a demo ends, it leaves no process behind.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::program;

/// A demo whose five servers are running, and their process ids. A killed demo cannot remove its folder below `scratch`.
fn demo(scratch: &Path) -> (Child, Vec<String>) {
    let mut command = Command::new(program());
    command.env("TMPDIR", scratch);
    command.args(["demo", "--json"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut demo = command.spawn().unwrap();
    loop {
        let servers = children(demo.id());
        if servers.len() == 5 {
            return (demo, servers);
        }
        assert!(demo.try_wait().unwrap().is_none(), "the demo ended before it could be interrupted");
        sleep(Duration::from_millis(5));
    }
}

/// The child processes of every thread of a process.
fn children(pid: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Whether a process still runs; one that only waits to be reaped does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn wait_until_gone(servers: &[String]) {
    while servers.iter().any(|pid| runs(pid)) {
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_terminated_demo_stops_its_servers_and_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut demo, servers) = demo(scratch.path());
    assert!(Command::new("kill").arg(demo.id().to_string()).status().unwrap().success());
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    wait_until_gone(&servers);
    assert_eq!(scratch.path().read_dir().unwrap().count(), 0, "the network's folder is gone");
}

#[test]
fn the_servers_of_a_killed_demo_end_by_themselves() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut demo, servers) = demo(scratch.path());
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_until_gone(&servers);
}
