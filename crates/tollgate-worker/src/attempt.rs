//! A claimed attempt, from `started` to `settled`.
//!
//! The order is what makes the ledger whole: `started` is stored before the call, `settled` before the owner learns that
//! the answer is complete. A permit is held until the ledger has both, so that a ledger that lags slows new calls.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Response;
use tollgate_bus::{
    Bus, Error as BusError, Jobs, Ledger,
    delivery::{Line, Piece, Used},
};
use tollgate_dialect::{Answer, BadAnswer, Events, Framing};
use tollgate_telemetry::Metrics;
use tollgate_types::{
    ErrorCode, Failure, JobEnd, JobId, Millis, Operation, Usage, UsageSource,
    ledger::{Attempt, AttemptOutcome, LedgerEvent, Settlement},
};

use crate::upstream::{Message, Refused, Upstream};

/// How long a client should wait when the ledger takes nothing.
const LEDGER_WAIT_MS: u64 = 5000;
/// How long a settlement is tried. A ledger stream that is away longer leaves an orphan.
const SETTLE_PATIENCE: Duration = Duration::from_secs(300);
/// What follows the last event of a stream is read this long, so that the connection can be used again.
const TRAILER_WAIT: Duration = Duration::from_millis(50);

/// How long an owner may take to note that a claim was given back.
const RELEASE_WAIT: Duration = Duration::from_secs(2);
/// Between two tries to store a job's answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Without a line, a job is asked this often whether it still wants its answer.
const WANTED_PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Attempts {
    pub(crate) bus: Bus,
    pub(crate) jobs: Jobs,
    pub(crate) upstream: Upstream,
    pub(crate) ledger: Ledger,
    pub(crate) ledger_timeout: Duration,
    pub(crate) metrics: Metrics,
}

/// What is to be called.
pub(crate) struct Order {
    pub(crate) attempt: Attempt,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) framing: Framing,
    /// The client's own, for a provider of its dialect.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) owner: Owner,
    /// The envelope's.
    pub(crate) fence: Option<u64>,
}

/// Whom a call is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whoever is at the other end of the line. When that goes, so does the call.
    Line,
    /// A job. The call goes on without the line, unless the job has ended, and its answer is stored from here.
    Job(JobId),
}

/// How an attempt ended, for the stage.
pub(crate) enum Ending {
    /// The owner has the answer, or a failure after its first piece, or has gone.
    Delivered,
    /// Nothing was delivered; the router may know another target. With the fence for the next call of a job.
    TryElsewhere(Failure, Option<u64>),
}

/// How a call went.
struct Call {
    outcome: AttemptOutcome,
    failure: Option<Failure>,
    may_be_billed: bool,
    frames: u64,
    first_token: Option<Duration>,
    /// Of a call for a job, the answer.
    kept: Option<Bytes>,
}

impl Attempts {
    /// Calls the provider under a granted claim and delivers on `line`.
    pub(crate) async fn run(&self, order: Order, mut answer: Answer, line: Line) -> Ending {
        let begun = Instant::now();
        // Before the attempt can be known, so that whoever asks after it never misses its worker.
        let _presence = match order.owner {
            Owner::Line => None,
            Owner::Job(_) => match self.bus.answer_for(order.attempt.attempt_id).await {
                Ok(presence) => Some(presence),
                Err(error) => {
                    tracing::warn!(%error, "an attempt of a job cannot be answered for and is not made");
                    return Ending::Delivered;
                }
            },
        };
        let mut fence = order.fence;
        let start = self.ledger.start(&order.attempt, order.fence);
        let call = match tokio::time::timeout(self.ledger_timeout, start).await {
            Ok(Ok(sequence)) => {
                fence = fence.map(|_| sequence);
                self.call(&order, &line, &mut answer).await
            }
            Ok(Err(BusError::AlreadyStarted)) => {
                tracing::info!("another worker has started on the request since; no call is made");
                return Ending::Delivered;
            }
            not_stored => {
                let error = not_stored.ok().and_then(Result::err);
                tracing::error!(?error, "the ledger did not take an attempt; the provider is not called");
                let surely = matches!(error, Some(BusError::Refused { .. }));
                self.give_up(order, line, &mut answer, surely).await;
                return Ending::Delivered;
            }
        };
        if let (Owner::Job(job), Some(body)) = (order.owner, &call.kept) {
            self.store(job, body.clone()).await;
        }
        let settlement = self.settlement(&order, &call, &mut answer).await;
        let provider = order.attempt.target.provider.as_str();
        let Usage {
            input_tokens,
            output_tokens,
            ..
        } = settlement.usage;
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.record_attempt(
            provider,
            settlement.outcome.as_str(),
            seconds,
            input_tokens,
            output_tokens,
        );
        tracing::info!(
            attempt.id = %order.attempt.attempt_id,
            outcome = settlement.outcome.as_str(),
            status = settlement.provider_status,
            input_tokens,
            output_tokens,
            "attempt settled"
        );
        let elsewhere = self.conclude(order.attempt, settlement, call, line).await;
        elsewhere.map_or(Ending::Delivered, |failure| Ending::TryElsewhere(failure, fence))
    }

    /// Tells the owner that no call was made, because it could not be written down. No other worker could write it either.
    /// `surely` when the ledger does not have the start of the attempt, which is then nothing to settle.
    async fn give_up(&self, order: Order, line: Line, answer: &mut Answer, surely: bool) {
        let failure = Failure::new(ErrorCode::Unavailable, "the ledger cannot be written at the moment");
        let call = Call::failed(failure.retry_after_ms(LEDGER_WAIT_MS));
        let end = line.pieces.send(Piece::End {
            failure: call.failure.clone(),
            used: surely.then(Box::default),
        });
        let _ = tokio::time::timeout(self.ledger_timeout, end).await;
        drop(line);
        if surely {
            return;
        }
        let settlement = self.settlement(&order, &call, answer).await;
        let attempt = order.attempt;
        let settled = LedgerEvent::Settled { attempt, settlement };
        if let Err(error) = self.ledger.publish_until(&settled, SETTLE_PATIENCE).await {
            tracing::error!(%error, "a call that was not made may become an orphan");
        }
    }

    /// Settles, then tells the owner; the failure that another target may mend. A ledger that hangs does not keep the owner waiting for long.
    async fn conclude(&self, attempt: Attempt, settlement: Settlement, call: Call, line: Line) -> Option<Failure> {
        let used = Some(Box::new(settlement.used()));
        let settled = LedgerEvent::Settled { attempt, settlement };
        let settle = self.ledger.publish_until(&settled, SETTLE_PATIENCE);
        tokio::pin!(settle);
        let stored = tokio::time::timeout(self.ledger_timeout, &mut settle).await;
        let elsewhere = match call.failure {
            Some(failure) if call.frames == 0 && call.outcome != AttemptOutcome::Cancelled => {
                release(&line, used).await;
                Some(failure)
            }
            failure => {
                let end = line.pieces.send(Piece::End { failure, used });
                let _ = tokio::time::timeout(self.ledger_timeout, end).await;
                None
            }
        };
        drop(line);
        let stored = match stored {
            Ok(stored) => stored,
            Err(_) => settle.await,
        };
        if let Err(error) = stored {
            tracing::error!(%error, "a settlement was not stored; the attempt becomes an orphan");
        }
        elsewhere
    }

    /// Ends the job with its answer, which has been paid for, however long the stream is away.
    async fn store(&self, id: JobId, body: Bytes) {
        let give_up = Instant::now() + SETTLE_PATIENCE;
        while let Err(error) = self.store_once(id, &body).await {
            tracing::warn!(%error, job.id = %id, "the answer of a job waits for the stream");
            if Instant::now() > give_up {
                return;
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    async fn store_once(&self, id: JobId, body: &Bytes) -> Result<(), BusError> {
        let Some(job) = self.jobs.find(id).await? else {
            return Ok(());
        };
        let answer = self.jobs.check_in(id, "answer", body.clone()).await?;
        let failed_calls = self.jobs.note_of(id).await.failed_calls;
        self.jobs.finish(&JobEnd::now(&job, Ok(answer), failed_calls)).await?;
        Ok(())
    }

    /// Waits until nobody wants the answer any more.
    async fn unwanted(&self, line: &Line, owner: Owner) {
        line.hung_up.cancelled().await;
        let Owner::Job(id) = owner else { return };
        // The owner has gone, or let the job go; only the job's own end ends the call.
        while !matches!(self.jobs.end_of(id).await, Ok(Some(_))) {
            tokio::time::sleep(WANTED_PAUSE).await;
        }
    }

    /// The call within its bounds: the owner's patience and the deadline.
    async fn call(&self, order: &Order, line: &Line, answer: &mut Answer) -> Call {
        let mut progress = Progress {
            begun: Instant::now(),
            frames: 0,
            first_token: None,
            keeps: matches!(order.owner, Owner::Job(_)),
            kept: None,
        };
        let exchange = self.exchange(order, line, answer, &mut progress);
        let ended = tokio::select! {
            biased;
            () = self.unwanted(line, order.owner) => {
                Err(Refused { failure: Failure::new(ErrorCode::Cancelled, "the client went away"), may_be_billed: true })
            }
            ended = tokio::time::timeout(order.attempt.deadline.remaining(Millis::now()), exchange) => {
                ended.unwrap_or_else(|_| Err(Refused {
                    failure: Failure::new(ErrorCode::DeadlineExceeded, "the answer was not complete in the time allowed"),
                    may_be_billed: true,
                }))
            }
        };
        let Progress {
            frames,
            first_token,
            kept,
            ..
        } = progress;
        match ended {
            Ok(()) => Call {
                outcome: AttemptOutcome::Answered,
                failure: None,
                may_be_billed: true,
                frames,
                first_token,
                kept,
            },
            Err(Refused { failure, may_be_billed }) => {
                let outcome = match failure.code {
                    ErrorCode::Cancelled | ErrorCode::DeadlineExceeded => AttemptOutcome::Cancelled,
                    _ if may_be_billed => AttemptOutcome::Broken,
                    _ => AttemptOutcome::Failed,
                };
                Call {
                    outcome,
                    failure: Some(failure),
                    may_be_billed,
                    frames,
                    first_token,
                    kept: None,
                }
            }
        }
    }

    async fn exchange(
        &self,
        order: &Order,
        line: &Line,
        answer: &mut Answer,
        progress: &mut Progress,
    ) -> Result<(), Refused> {
        let message = Message {
            attempt: order.attempt.attempt_id,
            path: &order.path,
            model: &order.attempt.target.model,
            body: order.body.clone(),
            framing: order.framing,
            headers: &order.headers,
        };
        let response = self.upstream.call(message).await?;
        if order.framing == Framing::Whole {
            let body = self.whole(response).await?;
            let frame = answer.whole(&body).map_err(bad_answer)?;
            return progress.deliver(line, frame).await;
        }
        let events = Events::new(order.framing, self.upstream.max_event_bytes);
        self.stream(response, events, line, answer, progress).await
    }

    async fn stream(
        &self,
        mut response: Response,
        mut events: Events,
        line: &Line,
        answer: &mut Answer,
        progress: &mut Progress,
    ) -> Result<(), Refused> {
        while !answer.is_done() {
            let chunk = self.chunk(&mut response).await?;
            let Some(bytes) = chunk else {
                for frame in answer.closed().map_err(bad_answer)? {
                    progress.deliver(line, frame).await?;
                }
                break;
            };
            events.push(&bytes);
            while let Some(event) = events.next_event().map_err(bad_answer)? {
                for frame in answer.event(&event).map_err(bad_answer)? {
                    progress.deliver(line, frame).await?;
                }
            }
        }
        if !answer.summary().complete {
            return Err(broken("the provider's answer broke off"));
        }
        let _ = tokio::time::timeout(TRAILER_WAIT, response.chunk()).await;
        Ok(())
    }

    async fn whole(&self, mut response: Response) -> Result<Bytes, Refused> {
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk(&mut response).await? {
            if body.len() + bytes.len() > self.upstream.max_answer_bytes {
                return Err(broken("the provider's answer is over the limit"));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body.into())
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Refused> {
        match tokio::time::timeout(self.upstream.idle_timeout, response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(broken("the provider's answer broke off")),
            Err(_) => Err(Refused {
                failure: Failure::new(ErrorCode::ProviderTimeout, "the provider's answer stalled"),
                may_be_billed: true,
            }),
        }
    }

    /// What the call used: as the provider says, else by our own count of what went out and came in.
    async fn settlement(&self, order: &Order, call: &Call, answer: &mut Answer) -> Settlement {
        let (usage, usage_source) = match answer.summary().usage {
            Some(usage) => (usage, UsageSource::Provider),
            // A count of tokens is free, however it ends.
            None if order.attempt.operation == Operation::CountTokens => (Usage::default(), UsageSource::None),
            None if call.may_be_billed => (count(order.body.clone(), answer).await, UsageSource::Counted),
            None => (Usage::default(), UsageSource::None),
        };
        Settlement {
            outcome: call.outcome,
            error: call.failure.as_ref().map(|failure| failure.code),
            provider_status: call
                .failure
                .as_ref()
                .map_or(Some(200), |failure| failure.provider_status),
            served_model: answer.summary().served_model.clone(),
            usage,
            usage_source,
            consumption: (usage_source == UsageSource::Provider)
                .then(|| answer.consumption())
                .flatten()
                .map(Box::new),
            ended_at: Millis::now(),
            first_token_ms: call.first_token.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
        }
    }
}

impl Call {
    const fn failed(failure: Failure) -> Self {
        Self {
            outcome: AttemptOutcome::Failed,
            failure: Some(failure),
            may_be_billed: false,
            frames: 0,
            first_token: None,
            kept: None,
        }
    }
}

/// What the owner has been sent. Survives the future that sends it.
struct Progress {
    begun: Instant,
    frames: u64,
    first_token: Option<Duration>,
    /// Whether the answer is wanted even when the line has gone.
    keeps: bool,
    kept: Option<Bytes>,
}

impl Progress {
    async fn deliver(&mut self, line: &Line, payload: Bytes) -> Result<(), Refused> {
        if self.keeps {
            self.kept = Some(payload.clone());
        }
        let piece = Piece::Frame {
            seq: self.frames,
            payload,
        };
        if line.pieces.send(piece).await.is_err() && !self.keeps {
            let failure = Failure::new(ErrorCode::Cancelled, "nobody awaits the answer");
            return Err(Refused {
                failure,
                may_be_billed: true,
            });
        }
        self.frames += 1;
        self.first_token.get_or_insert_with(|| self.begun.elapsed());
        Ok(())
    }
}

/// Gives the claim back and waits until the owner has taken note, so that it grants the next one.
async fn release(line: &Line, used: Used) {
    if line.pieces.try_send(Piece::Released(used)).is_ok() {
        let _ = tokio::time::timeout(RELEASE_WAIT, line.hung_up.cancelled()).await;
    }
}

/// What went out and came in, by our own count; the prompt by the provider's, if it told that before it broke off.
async fn count(body: Bytes, answer: &mut Answer) -> Usage {
    let output_tokens = answer.counted_output();
    if let Some(told) = answer.partial_usage() {
        return Usage { output_tokens, ..told };
    }
    // A prompt of megabytes takes a while to count.
    let input_tokens = tokio::task::spawn_blocking(move || tollgate_dialect::prompt_tokens(&body)).await;
    Usage {
        input_tokens: input_tokens.unwrap_or_default(),
        output_tokens,
        ..Usage::default()
    }
}

fn broken(message: &str) -> Refused {
    Refused {
        failure: Failure::new(ErrorCode::ProviderBroken, message),
        may_be_billed: true,
    }
}

fn bad_answer(error: BadAnswer) -> Refused {
    match error {
        BadAnswer::Reported(said) => Refused {
            failure: Failure::new(said.means.unwrap_or(ErrorCode::ProviderBroken), said.message),
            may_be_billed: true,
        },
        error => broken(&error.to_string()),
    }
}
