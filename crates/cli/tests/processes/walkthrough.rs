//! docs/WALKTHROUGH.md, done as it is written: every command of it, and every line it shows.
//!
//! In a block marked `console`, `$ ` begins a command; one that ends in `&` is a server, whose first line is compared; the lines that
//! follow are its output, in which `…` stands for anything. Ports and the name of the program are this test's own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::program;

const WALKTHROUGH: &str = include_str!("../../../../docs/WALKTHROUGH.md");
/// The ports of the text.
const PORTS: [&str; 3] = ["47101", "47102", "47103"];

/// A command and what the text says it prints.
struct Step {
    line: usize,
    command: String,
    shown: Vec<String>,
}

fn steps() -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for (index, line) in WALKTHROUGH.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { line: index + 1, command: command.to_owned(), shown: Vec::new() });
        } else if inside {
            steps.last_mut().expect("a block begins with a command").shown.push(line.to_owned());
        }
    }
    steps
}

/// Whether a printed text is what a shown one says, `…` standing for anything.
fn matches(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut ends = shown == first && rest.is_empty();
    for part in parts {
        ends = part.is_empty() || rest.ends_with(part);
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    ends
}

/// Servers that end with the test.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn shell(folder: &Path, command: &str) -> Command {
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", program().parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("WAYBILL_PASSPHRASE", "correct horse battery");
    shell
}

#[test]
fn the_walk_through_goes_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let free: Vec<_> = PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<String> = free.iter().map(|l| l.local_addr().unwrap().port().to_string()).collect();
    drop(free);
    let ours = |text: &str| PORTS.iter().zip(&ports).fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let (steps, mut servers) = (steps(), Servers(Vec::new()));
    assert!(steps.len() > 20, "the walk-through is there");
    for step in steps {
        let (command, shown) = (ours(&step.command), ours(&step.shown.join("\n")));
        let printed = if let Some(server) = command.strip_suffix(" &") {
            let mut child = shell(folder.path(), &format!("exec {server}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            servers.0.push(child);
            line
        } else {
            let output = shell(folder.path(), &command).output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "line {}: {command}: {complaint}", step.line);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let (shown, printed) = (shown.trim_end(), printed.trim_end());
        assert!(matches(shown, printed), "line {}: {command}\nshown:\n{shown}\nprinted:\n{printed}", step.line);
    }
}

#[test]
fn what_is_shown_must_be_printed() {
    assert!(matches("a … c", "a b c") && matches("…", "anything") && matches("a", "a"));
    for (shown, printed) in [("a", "ab"), ("a … c", "a b"), ("b…", "ab"), ("…b", "abc"), ("a…b…c", "acb")] {
        assert!(!matches(shown, printed), "{shown} / {printed}");
    }
}
