//! The desk: where requests wait for their answers.
//!
//! The ingress replica that holds a client's connection owns its request. It grants one claim at a time, sends the request
//! again under a higher generation when nobody claims it or its worker is lost before the first piece, and never again
//! after that piece.

mod ticket;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::KeyValue;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tollgate_bus::{
    Bus, Ledger, Payloads,
    delivery::{Boxed, Line, LineEnd, Recipient, line},
};
use tollgate_config::schema;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    AttemptId, ErrorCode, Failure, RequestId,
    envelope::{Claim, Refusal},
};

pub(crate) use ticket::{Event, Lane, Opening, Ticket};

/// How long a client should wait when the desk is full.
const FULL_WAIT_MS: u64 = 1000;

/// What reaches a request from outside.
enum Word {
    Claimed { attempt_id: AttemptId, end: LineEnd },
    Concluded(Failure),
}

/// A request that waits.
struct Entry {
    generation: u32,
    claimed: bool,
    word: mpsc::Sender<Word>,
}

/// All requests of this replica that are under way.
pub(crate) struct Desk {
    entries: Mutex<HashMap<RequestId, Entry>>,
    places: Arc<Semaphore>,
    address: String,
    bus: Bus,
    ledger: Ledger,
    payloads: Payloads,
    metrics: Metrics,
    claim_timeout: Duration,
    request_timeout: Duration,
    max_resends: u32,
    /// The last steps of requests that have ended: what the ledger is told, what the store may forget.
    farewells: TaskTracker,
}

impl Desk {
    pub(crate) fn new(
        settings: &schema::Ingress,
        address: String,
        bus: Bus,
        payloads: Payloads,
        metrics: Metrics,
    ) -> Self {
        Self {
            entries: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.max_in_flight)),
            address,
            ledger: bus.ledger(),
            bus,
            payloads,
            metrics,
            claim_timeout: settings.claim_timeout,
            request_timeout: settings.request_timeout,
            max_resends: settings.max_resends,
            farewells: TaskTracker::new(),
        }
    }

    /// Takes a request in and sends it on its way.
    pub(crate) async fn open(self: &Arc<Self>, opening: Opening) -> Result<Ticket, Failure> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Failure::new(ErrorCode::Saturated, "too many requests are under way").retry_after_ms(FULL_WAIT_MS)
        })?;
        let payload = self
            .payloads
            .check_in(opening.request_id, "request", opening.body.clone())
            .await;
        let payload = payload.map_err(|error| {
            tracing::warn!(%error, "a request body was not stored");
            Failure::new(ErrorCode::Unavailable, "the request cannot be stored at the moment")
                .retry_after_ms(FULL_WAIT_MS)
        })?;
        let (word, words) = mpsc::channel(4);
        let entry = Entry {
            generation: 0,
            claimed: false,
            word,
        };
        self.lock().insert(opening.request_id, entry);
        let mut ticket = Ticket::new(Arc::clone(self), opening, payload, words, place);
        self.metrics.in_flight.add(1, &[]);
        ticket.send().await?;
        Ok(ticket)
    }

    /// Waits until the ledger knows of every request that has ended.
    pub(crate) async fn close(&self) {
        self.farewells.close();
        self.farewells.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a claim of the request possible again. None when it is claimed at this moment.
    fn next_generation(&self, request_id: RequestId) -> Option<u32> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&request_id).filter(|entry| !entry.claimed)?;
        entry.generation += 1;
        Some(entry.generation)
    }

    fn unclaim(&self, request_id: RequestId) {
        if let Some(entry) = self.lock().get_mut(&request_id) {
            entry.claimed = false;
        }
    }

    fn grant(&self, claim: &Claim) -> Result<Line, Refusal> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&claim.request_id).ok_or(Refusal::Gone)?;
        if entry.claimed || entry.generation != claim.generation {
            return Err(Refusal::Stale);
        }
        let (line, end) = line();
        let word = Word::Claimed {
            attempt_id: claim.attempt_id,
            end,
        };
        entry.word.try_send(word).map_err(|_| Refusal::Gone)?;
        entry.claimed = true;
        Ok(line)
    }
}

impl Recipient for Desk {
    fn claim(&self, claim: Claim) -> Boxed<'_, Result<Line, Refusal>> {
        let granted = self.grant(&claim);
        if let Err(refusal) = &granted {
            let reason = if *refusal == Refusal::Gone { "gone" } else { "stale" };
            self.metrics
                .claims_refused
                .add(1, &[KeyValue::new(label::REASON, reason)]);
        }
        Box::pin(std::future::ready(granted))
    }

    fn conclude(&self, request_id: RequestId, generation: u32, failure: Failure) -> Boxed<'_, bool> {
        let told = self
            .lock()
            .get(&request_id)
            .filter(|entry| !entry.claimed && entry.generation == generation)
            .is_some_and(|entry| entry.word.try_send(Word::Concluded(failure)).is_ok());
        Box::pin(std::future::ready(told))
    }
}
