//! What is broken: several processes of each role, NATS, Postgres, and a provider behind a wire that can be cut.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use rust_decimal::Decimal;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tollgate_audit::{Actor, NewLimit, Store};
use tollgate_devstack::{
    Nats, NatsOptions, Paths, Policy, Postgres, PostgresOptions, Role, RoleLog, RoleState, Supervisor, TempPaths,
    free_port,
};
use tollgate_simulator::{Script, Simulator};
use tollgate_types::{
    Grant, KeyId, Tenant,
    limit::{Measure, Period, Scope, WhenAway},
};

use super::{
    load::{ALONE, Load, SPARED},
    proxy::Wire,
};
use crate::{cli::ChaosArgs, init, keys::hex};

/// Processes of each role.
const INGRESSES: usize = 3;
const OTHERS: usize = 2;
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);
/// More calls than hours of load make: the provider's log is compared whole.
const LOG_LENGTH: usize = 50_000_000;
/// A role that is killed all the time is started again all the time.
const POLICY: Policy = Policy {
    first_wait: Duration::from_millis(100),
    longest_wait: Duration::from_secs(1),
    healthy_after: Duration::from_secs(2),
    probe_every: Duration::from_millis(20),
};

pub(super) struct Stack {
    pub(super) nats: Nats,
    pub(super) postgres: Postgres,
    pub(super) roles: Arc<Supervisor>,
    pub(super) names: Vec<String>,
    pub(super) wire: Wire,
    pub(super) simulator: Simulator,
    /// The HTTP door of each ingress.
    pub(super) doors: Vec<String>,
    pub(super) key: String,
    paths: Paths,
    _temporary: Option<TempPaths>,
    _simulating: DropGuard,
    _wire: AbortOnDropHandle<()>,
}

impl Stack {
    pub(super) async fn start(args: &ChaosArgs) -> anyhow::Result<Self> {
        let temporary = args.data.is_none().then(Paths::temporary).transpose()?;
        let folder = match (&args.data, &temporary) {
            (Some(data), _) => Paths::new(data.clone()),
            (None, Some(temporary)) => (**temporary).clone(),
            (None, None) => bail!("there is no folder"),
        };
        fs::create_dir_all(&folder.data)?;
        let (nats, postgres) = tokio::try_join!(
            Nats::start(NatsOptions::new(folder.clone())),
            Postgres::start(PostgresOptions::new(folder.clone()))
        )?;
        let script = Script {
            delay_ms: 20,
            chunk_delay_ms: 2,
            error_rate: args.provider_errors,
            cut_rate: args.provider_errors / 2.0,
            ..Script::default()
        };
        let (simulator, stop) = (Simulator::keeping(LOG_LENGTH, script), CancellationToken::new());
        let provider = TcpListener::bind("127.0.0.1:0").await?;
        let target = provider.local_addr()?.to_string();
        let spare = format!("http://{target}");
        tokio::spawn(tollgate_simulator::run(provider, simulator.clone(), stop.clone()));
        let near = TcpListener::bind("127.0.0.1:0").await?;
        let address = near.local_addr()?;
        let wire = Wire::default();
        let passing = tokio::spawn(wire.clone().run(near, target));
        let key = "tg_chaos".to_owned();
        let file = folder.data.join("tollgate.yaml");
        fs::write(&file, configuration(&key, &format!("http://{address}"), &spare))?;
        let config = tollgate_config::load(&file)?;
        let mut with_nats = config.clone();
        with_nats.bus.url = nats.url().to_owned();
        init::initialise(&with_nats, postgres.url()).await?;
        let launch = Launch {
            file,
            nats: nats.url().to_owned(),
            database: postgres.url().to_owned(),
            folder: folder.data.clone(),
        };
        let (processes, doors) = launch.all()?;
        let names: Vec<String> = processes.iter().map(|role| role.name.clone()).collect();
        let (roles, _) = Supervisor::start(processes, POLICY);
        Store::connect(postgres.url(), 1)?
            .put_limit(&nobody(), &purse())
            .await?;
        if !roles.all_ready(READY).await {
            bail!("not every role became ready; see the logs in {}", folder.data.display());
        }
        Ok(Self {
            nats,
            postgres,
            roles: Arc::new(roles),
            names,
            wire,
            simulator,
            doors,
            key,
            paths: folder,
            _temporary: temporary,
            _simulating: stop.drop_guard(),
            _wire: AbortOnDropHandle::new(passing),
        })
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.paths.data.clone()
    }

    pub(super) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(self.postgres.url(), 2)?)
    }

    /// The end of all trouble: everything runs.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        self.wire.refuse(false);
        if self.roles.all_ready(READY).await {
            return Ok(());
        }
        let states = self.roles.states().borrow().clone();
        let away = states
            .iter()
            .filter(|(_, state)| !matches!(state, RoleState::Ready { .. }));
        let away: Vec<_> = away.map(|(name, _)| name.as_str()).collect();
        bail!(
            "not ready after {READY:?}: {}; see the logs in {}",
            away.join(", "),
            self.logs().display()
        )
    }

    /// Waits until every job that was accepted has ended and no attempt is open.
    pub(super) async fn settle(&self, load: &Load, patience: Duration) -> anyhow::Result<()> {
        let store = self.store()?;
        let begun = Instant::now();
        loop {
            let open = store
                .all_attempts()
                .await?
                .iter()
                .filter(|attempt| attempt.state == "open")
                .count();
            let jobs = store.all_jobs().await?;
            let waiting = jobs.iter().filter(|(_, state)| state == "waiting").count();
            let unheard = load.accepted_jobs().len().saturating_sub(jobs.len());
            if open + waiting + unheard == 0 {
                return Ok(());
            }
            if begun.elapsed() > patience {
                eprintln!(
                    "  after {patience:?}: {open} attempts open, {waiting} jobs waiting, {unheard} jobs not in the database"
                );
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits until no replica has anything of the budget in hand; what was spent of it, and what is in hand still.
    pub(super) async fn budget(&self, patience: Duration) -> anyhow::Result<(Decimal, Decimal)> {
        let store = self.store()?;
        let begun = Instant::now();
        loop {
            let limits = store.limits(&Tenant::default()).await?;
            let purse = limits.first().context("the budget is gone")?;
            if purse.leased.is_zero() || begun.elapsed() > patience {
                return Ok((purse.spent, purse.leased));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) async fn stop(self) {
        if let Some(roles) = Arc::into_inner(self.roles) {
            roles.stop(STOP).await;
        }
        let _ = tokio::join!(self.nats.stop(), self.postgres.stop());
    }
}

/// A budget that is never spent, so that every call is reserved for and settled; without audit calls go on.
fn purse() -> NewLimit {
    NewLimit {
        name: "purse".to_owned(),
        scope: Scope::default(),
        measure: Measure::Usd,
        amount: Decimal::from(1_000_000),
        period: Some(Period::Total),
        time_zone: None,
        window_seconds: None,
        when_away: WhenAway::Allow,
        notify_at: Vec::new(),
        webhook: None,
    }
}

fn nobody() -> Actor {
    Actor {
        key_id: KeyId::generate(),
        name: "chaos".to_owned(),
        tenant: Tenant::default(),
        grant: Grant::default(),
    }
}

/// How the processes are started.
struct Launch {
    file: PathBuf,
    nats: String,
    database: String,
    folder: PathBuf,
}

impl Launch {
    fn all(&self) -> anyhow::Result<(Vec<Role>, Vec<String>)> {
        let (mut roles, mut doors) = (Vec::new(), Vec::new());
        let listen = || -> anyhow::Result<String> { Ok(format!("127.0.0.1:{}", free_port()?)) };
        for number in 1..=INGRESSES {
            let (http, grpc, delivery) = (listen()?, listen()?, listen()?);
            doors.push(format!("http://{http}"));
            let env = [
                ("TOLLGATE_HTTP_LISTEN", http),
                ("TOLLGATE_GRPC_LISTEN", grpc),
                ("TOLLGATE_DELIVERY_LISTEN", delivery),
            ];
            roles.push(self.role(&format!("ingress-{number}"), &["ingress"], &env)?);
        }
        for number in 1..=OTHERS {
            let screen = [("TOLLGATE_SCREEN_LISTEN", listen()?)];
            roles.push(self.role(&format!("guardrail-{number}"), &["guardrail"], &screen)?);
            roles.push(self.role(&format!("router-{number}"), &["router"], &[])?);
            for (name, provider) in [("worker", "simulator"), ("spare", "spare")] {
                let secret = [("CHAOS_KEY", "sk-chaos".to_owned())];
                let worker = ["worker", "--provider", provider];
                roles.push(self.role(&format!("{name}-{number}"), &worker, &secret)?);
            }
            let audit = [
                ("DATABASE_URL", self.database.clone()),
                ("TOLLGATE_AUDIT_LISTEN", listen()?),
            ];
            roles.push(self.role(&format!("audit-{number}"), &["audit"], &audit)?);
        }
        Ok((roles, doors))
    }

    fn role(&self, name: &str, args: &[&str], env: &[(&str, String)]) -> anyhow::Result<Role> {
        let admin = format!("127.0.0.1:{}", free_port()?);
        let mut all = vec![
            ("TOLLGATE_CONFIG".to_owned(), self.file.display().to_string()),
            ("NATS_URL".to_owned(), self.nats.clone()),
            ("TOLLGATE_ADMIN_LISTEN".to_owned(), admin.clone()),
        ];
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Ok(Role {
            name: name.to_owned(),
            command: std::env::current_exe().context("cannot find our own binary")?,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: all,
            log: RoleLog::File(self.folder.join(format!("{name}.log"))),
            ready_url: Some(format!("http://{admin}/readyz")),
        })
    }
}

/// `provider` is behind the wire, `spare` is the same without one.
fn configuration(key: &str, provider: &str, spare: &str) -> String {
    let hash = hex(&tollgate_config::hash_key(key));
    format!(
        "keys:
  - {{name: chaos, hash: 'sha256:{hash}', permissions: [complete, report]}}
providers:
  - {{name: simulator, base_url: '{provider}/v1', api_key: 'env:CHAOS_KEY', concurrency: 128}}
  - {{name: spare, base_url: '{spare}/v1', price_list: simulator, api_key: 'env:CHAOS_KEY', concurrency: 128}}
models:
  - {{name: {ALONE}, targets: [{{provider: simulator, model: sim-mini}}, {{provider: simulator, model: sim-large}}]}}
  - name: {SPARED}
    targets: [{{provider: simulator, model: sim-mini}}, {{provider: spare, model: sim-mini}}]
    hedge: {{percentile: 0.95, min_delay: 50ms, max_share: 0.1}}
ingress:
  request_timeout: 20s
  jobs: {{min_backoff: 200ms, max_backoff: 2s, max_failed_calls: 1000, deadline: 1h}}
audit: {{orphan_grace: 2s, orphan_interval: 500ms, keep_events: 1m}}
telemetry: {{log: 'warn,tollgate=info'}}
"
    )
}
