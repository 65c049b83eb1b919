//! One child process that is provably ours: started in its own process group with its output in a log, stopped with its owner.
//!
//! A child would outlive a parent that is killed, because the kernel's parent-death signal cannot be set in safe Rust. Three things stand in
//! for it: `Drop` stops the child; a small shell that holds the other end of a pipe stops it when the parent is gone, however that went; and the
//! pid file lets the next start stop what is still there. A process is signalled only if `/proc` shows that it is the one we started.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::Progress;
use crate::error::{Context as _, Error, Result};
use crate::fetch::last_lines;
use crate::paths::RunAs;

/// A log longer than this (bytes) is set aside as `.old` at the next start.
const LOG_LIMIT: u64 = 10 << 20;
const DROP_LIMIT: Duration = Duration::from_secs(3);
const STALE_LIMIT: Duration = Duration::from_secs(10);

/// How to start one child.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) environment: Environment,
    /// `None`: the child writes where we write.
    pub(crate) log: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) run_as: Option<RunAs>,
    pub(crate) directory: Option<PathBuf>,
    /// Sent on drop; must end the child quickly and leave its data sound.
    pub(crate) drop_signal: Signal,
    /// Sent by the watchdog when this process is gone.
    pub(crate) orphan_signal: Signal,
}

#[derive(Debug, Clone)]
pub(crate) enum Environment {
    /// What any program needs and no more: a server has no use for the provider keys in ours, nor should it heed `PGOPTIONS` and the like.
    Bare,
    /// The same, and these: a role gets the secrets it is given and none of the others in our environment.
    With(Vec<(String, String)>),
}

impl Spec {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        if let Environment::With(more) = &self.environment {
            command.envs(more.iter().map(|(name, value)| (name, value)));
        }
        if let Some(user) = self.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

/// A running (or just ended) child and what must end with it.
#[derive(Debug)]
pub(crate) struct Managed {
    child: Child,
    spec: Spec,
    watchdog: Option<Watchdog>,
    /// Where in the log this run begins.
    log_start: u64,
}

impl Managed {
    pub(crate) fn spawn(spec: &Spec) -> Result<Self> {
        let mut command = spec.command();
        let mut log_start = 0;
        if let Some(path) = &spec.log {
            let log = open_log(path)?;
            log_start = log.metadata().map(|meta| meta.len()).unwrap_or_default();
            let second = log.try_clone().doing(|| format!("open the log {}", path.display()))?;
            command.stdout(log).stderr(second);
        }
        let child = command.spawn().doing(|| format!("start {}", spec.program.display()))?;
        let mut managed = Self {
            child,
            spec: spec.clone(),
            watchdog: None,
            log_start,
        };
        // The id is missing only for a child that was waited for, and nobody has.
        if let Some(pid) = managed.child.id() {
            let program = fs::read_link(proc(pid, "exe")).unwrap_or_default();
            if let Some(path) = &spec.pid_file {
                let text = format!("{pid}\n{}\n", program.display());
                fs::write(path, text).doing(|| format!("write {}", path.display()))?;
            }
            managed.watchdog = Watchdog::start(pid, &program, spec.orphan_signal);
        }
        Ok(managed)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            send(pid, signal);
        }
    }

    /// Waits for the end. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        let status = self
            .child
            .wait()
            .await
            .doing(|| format!("wait for {}", self.spec.program.display()))?;
        self.ended();
        Ok(status)
    }

    /// `None` while it runs.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self
            .child
            .try_wait()
            .doing(|| format!("wait for {}", self.spec.program.display()))?;
        if status.is_some() {
            self.ended();
        }
        Ok(status)
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) async fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Asks with `signal`; kills when it has not ended within `budget`.
    pub(crate) async fn stop(&mut self, signal: Signal, budget: Duration) -> Result<ExitStatus> {
        self.signal(signal);
        match tokio::time::timeout(budget, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                tracing::warn!(program = %self.spec.program.display(), "not stopped in time, killed");
                self.kill().await
            }
        }
    }

    /// Waits until `probe` says yes; an error that carries the log's last lines if the child ends first or `limit` passes.
    pub(crate) async fn ready<F>(&mut self, name: &'static str, limit: Duration, probe: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<(), String>>,
    {
        let begun = Instant::now();
        loop {
            let seen = probe().await;
            // Asked after the probe: an answer counts only if our child is alive, else another server holds the port.
            if let Some(status) = self.try_wait()? {
                return Err(self.failed(name, format!("it ended with {status}")));
            }
            match seen {
                Ok(()) => return Ok(()),
                Err(state) if begun.elapsed() > limit => {
                    return Err(self.failed(name, format!("not ready after {} s ({state})", limit.as_secs())));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn failed(&self, program: &'static str, reason: String) -> Error {
        let log = self.spec.log.clone().unwrap_or_default();
        let log_tail = last_lines(&self.log_of_this_run(), 8);
        Error::Start {
            program,
            reason,
            log,
            log_tail,
        }
    }

    fn log_of_this_run(&self) -> String {
        let mut bytes = Vec::new();
        if let Some(path) = &self.spec.log {
            let read = File::open(path).and_then(|mut file| {
                file.seek(SeekFrom::Start(self.log_start))?;
                file.take(1 << 20).read_to_end(&mut bytes)
            });
            // The log only decorates an error; without it the error is still told.
            let _ = read;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn ended(&mut self) {
        self.watchdog = None;
        if let Some(path) = &self.spec.pid_file {
            // A pid file that stays is harmless: the next start checks whose process it is.
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Managed {
    /// Blocks until the child is gone (milliseconds as a rule), so that a test may remove its folder right after.
    fn drop(&mut self) {
        if self.child.id().is_none() {
            return;
        }
        self.signal(self.spec.drop_signal);
        for signal in [None, Some(Signal::KILL)] {
            if let Some(signal) = signal {
                self.signal(signal);
            }
            let begun = Instant::now();
            while begun.elapsed() < DROP_LIMIT {
                match self.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                    Ok(Some(_)) | Err(_) => return,
                }
            }
        }
    }
}

/// A shell that waits for its input to end, which it does when this process ends, and then stops the child.
#[derive(Debug)]
struct Watchdog {
    shell: std::process::Child,
}

/// `$1` pid, `$2` what it must be running, `$3` signal. The check guards against a pid that has been given to another process.
const WATCH: &str = r#"
ours() { [ "$(readlink "/proc/$1/exe")" = "$2" ]; }
read -r _
ours "$1" "$2" && kill -s "$3" "$1"
tries=0
while ours "$1" "$2"; do
  [ "$tries" -ge 50 ] && kill -s KILL "$1"
  tries=$((tries + 1))
  sleep 0.2
done
"#;

impl Watchdog {
    /// `None` where there is no shell to run: the pid file is left as the last means.
    fn start(pid: u32, program: &Path, signal: Signal) -> Option<Self> {
        let signal = signal.as_raw().to_string();
        let mut shell = StdCommand::new("/bin/sh");
        shell
            .args(["-c", WATCH, "tollgate-watchdog", &pid.to_string()])
            .arg(program)
            .arg(signal);
        shell
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0);
        match shell.spawn() {
            Ok(shell) => Some(Self { shell }),
            Err(error) => {
                tracing::debug!(%error, "no watchdog for a child process");
                None
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Both fail only if the shell is gone already.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn open_log(path: &Path) -> Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.old")).doing(|| format!("set the log {} aside", path.display()))?;
    }
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .doing(|| format!("open the log {}", path.display()))
}

fn proc(pid: u32, entry: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{entry}"))
}

/// A process that has just ended is no error.
fn send(pid: u32, signal: Signal) {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = target.map(|pid| kill_process(pid, signal)) {
        tracing::debug!(pid, %error, "signal not delivered");
    }
}

/// Stops what an earlier, killed Tollgate left running: the process of the pid file, if it runs the program recorded there and its command
/// line names `marker`, a path inside our data folder.
pub(crate) async fn stop_stale(pid_file: &Path, marker: &Path, signal: Signal, progress: &Progress) {
    let Ok(text) = fs::read_to_string(pid_file) else {
        return;
    };
    let mut lines = text.lines();
    let recorded = (lines.next().and_then(|line| line.parse::<u32>().ok()), lines.next());
    if let (Some(pid), Some(program)) = recorded
        && is_ours(pid, program, marker)
    {
        progress(&format!(
            "stopping {program} (pid {pid}), left by a Tollgate that was killed"
        ));
        send(pid, signal);
        let begun = Instant::now();
        let mut killed = false;
        while is_ours(pid, program, marker) && begun.elapsed() < STALE_LIMIT + DROP_LIMIT {
            if !killed && begun.elapsed() > STALE_LIMIT {
                send(pid, Signal::KILL);
                killed = true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Only the latest run counts, and it is dealt with.
    let _ = fs::remove_file(pid_file);
}

/// False for a process that has ended but was not waited for: it has no program any more.
fn is_ours(pid: u32, program: &str, marker: &Path) -> bool {
    let Ok(running) = fs::read_link(proc(pid, "exe")) else {
        return false;
    };
    let running = running.to_string_lossy();
    if program.is_empty() || running.strip_suffix(" (deleted)").unwrap_or(&running) != program {
        return false;
    }
    let line = fs::read(proc(pid, "cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == marker.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests;
