//! One request at the desk, from its opening to its terminal state.

mod hedging;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use opentelemetry::KeyValue;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};
use tollgate_bus::{
    Hop,
    delivery::{Piece, Used},
};
use tollgate_telemetry::label;
use tollgate_types::{
    AttemptId, Caller, Dialect, Envelope, ErrorCode, Failure, Millis, Operation, Payload, RequestId, RequestView,
    ledger::{Conclusion, LedgerEvent, RequestState},
};

use self::hedging::Hedging;
use super::{Answering, Desk, Way, Word};
use crate::limits::{Admission, Remaining};

/// A stored payload is fetched by each stage; this much time is allowed for each of its bytes.
const BYTES_PER_MILLI: u64 = 2048;
/// How long the ledger stream may be away before the word of a request's end is given up.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(60);
const RETRY_WAIT_MS: u64 = 1000;

/// What a door knows of a request.
pub(crate) struct Opening {
    pub(crate) request_id: RequestId,
    pub(crate) caller: Caller,
    pub(crate) view: RequestView,
    pub(crate) dialect: Dialect,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    /// The share of the buffer that the body takes; given back when the body is not held here any more.
    pub(crate) buffered: OwnedSemaphorePermit,
    pub(crate) lane: Lane,
}

/// Who owns a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The replica that holds the client's connection, which says how it ended.
    Interactive,
    /// The stream of jobs. What ends here is one try, which may take until the job's deadline; `fence` is the envelope's.
    Durable { until: Millis, fence: u64 },
}

/// What a door gets.
pub(crate) enum Event {
    /// The next event of a stream, or the whole body, in the client's dialect.
    Frame(Bytes),
    /// The answer is complete.
    End,
    /// There is no more, and why.
    Failed(Failure),
}

/// A request under way. Dropped before its end, it cancels.
pub(crate) struct Ticket {
    desk: Arc<Desk>,
    envelope: Envelope,
    words: mpsc::Receiver<Word>,
    line: Option<Answering>,
    hedging: Hedging,
    /// Frames that the door has had.
    frames: u64,
    resends: u32,
    accepted_at: Millis,
    begun: Instant,
    deadline: Instant,
    lane: Lane,
    claim_by: Instant,
    ended: Option<(RequestState, Option<ErrorCode>)>,
    place: Option<OwnedSemaphorePermit>,
    admission: Arc<Admission>,
    _buffered: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    pub(super) fn new(
        desk: Arc<Desk>,
        opening: Opening,
        payload: Payload,
        words: mpsc::Receiver<Word>,
        place: OwnedSemaphorePermit,
        admission: Arc<Admission>,
    ) -> Self {
        let (now, begun) = (Millis::now(), Instant::now());
        let stored = matches!(payload, Payload::Stored { .. });
        let time = match opening.lane {
            Lane::Interactive => desk.request_timeout,
            Lane::Durable { until, .. } => desk.request_timeout.min(until.remaining(now)),
        };
        let envelope = Envelope {
            request_id: opening.request_id,
            generation: 0,
            owner: desk.address.clone(),
            deadline: now.after(time),
            caller: opening.caller,
            view: opening.view,
            dialect: opening.dialect,
            headers: opening.headers,
            payload,
            screen: None,
            target: None,
            failures: Vec::new(),
            fence: match opening.lane {
                Lane::Interactive => None,
                Lane::Durable { fence, .. } => Some(fence),
            },
            hedged: None,
        };
        Self {
            words,
            line: None,
            hedging: match opening.lane {
                Lane::Interactive if envelope.view.operation == Operation::Chat => {
                    let slow = desk.hedges.begin(&envelope.view.model, envelope.view.stream);
                    slow.map_or(Hedging::Off, |slow| Hedging::At(begun + slow))
                }
                _ => Hedging::Off,
            },
            frames: 0,
            resends: 0,
            accepted_at: now,
            begun,
            deadline: begun + time,
            lane: opening.lane,
            claim_by: begun,
            ended: None,
            place: Some(place),
            admission,
            _buffered: (!stored).then_some(opening.buffered),
            envelope,
            desk,
        }
    }

    pub(crate) fn request_id(&self) -> RequestId {
        self.envelope.request_id
    }

    /// How the caller's limits on requests and tokens stand.
    pub(crate) fn remaining(&self) -> Vec<Remaining> {
        self.admission.remaining()
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.envelope.view.stream
    }

    /// Puts the request into the queue, under its present generation.
    pub(super) async fn send(&mut self) -> Result<(), Failure> {
        let allowance = Duration::from_millis(match &self.envelope.payload {
            Payload::Inline(_) => 0,
            Payload::Stored { size, .. } => size / BYTES_PER_MILLI,
        });
        self.claim_by = Instant::now() + self.desk.claim_timeout + allowance;
        let sent = self.desk.bus.send(&Hop::Guard, self.envelope.clone()).await;
        sent.map_err(|error| {
            tracing::warn!(%error, "a request was not sent");
            let failure =
                Failure::new(ErrorCode::Unavailable, "the queue cannot be reached").retry_after_ms(RETRY_WAIT_MS);
            self.end(&Err(failure.code));
            failure
        })
    }

    /// What happens next. After [`Event::End`] or [`Event::Failed`] nothing does.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            match self.step().await {
                Step::Again => {}
                Step::Give(event) => {
                    match &event {
                        Event::Frame(_) => {}
                        Event::End => self.end(&Ok(())),
                        Event::Failed(failure) => self.end(&Err(failure.code)),
                    }
                    return event;
                }
            }
        }
    }

    /// The one frame of an answer that is not streamed.
    pub(crate) async fn whole(&mut self) -> Result<Bytes, Failure> {
        let frame = match self.next().await {
            Event::Frame(frame) => frame,
            Event::Failed(failure) => return Err(failure),
            Event::End => return Err(Failure::new(ErrorCode::ProviderBroken, "the answer was empty")),
        };
        match self.next().await {
            Event::End => Ok(frame),
            Event::Failed(failure) => Err(failure),
            Event::Frame(_) => {
                let message = "the answer came in pieces that were not asked for";
                Err(Failure::new(ErrorCode::Internal, message))
            }
        }
    }

    async fn step(&mut self) -> Step {
        let wake = self.wake_at();
        let hedge = match &mut self.hedging {
            Hedging::Open(answering) => Some(answering),
            _ => None,
        };
        tokio::select! {
            biased;
            word = self.words.recv() => self.hear(word),
            piece = next_piece(self.line.as_mut()) => self.take(piece).await,
            piece = next_piece(hedge) => self.take_hedge(piece),
            () = sleep_until(wake) => self.wake().await,
        }
    }

    /// When something is to be done though nothing has happened.
    fn wake_at(&self) -> Instant {
        let due = match (&self.line, &self.hedging) {
            (None, _) => self.claim_by,
            (Some(_), Hedging::At(slow)) if self.frames == 0 => *slow,
            (Some(_), _) => self.deadline,
        };
        due.min(self.deadline)
    }

    async fn wake(&mut self) -> Step {
        let over = Instant::now() >= self.deadline;
        match self.line {
            None if over => Step::fail(ErrorCode::DeadlineExceeded, "no answer in the time allowed"),
            Some(_) if over => Step::fail(
                ErrorCode::DeadlineExceeded,
                "the answer was not complete in the time allowed",
            ),
            None => self.resend("unclaimed").await,
            Some(_) => self.hedge().await,
        }
    }

    fn hear(&mut self, word: Option<Word>) -> Step {
        match word {
            Some(Word::Claimed(Way::First, answering)) => self.line = Some(answering),
            Some(Word::Claimed(Way::Hedge, answering)) if self.frames == 0 => {
                self.hedging = Hedging::Open(answering);
            }
            // The answer has begun: dropped, the claim is given back.
            Some(Word::Claimed(Way::Hedge, _)) => {}
            Some(Word::Concluded(Way::First, failure)) => return self.failed(failure),
            Some(Word::Concluded(Way::Hedge, _)) => self.hedging = Hedging::Off,
            None => return Step::fail(ErrorCode::Internal, "the request was lost"),
        }
        Step::Again
    }

    /// A piece from the worker that answers; none when the line broke.
    async fn take(&mut self, piece: Option<Piece>) -> Step {
        match piece {
            Some(Piece::Frame { seq, payload }) if seq == self.frames => {
                if seq == 0 {
                    self.begun_to_answer("lost");
                }
                self.frames += 1;
                Step::Give(Event::Frame(payload))
            }
            Some(Piece::End { failure: None, used }) if self.frames > 0 => {
                self.settle(used);
                Step::Give(Event::End)
            }
            Some(Piece::End {
                failure: Some(failure),
                used,
            }) => {
                self.settle(used);
                self.failed(failure)
            }
            Some(Piece::Released(used)) if self.frames == 0 => {
                self.settle(used);
                // In this order: the sender passes the request on when it sees us hang up.
                self.desk.unclaim(self.envelope.request_id, Way::First);
                self.line = None;
                self.claim_by = Instant::now() + self.desk.claim_timeout;
                Step::Again
            }
            // The line broke, or what came on it makes no sense.
            Some(Piece::Frame { .. } | Piece::End { .. } | Piece::Released(_)) | None => self.lost().await,
        }
    }

    fn settle(&mut self, used: Used) {
        if let Some(answering) = &mut self.line {
            answering.settle(used);
        }
    }

    async fn lost(&mut self) -> Step {
        let lost = self.line.take();
        if self.lane != Lane::Interactive {
            // The worker may be alive and go on; whoever takes the job next asks it.
            return Step::fail(ErrorCode::Unavailable, "the job's worker was lost");
        }
        if let Some(answering) = lost {
            self.abandon(answering.attempt_id);
        }
        if self.frames > 0 {
            return Step::fail(ErrorCode::Unavailable, "the answer broke off: a service was lost");
        }
        if self.promote() {
            return Step::Again;
        }
        self.desk.unclaim(self.envelope.request_id, Way::First);
        self.resend("worker_lost").await
    }

    /// The first way ends here; a hedge under way goes on in its place, before the first piece.
    fn failed(&mut self, failure: Failure) -> Step {
        if self.frames == 0 && self.promote() {
            Step::Again
        } else {
            Step::Give(Event::Failed(failure))
        }
    }

    async fn resend(&mut self, reason: &'static str) -> Step {
        if self.resends >= self.desk.max_resends {
            let failure = Failure::new(ErrorCode::Unavailable, "no worker took the request");
            return Step::Give(Event::Failed(failure.retry_after_ms(RETRY_WAIT_MS)));
        }
        // A claim that was granted a moment ago waits in `words`.
        let Some(generation) = self.desk.next_generation(self.envelope.request_id, Way::First) else {
            self.claim_by = Instant::now() + self.desk.claim_timeout;
            return Step::Again;
        };
        self.resends += 1;
        self.envelope.generation = generation;
        self.desk
            .metrics
            .resends
            .add(1, &[KeyValue::new(label::REASON, reason)]);
        tracing::info!(request.id = %self.envelope.request_id, generation, reason, "request sent again");
        match self.send().await {
            Ok(()) => Step::Again,
            Err(failure) => Step::Give(Event::Failed(failure)),
        }
    }

    /// Tells audit that nobody will deliver this attempt's answer.
    fn abandon(&self, attempt_id: AttemptId) {
        let ledger = self.desk.ledger.clone();
        self.desk.farewells.spawn(async move {
            let event = LedgerEvent::Abandoned {
                attempt_id,
                at: Millis::now(),
            };
            if let Err(error) = ledger.publish_until(&event, FAREWELL_PATIENCE).await {
                tracing::warn!(%error, attempt.id = %attempt_id, "audit was not told of a lost attempt");
            }
        });
    }

    fn end(&mut self, result: &Result<(), ErrorCode>) {
        self.ended.get_or_insert(match result {
            Ok(()) => (RequestState::Answered, None),
            Err(code @ ErrorCode::PolicyDenied) => (RequestState::Denied, Some(*code)),
            Err(code) => (RequestState::Failed, Some(*code)),
        });
    }

    fn model_label(&self) -> [KeyValue; 1] {
        [KeyValue::new(label::MODEL, self.envelope.view.model.clone())]
    }

    fn conclusion(&self) -> Conclusion {
        let (state, error) = self
            .ended
            .unwrap_or((RequestState::Cancelled, Some(ErrorCode::Cancelled)));
        Conclusion {
            request_id: self.envelope.request_id,
            caller: self.envelope.caller.clone(),
            model: self.envelope.view.model.clone(),
            dialect: self.envelope.dialect,
            stream: self.envelope.view.stream,
            state,
            error,
            resends: self.resends,
            accepted_at: self.accepted_at,
            concluded_at: Millis::now(),
        }
    }
}

/// Whatever happens to a request, its place is freed, its worker is let go and the ledger is told how it ended.
impl Drop for Ticket {
    fn drop(&mut self) {
        self.desk.lock().remove(&self.envelope.request_id);
        self.line = None;
        let metrics = &self.desk.metrics;
        metrics.in_flight.add(-1, &[]);
        let (ledger, payloads) = (self.desk.ledger.clone(), self.desk.payloads.clone());
        let (payload, place) = (self.envelope.payload.clone(), self.place.take());
        if self.lane != Lane::Interactive {
            self.desk.farewells.spawn(async move {
                payloads.forget(&payload).await;
                drop(place);
            });
            return;
        }
        let conclusion = self.conclusion();
        let outcome = conclusion.error.map_or("answered", ErrorCode::as_str);
        metrics
            .request_duration
            .record(self.begun.elapsed().as_secs_f64(), &self.model_label());
        metrics.requests.add(
            1,
            &[
                KeyValue::new(label::DIALECT, self.envelope.dialect.as_str()),
                KeyValue::new(label::MODEL, self.envelope.view.model.clone()),
                KeyValue::new(label::OUTCOME, outcome),
            ],
        );
        tracing::info!(request.id = %conclusion.request_id, outcome, resends = self.resends, "request concluded");
        self.desk.farewells.spawn(async move {
            payloads.forget(&payload).await;
            let event = LedgerEvent::Concluded(conclusion);
            if let Err(error) = ledger.publish_until(&event, FAREWELL_PATIENCE).await {
                tracing::error!(%error, "the ledger was not told how a request ended");
            }
            // The place is held until here: a ledger that lags slows new requests.
            drop(place);
        });
    }
}

/// What comes next on the line; for ever nothing where there is no line.
async fn next_piece(answering: Option<&mut Answering>) -> Option<Piece> {
    match answering {
        Some(answering) => answering.end.pieces.recv().await,
        None => std::future::pending().await,
    }
}

enum Step {
    Again,
    Give(Event),
}

impl Step {
    fn fail(code: ErrorCode, message: &str) -> Self {
        Self::Give(Event::Failed(Failure::new(code, message)))
    }
}
