//! The router: decides which provider a request goes to, and where it goes when that one fails.

mod decide;

use tokio_util::sync::CancellationToken;
use tollgate_bus::{Bus, Courier, Error, Hop, Outcome, Runner, Stage};
use tollgate_config::Config;
use tollgate_telemetry::{Metrics, Readiness};
use tollgate_types::{Envelope, Millis};

pub use decide::{Decision, Routes};

/// The router as a service.
pub struct Service {
    runner: Runner<RouterStage>,
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
        let stage = RouterStage {
            routes: Routes::new(config),
        };
        let runner = Runner::subscribe(stage, Hop::Route, config.router.concurrency, bus, courier, metrics).await?;
        Ok(Self { runner, readiness })
    }

    /// Routes until `stop`, then what has arrived already.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        self.readiness.set(true);
        self.runner.run(stop).await
    }
}

struct RouterStage {
    routes: Routes,
}

impl Stage for RouterStage {
    const NAME: &'static str = "route";

    async fn handle(&self, mut envelope: Envelope) -> Outcome {
        match self.routes.decide(&envelope, Millis::now()) {
            Decision::Try(target) => {
                tracing::debug!(provider = target.provider, model = target.model, "routed");
                let hop = Hop::Work(target.provider.clone());
                envelope.target = Some(target);
                Outcome::Forward(hop, Box::new(envelope))
            }
            Decision::GiveUp(failure) => Outcome::Conclude(Box::new(envelope), failure),
        }
    }
}
