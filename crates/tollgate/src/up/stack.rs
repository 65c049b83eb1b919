//! The running parts: NATS, Postgres, and the roles under supervision.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{anyhow, bail};
use tokio::sync::broadcast;
use tollgate_devstack::{
    Nats, NatsOptions, Paths, Policy, Postgres, PostgresOptions, Progress, RoleChange, RoleState, Supervisor,
};

use super::{
    plan::{Plan, Ports},
    settings::Settings,
};
use crate::{cli::UpArgs, init, running::Running};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// Fetching a model takes longer, the first time.
const FETCH_LIMIT: Duration = Duration::from_secs(900);
const STOP_BUDGET: Duration = Duration::from_secs(40);
/// Lines of a log that are shown when its role does not start.
const TAIL: usize = 8;

pub(super) struct Stack {
    nats: Nats,
    postgres: Postgres,
    supervisor: Supervisor,
    changes: broadcast::Receiver<RoleChange>,
    /// The state of each role that was shown last.
    shown: HashMap<String, RoleState>,
    endpoints: Running,
    paths: Paths,
    simulated: bool,
    ready_limit: Duration,
}

impl Stack {
    pub(super) async fn start(
        args: &UpArgs,
        paths: Paths,
        settings: Settings,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let given = |name: &str| env::var(name).ok().filter(|url| !url.trim().is_empty());
        let nats = NatsOptions {
            external: given("NATS_URL"),
            progress: progress.clone(),
            ..NatsOptions::new(paths.clone())
        };
        let postgres = PostgresOptions {
            external: given("DATABASE_URL"),
            progress: progress.clone(),
            ..PostgresOptions::new(paths.clone())
        };
        let (nats, postgres) = tokio::try_join!(Nats::start(nats), Postgres::start(postgres))?;
        let ports = Ports::choose(args)?;
        let endpoints = Running {
            http: format!("http://127.0.0.1:{}", ports.http),
            grpc: format!("http://127.0.0.1:{}", ports.grpc),
            api_key: settings.api_key.clone(),
            database_url: postgres.url().to_owned(),
            nats_url: nats.url().to_owned(),
            simulator: settings.simulator.map(|port| format!("http://127.0.0.1:{port}")),
            nats_monitor: nats.monitor_url().map(str::to_owned),
            reports: format!("http://127.0.0.1:{}", ports.reports),
        };
        initialise(&settings, &endpoints).await?;
        let logs = paths.data.join("logs");
        fs::create_dir_all(&logs)?;
        let plan = Plan {
            args,
            settings: &settings,
            endpoints: &endpoints,
            ports: &ports,
            logs: &logs,
        };
        let (supervisor, changes) = Supervisor::start(plan.roles()?, Policy::default());
        let simulated = settings
            .config
            .providers
            .iter()
            .all(|provider| provider.name.starts_with("simulator"));
        Ok(Self {
            nats,
            postgres,
            supervisor,
            changes,
            shown: HashMap::new(),
            endpoints,
            paths,
            simulated,
            ready_limit: if settings.local_model.is_some() {
                FETCH_LIMIT
            } else {
                READY_LIMIT
            },
        })
    }

    /// Shows a line for each role as it becomes ready.
    pub(super) async fn all_ready(&mut self) -> anyhow::Result<()> {
        let ready = self.supervisor.all_ready(self.ready_limit);
        tokio::pin!(ready);
        let all = loop {
            tokio::select! {
                all = &mut ready => break all,
                Ok(change) = self.changes.recv() => show(&change, &mut self.shown),
            }
        };
        let states = self.supervisor.states().borrow().clone();
        if all {
            // A change that was told and not yet heard.
            for (role, state) in states {
                show(&RoleChange { role, state }, &mut self.shown);
            }
            return Ok(());
        }
        for (role, state) in states {
            if !matches!(state, RoleState::Ready { .. }) {
                eprintln!("  {role} did not become ready; the end of its log:");
                let log = fs::read_to_string(self.logs().join(format!("{role}.log"))).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                lines
                    .iter()
                    .skip(lines.len().saturating_sub(TAIL))
                    .for_each(|line| eprintln!("    {line}"));
            }
        }
        bail!("not every role became ready within {} s", READY_LIMIT.as_secs())
    }

    /// Shows changes and restarts servers that die. Returns only when that is of no use.
    pub(super) async fn watch(&mut self) -> anyhow::Error {
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(change) => show(&change, &mut self.shown),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return anyhow!("the supervisor ended"),
                },
                status = self.nats.exited() => {
                    eprintln!("  nats        exited ({}), restarting", describe(&status));
                    if let Err(error) = self.nats.restart().await {
                        return anyhow::Error::new(error).context("NATS cannot be restarted");
                    }
                }
                status = self.postgres.exited() => {
                    eprintln!("  postgres    exited ({}), restarting", describe(&status));
                    if let Err(error) = self.postgres.restart().await {
                        return anyhow::Error::new(error).context("Postgres cannot be restarted");
                    }
                }
            }
        }
    }

    /// Stops the roles, then what they stand on.
    pub(super) async fn stop(self) {
        self.supervisor.stop(STOP_BUDGET).await;
        let (nats, postgres) = tokio::join!(self.nats.stop(), self.postgres.stop());
        for stopped in [nats, postgres] {
            if let Err(error) = stopped {
                eprintln!("  {error}");
            }
        }
    }

    pub(super) fn endpoints(&self) -> Running {
        self.endpoints.clone()
    }

    pub(super) fn data(&self) -> &Path {
        &self.paths.data
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.paths.data.join("logs")
    }

    /// Whether an answer costs nothing.
    pub(super) const fn is_simulated(&self) -> bool {
        self.simulated
    }
}

/// What `tollgate init` does, with the servers that were just started.
async fn initialise(settings: &Settings, endpoints: &Running) -> anyhow::Result<()> {
    let mut config = settings.config.clone();
    config.bus.url = endpoints.nats_url.clone();
    init::initialise(&config, &endpoints.database_url).await
}

fn describe(status: &Result<std::process::ExitStatus, tollgate_devstack::Error>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// One line for each state that a person can use; starting is not one of them.
fn show(change: &RoleChange, shown: &mut HashMap<String, RoleState>) {
    if shown.insert(change.role.clone(), change.state) == Some(change.state) {
        return;
    }
    let role = &change.role;
    match change.state {
        RoleState::Starting { .. } | RoleState::Stopped => {}
        RoleState::Ready { pid } => eprintln!("  {role:<18} ready, pid {pid}"),
        RoleState::Exited { status, restarting_in } => {
            let status = status.map_or_else(|| "not started".to_owned(), |status| status.to_string());
            eprintln!("  {role:<18} {status}; again in {restarting_in:?}");
        }
    }
}
