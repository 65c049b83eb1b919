//! The worker as a stage: from an envelope to a claimed attempt, or back to the router.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use opentelemetry::KeyValue;
use tokio::sync::Semaphore;
use tollgate_bus::{
    Courier, Error as BusError, Hop, Outcome, Payloads, Stage,
    delivery::{Line, Piece},
};
use tollgate_config::schema::Provider;
use tollgate_dialect::{Prepared, Refused};
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    AttemptId, Envelope, ErrorCode, Failure, JobId, Millis, Target,
    envelope::{Claim, Refusal},
    ledger::Attempt,
};

use crate::attempt::{Attempts, Ending, Order, Owner};

pub(crate) struct WorkerStage {
    settings: Provider,
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
            settings: settings.clone(),
            permits: Arc::new(Semaphore::new(settings.concurrency)),
            attempts,
            payloads,
            courier,
            metrics,
        }
    }

    /// Everything that can be known to be wrong before the claim, so that no claim is wasted on it.
    async fn prepare(&self, envelope: &Envelope, target: &Target) -> Result<Prepared, Failure> {
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
        let order = tollgate_dialect::Order {
            client: envelope.dialect,
            provider: self.settings.dialect,
            view: &envelope.view,
            body: &body,
            model: &target.model,
            quirks: self.settings.quirks,
            unsupported: self.settings.unsupported,
        };
        tollgate_dialect::translate(&order).map_err(|refused| {
            let code = match refused {
                Refused::Invalid(_) => ErrorCode::InvalidRequest,
                Refused::Unsupported(_) => ErrorCode::Unsupported,
            };
            Failure::new(code, refused.to_string())
        })
    }

    async fn attempt(&self, envelope: Envelope, target: Target) -> Outcome {
        let prepared = match self.prepare(&envelope, &target).await {
            Ok(prepared) => prepared,
            // Another provider may be able to.
            Err(failure) if failure.code == ErrorCode::Unsupported => {
                return back_to_router(
                    envelope,
                    Failure {
                        target: Some(target),
                        ..failure
                    },
                );
            }
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
            Err(Refusal::Limited(failure)) => {
                self.refused("limited");
                return back_to_router(
                    envelope,
                    Failure {
                        target: Some(target),
                        ..*failure
                    },
                );
            }
            Err(refusal) => {
                self.refused(match refusal {
                    Refusal::Stale => "stale",
                    Refusal::Gone => "gone",
                    Refusal::Unreachable | Refusal::Limited(_) => "unreachable",
                });
                return Outcome::Done;
            }
        };
        // A worker that was stalled since the grant may be too late.
        if line.hung_up.is_cancelled() {
            return Outcome::Done;
        }
        let call = match prepared {
            Prepared::Call(call) => call,
            Prepared::Answered(frame) => {
                deliver(&line, frame).await;
                return Outcome::Done;
            }
        };
        if !call.dropped.is_empty() {
            tracing::info!(attempt.id = %attempt.attempt_id, dropped = ?call.dropped, "asked for what the provider cannot say");
        }
        let order = Order {
            attempt: Attempt {
                hold: line.hold.clone(),
                ..attempt
            },
            path: call.path,
            body: call.body,
            framing: call.framing,
            owner: owner(&envelope),
            fence: envelope.fence,
            headers: if envelope.dialect == self.settings.dialect {
                envelope.headers.clone()
            } else {
                BTreeMap::new()
            },
        };
        match self.attempts.run(order, call.answer, line).await {
            Ending::Delivered => Outcome::Done,
            Ending::TryElsewhere(failure, fence) => back_to_router(
                Envelope { fence, ..envelope },
                Failure {
                    target: Some(target),
                    ..failure
                },
            ),
        }
    }

    fn refused(&self, reason: &'static str) {
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
            .filter(|target| target.provider == self.settings.name)
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
        let provider = [KeyValue::new(label::PROVIDER, self.settings.name.clone())];
        self.metrics.permits_used.add(1, &provider);
        let outcome = Box::pin(self.attempt(envelope, target)).await;
        self.metrics.permits_used.add(-1, &provider);
        outcome
    }
}

/// A screened answer is no answer before the guardrail has seen it, so that only the line can take it.
fn owner(envelope: &Envelope) -> Owner {
    if envelope.fence.is_some() && envelope.screen.is_none() {
        Owner::Job(JobId::of(envelope.request_id.as_uuid()))
    } else {
        Owner::Line
    }
}

/// An answer that needed no call.
async fn deliver(line: &Line, payload: Bytes) {
    let end = Piece::End {
        failure: None,
        used: Some(Box::default()),
    };
    if line.pieces.send(Piece::Frame { seq: 0, payload }).await.is_ok() {
        let _ = line.pieces.send(end).await;
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
        hedge: envelope.hedged.is_some(),
        target: target.clone(),
        model: envelope.view.model.clone(),
        caller: envelope.caller.clone(),
        dialect: envelope.dialect,
        operation: envelope.view.operation,
        stream: envelope.view.stream,
        started_at: Millis::now(),
        deadline: envelope.deadline,
        estimated_input_tokens: envelope.view.estimated_input_tokens,
        max_output_tokens: envelope.view.most_output_tokens(None),
        hold: None,
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
