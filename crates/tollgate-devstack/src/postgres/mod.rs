//! A Postgres for one machine: loopback only, password by data folder, its files under `data/postgres/`.

mod init;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{Context as _, Error, Result};
use crate::paths::{FolderLock, Paths, RunAs, make_dir};
use crate::port::free_port;
use crate::process::{Environment, Managed, Spec, stop_stale};
use crate::{Prefer, Progress, locate, log_progress, probe};

/// Includes the replay of the log after a crash.
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long a fixed port or the shared memory of a killed predecessor may stay taken.
const RETRY_LIMIT: Duration = Duration::from_secs(10);
const PORT_TRIES: u32 = 5;

/// "Fast": roll back, disconnect everybody, write a checkpoint.
const FAST: Signal = Signal::INT;
/// "Immediate": end now, repair at the next start; unlike SIGKILL it leaves no shared memory and no server process behind.
const IMMEDIATE: Signal = Signal::QUIT;

#[derive(Clone)]
pub struct PostgresOptions {
    pub paths: Paths,
    /// URL of a database that exists already; nothing is started then.
    pub external: Option<String>,
    pub prefer: Prefer,
    /// `None`: a free one.
    pub port: Option<u16>,
    /// False gives up safety for speed: against power failures, and against a kill of the server for sessions that do not ask for
    /// `synchronous_commit` themselves.
    pub durable: bool,
    pub max_connections: u32,
    pub progress: Progress,
}

impl PostgresOptions {
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            external: None,
            prefer: Prefer::default(),
            port: None,
            durable: true,
            max_connections: 100,
            progress: log_progress(),
        }
    }
}

/// A running server, or the address of one that was given. Stopped on drop.
pub struct Postgres {
    url: String,
    own: Option<Own>,
}

/// What there is to a server we started.
struct Own {
    process: Managed,
    spec: Spec,
    port: u16,
    folder: PathBuf,
    /// Last, so that the folder is free only when the server is gone.
    _lock: FolderLock,
}

impl Postgres {
    /// Starts a server with a `tollgate` database and waits until it takes clients; the first start in a data folder takes a second longer.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        if let Some(url) = options.external {
            return Ok(Self { url, own: None });
        }
        let progress = &options.progress;
        let home = options.paths.data.join("postgres");
        make_dir(&options.paths.data, 0o755)?;
        // Passable, not readable: as root, the server is another user.
        make_dir(&home, 0o711)?;
        let home = fs::canonicalize(&home).doing(|| format!("find {}", home.display()))?;
        let lock = FolderLock::take(&home, "lock")?;
        let place = init::place(&home, progress)?;
        let existing = place.existing()?;
        let made_by = existing.map(|major| (major, place.folder.as_path()));
        let programs = locate::postgres(&options.paths, options.prefer, made_by, place.run_as, progress).await?;
        let password = init::password(&home, existing.is_some())?;
        if existing.is_none() {
            progress(&format!("initialising a Postgres {} data folder …", programs.major));
            init::initialise(&place, &programs, &password).await?;
        }
        stop_stale(&home.join("postgres.pid"), &place.folder, FAST, progress).await;

        let mut spec = bare_spec(&programs.folder.join("postgres"), Vec::new(), place.run_as);
        spec.log = Some(home.join("postgres.log"));
        spec.pid_file = Some(home.join("postgres.pid"));
        let begun = Instant::now();
        let mut tries = 1;
        loop {
            let port = options.port.map_or_else(free_port, Ok)?;
            spec.args = arguments(&options, &place.folder, port);
            match run(&spec, port, &place.folder).await {
                Ok(process) => {
                    let url = format!("postgres://tollgate:{password}@127.0.0.1:{port}/tollgate");
                    let own = Own {
                        process,
                        spec,
                        port,
                        folder: place.folder,
                        _lock: lock,
                    };
                    return Ok(Self { url, own: Some(own) });
                }
                Err(error) => {
                    let another = options.port.is_none() && error.is_port_taken() && tries < PORT_TRIES;
                    if !another && !may_pass(&error, begun) {
                        return Err(error);
                    }
                }
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `postgres://tollgate:PASSWORD@127.0.0.1:PORT/tollgate`, or the URL that was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// URL of the `postgres` database of the same server, from where others are created and dropped.
    pub fn admin_url(&self) -> String {
        self.database_url("postgres")
    }

    /// URL of another database of the same server, whether it exists or not. `name` must need no escaping in a URL.
    pub fn database_url(&self, name: &str) -> String {
        let (base, query) = self
            .url
            .split_once('?')
            .map_or((self.url.as_str(), None), |(base, query)| (base, Some(query)));
        let host = base.find("://").map_or(0, |at| at + 3);
        let end = base[host..].find('/').map_or(base.len(), |at| host + at);
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        format!("{}/{name}{query}", &base[..end])
    }

    /// `None` for a server given by URL and for one that has ended.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref().and_then(|own| own.process.pid())
    }

    /// SIGKILL to the server's first process; returns when that is gone. Its helpers notice and end by themselves.
    pub async fn kill(&mut self) -> Result<()> {
        self.own()?.process.kill().await.map(drop)
    }

    /// Starts it again on the same port and data, after stopping it if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        let own = self.own()?;
        own.process.stop(FAST, STOP_LIMIT).await?;
        let begun = Instant::now();
        loop {
            match run(&own.spec, own.port, &own.folder).await {
                Ok(process) => {
                    own.process = process;
                    return Ok(());
                }
                Err(error) if !may_pass(&error, begun) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Stops it in order, disconnecting everybody; kills it after 10 s.
    pub async fn stop(mut self) -> Result<()> {
        match &mut self.own {
            Some(own) => own.process.stop(FAST, STOP_LIMIT).await.map(drop),
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
        self.own.as_mut().ok_or(Error::External("Postgres"))
    }
}

/// Whether trying again with the same settings may help.
fn may_pass(error: &Error, begun: Instant) -> bool {
    (error.is_port_taken() || error.is_predecessor_dying()) && begun.elapsed() < RETRY_LIMIT
}

/// A Postgres program without log and pid file, run from a folder every user can be in.
fn bare_spec(program: &Path, args: Vec<String>, run_as: Option<RunAs>) -> Spec {
    Spec {
        program: program.to_owned(),
        args,
        environment: Environment::Bare,
        log: None,
        pid_file: None,
        run_as,
        directory: Some(PathBuf::from("/")),
        drop_signal: IMMEDIATE,
        orphan_signal: FAST,
    }
}

/// Settings go on the command line, so that the folder's own configuration file stays as `initdb` wrote it.
fn arguments(options: &PostgresOptions, folder: &Path, port: u16) -> Vec<String> {
    let safe = if options.durable { "on" } else { "off" };
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        "unix_socket_directories=".to_owned(),
        format!("max_connections={}", options.max_connections),
        "shared_buffers=64MB".to_owned(),
        "logging_collector=off".to_owned(),
        format!("fsync={safe}"),
        format!("synchronous_commit={safe}"),
        format!("full_page_writes={safe}"),
    ];
    let mut args = vec!["-D".to_owned(), folder.to_string_lossy().into_owned()];
    for setting in settings {
        args.extend(["-c".to_owned(), setting]);
    }
    args
}

async fn run(spec: &Spec, port: u16, folder: &Path) -> Result<Managed> {
    let mut process = Managed::spawn(spec)?;
    let pid = process.pid();
    let probe = || async {
        says_ready(folder, pid)?;
        probe::postgres_answers(port).await
    };
    process.ready("Postgres", READY_LIMIT, probe).await?;
    Ok(process)
}

/// The server notes its pid (line 1) and state (line 8) in its folder. This tells it from another's server that took the port first.
fn says_ready(folder: &Path, pid: Option<u32>) -> std::result::Result<(), String> {
    let text = fs::read_to_string(folder.join("postmaster.pid")).map_err(|error| format!("postmaster.pid: {error}"))?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let ours = lines.first().and_then(|line| line.parse().ok()) == pid;
    match lines.get(7) {
        Some(&"ready") if ours => Ok(()),
        state => Err(format!("the server's state is {:?}", state.unwrap_or(&"unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_of_other_databases_keep_the_rest() {
        let mut options = PostgresOptions::new(Paths::temporary().unwrap().clone());
        options.external = Some("postgres://me:p@db.example:5433/tollgate?sslmode=require".to_owned());
        let postgres = Postgres::start(options).await.unwrap();
        assert_eq!(
            postgres.admin_url(),
            "postgres://me:p@db.example:5433/postgres?sslmode=require"
        );
        assert_eq!(
            postgres.database_url("t1"),
            "postgres://me:p@db.example:5433/t1?sslmode=require"
        );
        assert_eq!(postgres.pid(), None);
    }
}
