//! A `nats-server` with JetStream, for one machine: loopback only, no password, its files under `data/nats/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rustix::process::Signal;

use crate::error::{Context as _, Error, Result};
use crate::paths::{FolderLock, Paths, make_dir};
use crate::port::free_port;
use crate::process::{Environment, Managed, Spec, stop_stale};
use crate::{Prefer, Progress, locate, log_progress, probe};

const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long a fixed port may stay taken, as by the server that was just killed.
const PORT_LIMIT: Duration = Duration::from_secs(5);
const PORT_TRIES: u32 = 5;

/// When JetStream brings acknowledged messages to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncInterval {
    /// Before the acknowledgement: nothing acknowledged is lost in a power failure.
    #[default]
    Always,
    /// In the background, this often. Faster; enough where only processes die.
    Every(Duration),
}

#[derive(Clone)]
pub struct NatsOptions {
    pub paths: Paths,
    /// A server that runs already; nothing is started then.
    pub external: Option<String>,
    pub prefer: Prefer,
    /// `None`: a free one.
    pub port: Option<u16>,
    /// `None`: a free one.
    pub monitor_port: Option<u16>,
    pub sync: SyncInterval,
    /// Bytes of memory for memory streams.
    pub max_memory: u64,
    /// Bytes of disk for file streams.
    pub max_file: u64,
    /// Bytes of one message.
    pub max_payload: u32,
    pub progress: Progress,
}

impl NatsOptions {
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            external: None,
            prefer: Prefer::default(),
            port: None,
            monitor_port: None,
            sync: SyncInterval::default(),
            max_memory: 256 << 20,
            max_file: 16 << 30,
            max_payload: 1 << 20,
            progress: log_progress(),
        }
    }
}

/// A running server, or the address of one that was given. Stopped on drop.
pub struct Nats {
    url: String,
    own: Option<Own>,
}

/// What there is to a server we started.
struct Own {
    process: Managed,
    spec: Spec,
    port: u16,
    monitor_port: u16,
    monitor_url: String,
    server_name: String,
    /// Last, so that the folder is free only when the server is gone.
    _lock: FolderLock,
}

impl Nats {
    /// Starts a server and waits until it takes clients and JetStream is healthy.
    pub async fn start(options: NatsOptions) -> Result<Self> {
        if let Some(url) = options.external {
            return Ok(Self { url, own: None });
        }
        let program = locate::nats_server(&options.paths, options.prefer, &options.progress).await?;
        let folder = options.paths.data.join("nats");
        make_dir(&options.paths.data, 0o755)?;
        make_dir(&folder, 0o700)?;
        let folder = fs::canonicalize(&folder).doing(|| format!("find {}", folder.display()))?;
        let lock = FolderLock::take(&folder, "lock")?;
        let spec = spec(&program, &folder);
        if let Some(pid_file) = &spec.pid_file {
            stop_stale(pid_file, &folder.join("nats.conf"), Signal::TERM, &options.progress).await;
        }
        let begun = Instant::now();
        let mut tries = 1;
        loop {
            let port = options.port.map_or_else(free_port, Ok)?;
            let monitor_port = options.monitor_port.map_or_else(free_port, Ok)?;
            let server_name = format!("tollgate-{:016x}", rand::rng().random::<u64>());
            let config = config(&options, &folder, port, monitor_port, &server_name);
            let path = folder.join("nats.conf");
            fs::write(&path, config).doing(|| format!("write {}", path.display()))?;
            match run(&spec, port, monitor_port, &server_name).await {
                Ok(process) => {
                    let monitor_url = format!("http://127.0.0.1:{monitor_port}");
                    let own = Own {
                        process,
                        spec,
                        port,
                        monitor_port,
                        monitor_url,
                        server_name,
                        _lock: lock,
                    };
                    return Ok(Self {
                        url: format!("nats://127.0.0.1:{port}"),
                        own: Some(own),
                    });
                }
                Err(error) if !error.is_port_taken() => return Err(error),
                Err(error) => {
                    let fixed = options.port.is_some() || options.monitor_port.is_some();
                    if if fixed {
                        begun.elapsed() > PORT_LIMIT
                    } else {
                        tries >= PORT_TRIES
                    } {
                        return Err(error);
                    }
                }
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Base of the HTTP monitoring pages (`/healthz`, `/jsz`); `None` for a server given by URL.
    pub fn monitor_url(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.monitor_url.as_str())
    }

    /// `None` for a server given by URL and for one that has ended.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref().and_then(|own| own.process.pid())
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.own()?.process.kill().await.map(drop)
    }

    /// Starts it again on the same ports and data, after stopping it if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        let own = self.own()?;
        own.process.stop(Signal::TERM, STOP_LIMIT).await?;
        let begun = Instant::now();
        loop {
            match run(&own.spec, own.port, own.monitor_port, &own.server_name).await {
                Ok(process) => {
                    own.process = process;
                    return Ok(());
                }
                Err(error) if !error.is_port_taken() || begun.elapsed() > PORT_LIMIT => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Stops it in order; kills it after 10 s.
    pub async fn stop(mut self) -> Result<()> {
        match &mut self.own {
            Some(own) => own.process.stop(Signal::TERM, STOP_LIMIT).await.map(drop),
            None => Ok(()),
        }
    }

    /// Waits until the process ends by itself. Never returns for a server given by URL.
    pub async fn exited(&mut self) -> Result<ExitStatus> {
        match &mut self.own {
            Some(own) => own.process.wait().await,
            None => std::future::pending().await,
        }
    }

    fn own(&mut self) -> Result<&mut Own> {
        self.own.as_mut().ok_or(Error::External("NATS"))
    }
}

fn spec(program: &Path, folder: &Path) -> Spec {
    Spec {
        program: program.to_owned(),
        args: vec!["-c".to_owned(), folder.join("nats.conf").to_string_lossy().into_owned()],
        environment: Environment::Bare,
        log: Some(folder.join("nats.log")),
        pid_file: Some(folder.join("nats.pid")),
        run_as: None,
        directory: Some(PathBuf::from("/")),
        drop_signal: Signal::TERM,
        orphan_signal: Signal::TERM,
    }
}

async fn run(spec: &Spec, port: u16, monitor_port: u16, server_name: &str) -> Result<Managed> {
    let mut process = Managed::spawn(spec)?;
    let health = format!("http://127.0.0.1:{monitor_port}/healthz");
    let probe = || async {
        probe::nats_greets(port, server_name).await?;
        probe::http_ok(&health).await
    };
    process.ready("nats-server", READY_LIMIT, probe).await?;
    Ok(process)
}

fn config(options: &NatsOptions, folder: &Path, port: u16, monitor_port: u16, server_name: &str) -> String {
    let sync = match options.sync {
        SyncInterval::Always => "always".to_owned(),
        SyncInterval::Every(time) => format!("\"{}ms\"", time.as_millis().max(1)),
    };
    let store = folder
        .join("jetstream")
        .to_string_lossy()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let NatsOptions {
        max_memory,
        max_file,
        max_payload,
        ..
    } = options;
    format!(
        "# Written at every start; changes are lost.\n\
         server_name: \"{server_name}\"\n\
         listen: \"127.0.0.1:{port}\"\n\
         http: \"127.0.0.1:{monitor_port}\"\n\
         max_payload: {max_payload}\n\
         jetstream {{\n  store_dir: \"{store}\"\n  sync_interval: {sync}\n  max_memory_store: {max_memory}\n  max_file_store: {max_file}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_given_server_is_not_ours_to_stop() {
        let mut options = NatsOptions::new(Paths::temporary().unwrap().clone());
        options.external = Some("nats://nats.example:4222".to_owned());
        let mut nats = Nats::start(options).await.unwrap();
        assert_eq!(
            (nats.url(), nats.monitor_url(), nats.pid()),
            ("nats://nats.example:4222", None, None)
        );
        assert!(matches!(nats.kill().await, Err(Error::External(_))));
        assert!(matches!(nats.restart().await, Err(Error::External(_))));
        nats.stop().await.unwrap();
    }
}
