//! The router: decides which provider a request goes to, and where it goes when that one fails.

mod budget;
mod decide;
mod health;

use std::sync::Arc;

use futures::StreamExt;
use opentelemetry::KeyValue;
use tokio_util::sync::CancellationToken;
use tollgate_bus::{
    Bus, Courier, Error, Hop, Outcome, Runner, Stage,
    targets::{Ejected, Targets},
};
use tollgate_config::Config;
use tollgate_telemetry::{Metrics, Readiness, label};
use tollgate_types::{Envelope, Millis};

pub use budget::Budget;
pub use decide::{Decision, Present, Routes};
pub use health::{Ejection, Health};

/// The router as a service.
pub struct Service {
    runner: Runner<RouterStage>,
    targets: Targets,
    health: Arc<Health>,
    readiness: Readiness,
}

impl Service {
    /// Subscribes to the queue.
    pub async fn build(
        config: &Config,
        bus: Bus,
        courier: Courier,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, Error> {
        let health = Arc::new(Health::new(config.router.health.clone()));
        let targets = Box::pin(bus.targets()).await?;
        let stage = RouterStage {
            routes: Routes::new(config),
            health: Arc::clone(&health),
            budget: Budget::new(config.router.retry_share),
            targets: targets.clone(),
            metrics: metrics.clone(),
        };
        let concurrency = config.router.concurrency;
        let runner = Runner::subscribe(stage, Hop::Route, concurrency, bus, courier, metrics).await?;
        Ok(Self {
            runner,
            targets,
            health,
            readiness,
        })
    }

    /// Routes until `stop`, then what has arrived already.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let mut changes = Box::pin(self.targets.changes());
        let health = self.health;
        let listening = async {
            while let Some(change) = changes.next().await {
                health.hear(change);
            }
            std::future::pending::<()>().await;
        };
        self.readiness.set(true);
        tokio::select! {
            ended = self.runner.run(stop) => ended,
            () = listening => Ok(()),
        }
    }
}

struct RouterStage {
    routes: Routes,
    health: Arc<Health>,
    budget: Budget,
    targets: Targets,
    metrics: Metrics,
}

impl RouterStage {
    /// What the last failure says of its target, for this router and for the others.
    fn note(&self, envelope: &Envelope, now: Millis) {
        let Some(failure) = envelope.failures.last() else {
            self.budget.earn(&envelope.view.model);
            return;
        };
        let Some(target) = &failure.target else { return };
        let Some(Ejection { until, strikes }) = self.health.failed(target, failure, now) else {
            return;
        };
        tracing::warn!(
            provider = target.provider,
            model = target.model,
            code = failure.code.as_str(),
            for_ms = until.remaining(now).as_millis(),
            "a target is ejected"
        );
        self.metrics
            .ejections
            .add(1, &[KeyValue::new(label::PROVIDER, target.provider.clone())]);
        let ejected = Ejected {
            target: target.clone(),
            until,
            strikes,
            reason: Some(failure.code),
        };
        // The others find out by themselves if need be; the request does not wait for it.
        let targets = self.targets.clone();
        tokio::spawn(async move {
            if let Err(error) = targets.eject(&ejected).await {
                tracing::debug!(%error, "other routers were not told of an ejection");
            }
        });
    }
}

impl Stage for RouterStage {
    const NAME: &'static str = "route";

    async fn handle(&self, mut envelope: Envelope) -> Outcome {
        let now = Millis::now();
        self.note(&envelope, now);
        let present = Present {
            health: &self.health,
            budget: &self.budget,
            now,
            lot: rand::random(),
        };
        match self.routes.decide(&envelope, &present) {
            Decision::Try(target, wait) => {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                tracing::debug!(provider = target.provider, model = target.model, "routed");
                self.health.tried(&target, now);
                let hop = Hop::Work(target.provider.clone());
                envelope.target = Some(target);
                Outcome::Forward(hop, Box::new(envelope))
            }
            Decision::GiveUp(failure) => Outcome::Conclude(Box::new(envelope), failure),
        }
    }
}
