//! Running one role, or all of them in one process, from configuration to the last flush.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tollgate_bus::{Bus, Courier};
use tollgate_config::Config;
use tollgate_identity::Identities;
use tollgate_telemetry::{Admin, Readiness, Telemetry};

use crate::cli::RoleArgs;

/// How long a role may take to finish what is in flight once it is told to stop.
const DRAIN_BUDGET: Duration = Duration::from_secs(30);

/// A part of Tollgate that runs as a service.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    Ingress,
    Guardrail,
    Router,
    /// The worker of this provider.
    Worker(String),
    Audit,
}

impl Role {
    /// Every role of a configuration.
    pub(crate) fn all(config: &Config) -> Vec<Self> {
        let mut roles = vec![Self::Audit];
        roles.extend(
            config
                .providers
                .iter()
                .map(|provider| Self::Worker(provider.name.clone())),
        );
        roles.extend([Self::Router, Self::Guardrail, Self::Ingress]);
        roles
    }
}

/// Runs roles until a signal. `name` is what telemetry calls the process.
pub(crate) async fn serve(name: &str, args: &RoleArgs, roles: impl FnOnce(&Config) -> Vec<Role>) -> anyhow::Result<()> {
    let config = tollgate_config::load(&args.config)?;
    let roles = roles(&config);
    let telemetry = Telemetry::init(name, &config.telemetry)?;
    let stop = stop_on_signal()?;
    let ended = Process::start(name, &config, roles, &telemetry, stop)
        .await?
        .run()
        .await;
    // Blocks on the exporters' own threads.
    tokio::task::spawn_blocking(|| telemetry.shutdown()).await?;
    ended
}

/// The first SIGTERM or SIGINT asks to stop; the second is not discussed.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = stop.clone();
    // Lives as long as the process; there is nothing to wait for.
    std::mem::drop(tokio::spawn(async move {
        for ask in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if ask {
                token.cancel();
            }
        }
        std::process::exit(130);
    }));
    Ok(stop)
}

type Task = anyhow::Result<()>;

/// The roles of this process, ready to run.
struct Process {
    tasks: JoinSet<(String, Task)>,
    readiness: Vec<Readiness>,
    stop: CancellationToken,
    bus: Bus,
}

impl Process {
    async fn start(
        name: &str,
        config: &Config,
        roles: Vec<Role>,
        telemetry: &Telemetry,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        // Listeners first: a port that is taken should say so at once.
        let admin = bind(config.telemetry.admin_listen, "telemetry.admin_listen").await?;
        let mut bound = Vec::new();
        for role in roles {
            bound.push(Bound::new(role, config).await?);
        }
        let client = format!("tollgate-{name}");
        let bus = tokio::select! {
            bus = Bus::connect(&config.bus, &client) => bus?,
            () = stop.cancelled() => bail!("stopped while waiting for NATS"),
        };
        let mut process = Self {
            tasks: JoinSet::new(),
            readiness: Vec::new(),
            stop,
            bus,
        };
        let courier = Courier::default();
        for role in bound {
            Box::pin(role.start(&mut process, config, telemetry, &courier)).await?;
        }
        let admin = Admin::new(admin, telemetry.clone(), process.readiness.clone());
        // Answers until the process ends: a draining role is still asked how it is.
        process.spawn("admin", admin.run(CancellationToken::new()));
        tracing::info!(roles = name, "started");
        Ok(process)
    }

    fn spawn<E>(&mut self, name: &str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error>,
    {
        let name = name.to_owned();
        self.tasks.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    fn readiness(&mut self) -> Readiness {
        let readiness = Readiness::default();
        self.readiness.push(readiness.clone());
        readiness
    }

    /// The order of a shutdown: unready, no new work, finish what is in flight, flush the queue. A role that ends by itself
    /// takes the process with it.
    async fn run(mut self) -> anyhow::Result<()> {
        let mut ended = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => tracing::info!("stopping"),
            Some(first) = self.tasks.join_next() => {
                ended = Err(failure(first));
            }
        }
        for readiness in &self.readiness {
            readiness.set(false);
        }
        self.stop.cancel();
        let drained = tokio::time::timeout(DRAIN_BUDGET, async {
            // The admin listener is the last task and never ends.
            while self.tasks.len() > 1 {
                match self.tasks.join_next().await {
                    Some(Ok((_, Ok(())))) | None => {}
                    Some(failed) => ended = Err(failure(failed)),
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("the time to finish is used up; the rest is cut off");
        }
        self.bus.flush().await;
        self.tasks.abort_all();
        tracing::info!("stopped");
        ended
    }
}

fn failure(ended: Result<(String, Task), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("{name} ended by itself"),
        Ok((name, Err(error))) => error.context(format!("{name} failed")),
        Err(error) => anyhow::Error::new(error).context("a role panicked"),
    }
}

/// A role with its sockets.
enum Bound {
    Ingress(tollgate_ingress::Listeners),
    Guardrail(TcpListener),
    Router,
    Worker(String),
    Audit(TcpListener),
}

impl Bound {
    async fn new(role: Role, config: &Config) -> anyhow::Result<Self> {
        Ok(match role {
            Role::Ingress => {
                let ingress = &config.ingress;
                Self::Ingress(tollgate_ingress::Listeners {
                    http: bind(ingress.http_listen, "ingress.http_listen").await?,
                    grpc: bind(ingress.grpc_listen, "ingress.grpc_listen").await?,
                    delivery: bind(ingress.delivery_listen, "ingress.delivery_listen").await?,
                })
            }
            Role::Guardrail => {
                Self::Guardrail(bind(config.guardrail.delivery_listen, "guardrail.delivery_listen").await?)
            }
            Role::Router => Self::Router,
            Role::Worker(provider) => Self::Worker(provider),
            Role::Audit => Self::Audit(bind(config.audit.grpc_listen, "audit.grpc_listen").await?),
        })
    }

    async fn start(
        self,
        process: &mut Process,
        config: &Config,
        telemetry: &Telemetry,
        courier: &Courier,
    ) -> anyhow::Result<()> {
        let (bus, courier, metrics) = (process.bus.clone(), courier.clone(), telemetry.metrics.clone());
        let (ready, stop) = (process.readiness(), process.stop.clone());
        match self {
            Self::Ingress(listeners) => {
                let service = tollgate_ingress::Service::build(config, listeners, bus, &courier, metrics, ready);
                let service = Box::pin(service).await?;
                process.spawn("ingress", service.run(stop));
            }
            Self::Guardrail(delivery) => {
                let service =
                    tollgate_guardrail::Service::build(config, delivery, bus, courier, metrics, ready).await?;
                process.spawn("guardrail", service.run(stop));
            }
            Self::Router => {
                let service = tollgate_router::Service::build(config, bus, courier, metrics, ready).await?;
                process.spawn("router", service.run(stop));
            }
            Self::Worker(provider) => {
                let service = tollgate_worker::Service::build(config, &provider, bus, courier, metrics, ready).await?;
                process.spawn(&format!("worker of {provider}"), service.run(stop));
            }
            Self::Audit(listener) => {
                let identities = Arc::new(Identities::new(config, metrics.clone())?);
                let streams = tollgate_audit::Streams {
                    ledger: bus.ledger_consumer().await?,
                    jobs: bus.job_records().await?,
                    questions: bus.job_questions().await?,
                    quotas: bus.quota_questions().await?,
                    notices: bus.notices(),
                    buckets: tollgate_audit::Buckets {
                        keys: Box::pin(bus.registry()).await?,
                        tenants: Box::pin(bus.registry()).await?,
                        limits: Box::pin(bus.registry()).await?,
                        prices: Box::pin(bus.registry()).await?,
                    },
                };
                let service = tollgate_audit::Service::build(config, identities, streams, listener, metrics, ready)?;
                process.spawn("audit", service.run(stop));
            }
        }
        Ok(())
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({setting})"))
}
