//! The servers of a demo: child processes of this very binary.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::serve::Ready;

/// Longest wait for a server to be ready; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to drain before it is killed.
const DRAIN: Duration = Duration::from_secs(10);
/// How much of a log is shown when a server does not start. Units: bytes.
const TAIL_BYTES: u64 = 2_000;

/// Whether a server ends with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// It ends when our end of a pipe closes, however we end.
    Supervised,
    /// It lives on, in a process group of its own.
    Detached,
}

/// One running server. Ended by its process id when dropped, unless released.
#[derive(Debug)]
pub struct Servant {
    /// Its name, for people.
    pub name: String,
    /// What it said when it was ready.
    pub ready: Ready,
    /// Where its log goes.
    pub log: PathBuf,
    program: PathBuf,
    role: String,
    config: PathBuf,
    tie: Tie,
    child: Option<Child>,
}

impl Servant {
    /// Starts `program <role> serve --config <config>` and waits until it is ready.
    ///
    /// # Errors
    /// [`Failure`] with the end of its log when it does not start.
    pub fn start(program: &Path, role: &str, name: &str, config: &Path, log: &Path, tie: Tie) -> Result<Self, Failure> {
        let mut servant = Self {
            name: name.to_owned(),
            ready: Ready { ready: false, listen: None, admin: String::new() },
            log: log.to_owned(),
            program: program.to_owned(),
            role: role.to_owned(),
            config: config.to_owned(),
            tie,
            child: None,
        };
        servant.restart()?;
        Ok(servant)
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.kill()?;
        let cannot = |e| Failure::environment(format!("{} cannot be started", self.name), e);
        let stderr = File::options().create(true).append(true).open(&self.log).map_err(cannot)?;
        let mut command = Command::new(&self.program);
        command.args([&self.role, "serve", "--config"]).arg(&self.config).stdout(Stdio::piped()).stderr(stderr);
        match self.tie {
            Tie::Supervised => command.arg("--supervised").stdin(Stdio::piped()),
            Tie::Detached => command.stdin(Stdio::null()).process_group(0),
        };
        let child = self.child.insert(command.spawn().map_err(cannot)?);
        let stdout = child.stdout.take().expect("its standard output is a pipe");
        self.ready = first_line(stdout).ok_or_else(|| self.not_started())?;
        Ok(())
    }

    fn not_started(&self) -> Failure {
        let tail = tail(&self.log).unwrap_or_default();
        let last = tail.lines().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n    ");
        Failure::environment(format!("{} did not become ready", self.name), last)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it without warning, as a power cut would.
    ///
    /// # Errors
    /// [`Failure`] when the operating system refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(|_| ()).map_err(|e| Failure::environment(format!("{} cannot be killed", self.name), e))
    }

    /// Lets it live on; gives its process id.
    pub fn release(mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if child.stdin.take().is_some() {
            let deadline = Instant::now() + DRAIN;
            while Instant::now() < deadline {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Its stores bear a kill at any instant; an error means that it is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Stops several servers at once rather than one after the other.
pub fn stop_all(mut servants: Vec<Servant>) {
    for servant in &mut servants {
        // Closing the pipes of all of them first lets them drain together.
        if let Some(child) = &mut servant.child {
            drop(child.stdin.take());
        }
    }
    let deadline = Instant::now() + DRAIN;
    for servant in &mut servants {
        while let Some(child) = &mut servant.child
            && matches!(child.try_wait(), Ok(None))
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(servants);
}

/// The ready line; the rest of the output is read and dropped so that the pipe never fills.
fn first_line(stdout: impl Read + Send + 'static) -> Option<Ready> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        // Nobody listens any more when the start was given up.
        let _ = tell.send(lines.next());
        for line in lines {
            if line.is_err() {
                return;
            }
        }
    });
    let line = told.recv_timeout(PATIENCE).ok()??.ok()?;
    serde_json::from_str(&line).ok().filter(|ready: &Ready| ready.ready)
}

fn tail(log: &Path) -> Option<String> {
    let size = fs::metadata(log).ok()?.len();
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}
