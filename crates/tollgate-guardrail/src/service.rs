//! Guardrail as a service: the stage on the queue, the screening on its delivery listener.

use std::sync::Arc;

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_bus::{Bus, Courier, Hop, Runner};
use tollgate_config::Config;
use tollgate_telemetry::{Metrics, Readiness};

use crate::{
    screen::Screening,
    stage::{GuardStage, compile},
};

/// Why guardrail cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bus(#[from] tollgate_bus::Error),
    #[error("the delivery listener failed")]
    Listen(#[from] std::io::Error),
    #[error("a task of guardrail panicked")]
    Task(#[from] tokio::task::JoinError),
}

/// Guardrail as a service.
pub struct Service {
    runner: Runner<GuardStage>,
    screening: Arc<Screening>,
    delivery: TcpListener,
    readiness: Readiness,
}

impl Service {
    /// Compiles the policies and subscribes to the queue.
    pub async fn build(
        config: &Config,
        delivery: TcpListener,
        bus: Bus,
        courier: Courier,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, Error> {
        let address = tollgate_bus::advertised(&delivery, config.guardrail.delivery_advertise.as_deref())?;
        let policies = compile(&config.guardrail.policies);
        let screening = Arc::new(Screening {
            policies: Arc::clone(&policies),
            courier: courier.clone(),
            metrics: metrics.clone(),
            tasks: TaskTracker::new(),
        });
        courier.register(&address, screening.clone());
        let stage = GuardStage {
            policies,
            payloads: bus.payloads().await?,
            address,
            metrics: metrics.clone(),
        };
        let concurrency = config.guardrail.concurrency;
        let runner = Runner::subscribe(stage, Hop::Guard, concurrency, bus, courier, metrics).await?;
        Ok(Self {
            runner,
            screening,
            delivery,
            readiness,
        })
    }

    /// Checks until `stop`, then finishes what is under way.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Self {
            runner,
            screening,
            delivery,
            readiness,
        } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(runner.run(stop.clone()));
        tasks.spawn({
            let (screening, stop) = (Arc::clone(&screening), stop.clone());
            async move { tollgate_bus::serve_delivery(delivery, screening, stop).await }
        });
        readiness.set(true);
        let mut ended = Ok(());
        while let Some(task) = tasks.join_next().await {
            // Either half that fails takes the other with it.
            stop.cancel();
            if let Err(error) = task? {
                ended = Err(error.into());
            }
        }
        screening.tasks.close();
        screening.tasks.wait().await;
        ended
    }
}
