//! The worker as a stage: from an envelope to a claimed attempt, or back to the router.

use std::sync::Arc;

use opentelemetry::KeyValue;
use tokio::sync::Semaphore;
use tollgate_bus::{Courier, Error as BusError, Hop, Outcome, Payloads, Stage};
use tollgate_config::schema::Provider;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    AttemptId, Envelope, ErrorCode, Failure, Millis, Target,
    envelope::{Claim, Refusal},
    ledger::Attempt,
};

use crate::attempt::{Attempts, Ending, Order};

pub(crate) struct WorkerStage {
    provider: String,
    permits: Arc<Semaphore>,
    attempts: Attempts,
    payloads: Payloads,
    courier: Courier,
    metrics: Metrics,
}

impl WorkerStage {
    pub(crate) fn new(
        settings: &Provider,
        attempts: Attempts,
        payloads: Payloads,
        courier: Courier,
        metrics: Metrics,
    ) -> Self {
        Self {
            provider: settings.name.clone(),
            permits: Arc::new(Semaphore::new(settings.concurrency)),
            attempts,
            payloads,
            courier,
            metrics,
        }
    }

    /// Everything that can be known to be wrong before the claim, so that no claim is wasted on it.
    async fn prepare(&self, envelope: &Envelope, target: &Target) -> Result<bytes::Bytes, Failure> {
        let body = self
            .payloads
            .fetch(&envelope.payload)
            .await
            .map_err(|error| match error {
                BusError::PayloadGone => {
                    Failure::new(ErrorCode::Unavailable, "the request body is not stored any more")
                }
                error => {
                    tracing::warn!(%error, "a stored payload was not fetched");
                    Failure::new(ErrorCode::Unavailable, "the request body cannot be read at the moment")
                }
            })?;
        tollgate_dialect::to_openai(envelope.dialect, &body, &target.model)
            .map_err(|invalid| Failure::new(ErrorCode::InvalidRequest, invalid.message))
    }

    async fn attempt(&self, envelope: Envelope, target: Target) -> Outcome {
        let body = match self.prepare(&envelope, &target).await {
            Ok(body) => body,
            Err(failure) => return Outcome::Conclude(Box::new(envelope), failure),
        };
        let attempt = describe(&envelope, &target);
        let claim = claim(&envelope, &attempt);
        let address = envelope
            .screen
            .as_ref()
            .map_or(&envelope.owner, |screen| &screen.address);
        let line = match self.courier.claim(address, claim).await {
            Ok(line) => line,
            Err(refusal) => {
                self.refused(refusal);
                return Outcome::Done;
            }
        };
        let order = Order {
            attempt,
            body,
            view: envelope.view.clone(),
            dialect: envelope.dialect,
        };
        match self.attempts.run(order, line).await {
            Ending::Delivered => Outcome::Done,
            Ending::TryElsewhere(failure) => back_to_router(
                envelope,
                Failure {
                    target: Some(target),
                    ..failure
                },
            ),
        }
    }

    fn refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Stale => "stale",
            Refusal::Gone => "gone",
            Refusal::Unreachable => "unreachable",
        };
        self.metrics
            .claims_refused
            .add(1, &[KeyValue::new(label::REASON, reason)]);
        tracing::debug!(reason, "claim refused");
    }
}

impl Stage for WorkerStage {
    const NAME: &'static str = "work";

    async fn handle(&self, envelope: Envelope) -> Outcome {
        let Some(target) = envelope
            .target
            .clone()
            .filter(|target| target.provider == self.provider)
        else {
            tracing::warn!("an envelope for another provider was dropped");
            return Outcome::Done;
        };
        if envelope.deadline <= Millis::now() {
            return Outcome::Done;
        }
        let Ok(_permit) = self.permits.try_acquire() else {
            let busy = Failure::new(ErrorCode::ProviderBusy, "all connections to the provider are in use");
            return back_to_router(
                envelope,
                Failure {
                    target: Some(target),
                    ..busy
                },
            );
        };
        let provider = [KeyValue::new(label::PROVIDER, self.provider.clone())];
        self.metrics.permits_used.add(1, &provider);
        let outcome = Box::pin(self.attempt(envelope, target)).await;
        self.metrics.permits_used.add(-1, &provider);
        outcome
    }
}

fn back_to_router(mut envelope: Envelope, failure: Failure) -> Outcome {
    envelope.failures.push(failure);
    envelope.target = None;
    Outcome::Forward(Hop::Route, Box::new(envelope))
}

fn describe(envelope: &Envelope, target: &Target) -> Attempt {
    Attempt {
        attempt_id: AttemptId::generate(),
        request_id: envelope.request_id,
        generation: envelope.generation,
        retry: u32::try_from(envelope.failures.len()).unwrap_or(u32::MAX),
        target: target.clone(),
        model: envelope.view.model.clone(),
        caller: envelope.caller.clone(),
        dialect: envelope.dialect,
        stream: envelope.view.stream,
        started_at: Millis::now(),
        deadline: envelope.deadline,
        estimated_input_tokens: envelope.view.estimated_input_tokens,
        max_output_tokens: envelope.view.max_output_tokens,
    }
}

fn claim(envelope: &Envelope, attempt: &Attempt) -> Claim {
    Claim {
        request_id: envelope.request_id,
        generation: envelope.generation,
        attempt_id: attempt.attempt_id,
        target: attempt.target.clone(),
        owner: envelope.owner.clone(),
        policy: envelope.screen.as_ref().map(|screen| screen.policy.clone()),
        dialect: envelope.dialect,
        stream: envelope.view.stream,
    }
}
