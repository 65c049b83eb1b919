//! A provider's worker: takes a permit, claims the attempt, calls the provider, delivers the answer, settles.
//!
//! One process serves one provider and holds that provider's key alone.

mod attempt;
mod auth;
mod google;
mod sign;
mod stage;
mod upstream;

use tokio_util::sync::CancellationToken;
use tollgate_bus::{Bus, Courier, Hop, Runner};
use tollgate_config::{Config, SecretError};
use tollgate_telemetry::{Metrics, Readiness};

use crate::{attempt::Attempts, stage::WorkerStage, upstream::Upstream};

/// Envelopes in hand beyond the permits: those that are handed back as busy.
const SLACK: usize = 64;

/// Why a worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no provider is named {0:?} in the configuration")]
    UnknownProvider(String),
    #[error("the provider's key cannot be read")]
    Key(#[from] SecretError),
    #[error("the provider's key cannot be sent in a header")]
    KeyForm,
    #[error("the provider's key is no JSON key of a Google service account")]
    ServiceAccount,
    #[error("the HTTP client cannot be built")]
    Client(#[from] reqwest::Error),
    #[error(transparent)]
    Bus(#[from] tollgate_bus::Error),
}

/// A worker as a service.
pub struct Service {
    runner: Runner<WorkerStage>,
    readiness: Readiness,
}

impl Service {
    /// Reads the provider's key and subscribes to its subject.
    pub async fn build(
        config: &Config,
        provider: &str,
        bus: Bus,
        courier: Courier,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, Error> {
        let settings = config
            .providers
            .iter()
            .find(|known| known.name == provider)
            .ok_or_else(|| Error::UnknownProvider(provider.to_owned()))?;
        let attempts = Attempts {
            bus: bus.clone(),
            jobs: bus.jobs().await?,
            upstream: Upstream::new(settings, &config.worker)?,
            ledger: bus.ledger(),
            ledger_timeout: config.worker.ledger_timeout,
            metrics: metrics.clone(),
        };
        let stage = WorkerStage::new(
            settings,
            attempts,
            bus.payloads().await?,
            courier.clone(),
            metrics.clone(),
        );
        let hop = Hop::Work(provider.to_owned());
        let runner = Runner::subscribe(stage, hop, settings.concurrency + SLACK, bus, courier, metrics);
        let runner = Box::pin(runner).await?;
        Ok(Self { runner, readiness })
    }

    /// Works until `stop`, then finishes the calls under way.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        self.readiness.set(true);
        Ok(self.runner.run(stop).await?)
    }
}
