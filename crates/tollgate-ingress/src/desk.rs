//! The desk: where requests wait for their answers.
//!
//! The ingress replica that holds a client's connection owns its request. It grants one claim at a time, sends the request
//! again under a higher generation when nobody claims it or its worker is lost before the first piece, and never again
//! after that piece.

mod hedge;
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
    delivery::{Boxed, Line, LineEnd, Recipient, Used, line},
};
use tollgate_config::Config;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    AttemptId, ErrorCode, Failure, RequestId, Target,
    envelope::{Claim, Refusal},
};

use crate::limits::{Admission, Limits, Reservation};
use hedge::Hedges;
pub(crate) use ticket::{Event, Lane, Opening, Ticket};

/// How long a client should wait when the desk is full.
const FULL_WAIT_MS: u64 = 1000;

/// What reaches a request from outside.
enum Word {
    Claimed(Way, Answering),
    Concluded(Way, Failure),
}

/// One of the two ways that a request may be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    First,
    /// Beside the first, when that is slow.
    Hedge,
}

/// Who was granted a claim, and the line to it.
struct Answering {
    attempt_id: AttemptId,
    target: Target,
    end: LineEnd,
    reservation: Option<Reservation>,
}

impl Answering {
    /// The attempt is over; so much is known of what it used.
    fn settle(&mut self, used: Used) {
        if let (Some(reservation), Some(used)) = (self.reservation.take(), used) {
            reservation.settle(&used);
        }
    }
}

/// A request that waits.
struct Entry {
    first: Sent,
    hedge: Option<Sent>,
    /// The highest generation that was sent.
    last: u32,
    word: mpsc::Sender<Word>,
    admission: Arc<Admission>,
}

/// A request as it was sent on one of its ways.
#[derive(Debug, Clone, Copy)]
struct Sent {
    generation: u32,
    claimed: bool,
}

impl Entry {
    fn sent(&mut self, way: Way) -> Option<&mut Sent> {
        match way {
            Way::First => Some(&mut self.first),
            Way::Hedge => self.hedge.as_mut(),
        }
    }

    /// The way that a message of this generation is about, if nobody has claimed it.
    fn awaited(&self, generation: u32) -> Option<Way> {
        let is = |sent: &Sent| sent.generation == generation && !sent.claimed;
        if is(&self.first) {
            return Some(Way::First);
        }
        self.hedge.as_ref().filter(|sent| is(sent)).map(|_| Way::Hedge)
    }
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
    hedges: Hedges,
    limits: Arc<Limits>,
    /// The last steps of requests that have ended: what the ledger is told, what the store may forget.
    farewells: TaskTracker,
}

impl Desk {
    pub(crate) fn new(
        config: &Config,
        address: String,
        bus: Bus,
        payloads: Payloads,
        limits: Arc<Limits>,
        metrics: Metrics,
    ) -> Self {
        let settings = &config.ingress;
        Self {
            hedges: Hedges::new(&config.models),
            limits,
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
        let admission = self.limits.admit(&opening.caller, &opening.view).await?;
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
            first: Sent {
                generation: 0,
                claimed: false,
            },
            hedge: None,
            last: 0,
            word,
            admission: Arc::clone(&admission),
        };
        self.lock().insert(opening.request_id, entry);
        let mut ticket = Ticket::new(Arc::clone(self), opening, payload, words, place, admission);
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

    /// A new generation of the request on this way, in place of the one before. None when that is claimed at this moment.
    fn next_generation(&self, request_id: RequestId, way: Way) -> Option<u32> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&request_id)?;
        if entry.sent(way).is_some_and(|sent| sent.claimed) {
            return None;
        }
        entry.last += 1;
        let sent = Sent {
            generation: entry.last,
            claimed: false,
        };
        match way {
            Way::First => entry.first = sent,
            Way::Hedge => entry.hedge = Some(sent),
        }
        Some(sent.generation)
    }

    /// Makes a claim on this way possible again.
    fn unclaim(&self, request_id: RequestId, way: Way) {
        if let Some(sent) = self.lock().get_mut(&request_id).and_then(|entry| entry.sent(way)) {
            sent.claimed = false;
        }
    }

    /// The hedge is the first way from now on, and what was that is given up.
    fn promote(&self, request_id: RequestId) {
        if let Some(entry) = self.lock().get_mut(&request_id)
            && let Some(hedge) = entry.hedge.take()
        {
            entry.first = hedge;
        }
    }

    /// Nobody may claim the hedge any more.
    fn forget_hedge(&self, request_id: RequestId) {
        if let Some(entry) = self.lock().get_mut(&request_id) {
            entry.hedge = None;
        }
    }

    /// The request's limits, if it waits for such a claim.
    fn expects(&self, claim: &Claim) -> Result<Arc<Admission>, Refusal> {
        let entries = self.lock();
        let entry = entries.get(&claim.request_id).ok_or(Refusal::Gone)?;
        entry.awaited(claim.generation).ok_or(Refusal::Stale)?;
        Ok(Arc::clone(&entry.admission))
    }

    /// Reserves what the attempt may cost, then grants the claim if nobody else was faster.
    async fn reserve_and_grant(&self, claim: &Claim) -> Result<Line, Refusal> {
        let admission = self.expects(claim)?;
        let limited = |failure: Failure| Refusal::Limited(Box::new(failure));
        let reservation = admission.reserve(&claim.target).await.map_err(limited)?;
        let mut reservation = Some(reservation);
        let granted = self.grant(claim, &mut reservation);
        if let Some(unused) = reservation {
            unused.give_back();
        }
        granted
    }

    fn grant(&self, claim: &Claim, reservation: &mut Option<Reservation>) -> Result<Line, Refusal> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&claim.request_id).ok_or(Refusal::Gone)?;
        let way = entry.awaited(claim.generation).ok_or(Refusal::Stale)?;
        let (mut line, end) = line();
        line.hold = reservation.as_ref().and_then(Reservation::hold);
        let answering = Answering {
            attempt_id: claim.attempt_id,
            target: claim.target.clone(),
            end,
            reservation: reservation.take(),
        };
        let word = Word::Claimed(way, answering);
        entry.word.try_send(word).map_err(|_| Refusal::Gone)?;
        if let Some(sent) = entry.sent(way) {
            sent.claimed = true;
        }
        Ok(line)
    }
}

impl Recipient for Desk {
    fn claim(&self, claim: Claim) -> Boxed<'_, Result<Line, Refusal>> {
        Box::pin(async move {
            let granted = self.reserve_and_grant(&claim).await;
            if let Err(refusal) = &granted {
                let reason = match refusal {
                    Refusal::Gone => "gone",
                    Refusal::Limited(_) => "limited",
                    Refusal::Stale | Refusal::Unreachable => "stale",
                };
                self.metrics
                    .claims_refused
                    .add(1, &[KeyValue::new(label::REASON, reason)]);
            }
            granted
        })
    }

    fn conclude(&self, request_id: RequestId, generation: u32, failure: Failure) -> Boxed<'_, bool> {
        let told = self.lock().get(&request_id).is_some_and(|entry| {
            let way = entry.awaited(generation);
            way.is_some_and(|way| entry.word.try_send(Word::Concluded(way, failure)).is_ok())
        });
        Box::pin(std::future::ready(told))
    }
}
