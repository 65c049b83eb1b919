//! The dispatcher: takes jobs from the stream, the most urgent first, and sees each through a try.
//!
//! A job is in the hands of one dispatcher as long as that renews its lease. It is acknowledged only when its end is
//! stored; whatever happens before, it is delivered again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use opentelemetry::KeyValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_bus::{
    Bus, Error as BusError, Jobs,
    jobs::{Hints, JOB_LEASE, Taken, Taker},
    presence::Found,
};
use tollgate_config::schema::JobSettings;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    ErrorCode, Failure, Job, JobEnd, JobId, JobNote, Millis,
    job::Priority,
    ledger::{LedgerEvent, RequestState},
};
use tracing::Instrument;

use super::retry::{self, Next};
use crate::{
    desk::{Desk, Lane, Opening},
    reception::Reception,
};

/// Jobs taken at once.
const TAKE: usize = 64;
/// Without a hint the stream is looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// A job whose call is under way elsewhere is looked at this often.
const ALIVE_PAUSE: Duration = Duration::from_secs(2);
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// How long jobs under way may go on when the process stops; then they are given back.
const DRAIN: Duration = Duration::from_secs(20);
/// A job that is under way here already comes again when its present lease is surely over.
const STILL_RUNNING: Duration = Duration::from_secs(10);
/// A job is given up this long after its deadline at the latest; no wait reaches further.
const SOON: Duration = Duration::from_millis(100);

pub(crate) struct Dispatcher {
    bus: Bus,
    jobs: Jobs,
    consumers: Vec<Taker<Job>>,
    desk: Arc<Desk>,
    reception: Arc<Reception>,
    settings: JobSettings,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    running: Mutex<HashMap<JobId, CancellationToken>>,
    tasks: TaskTracker,
    /// Cancelled when those under way are to be given back.
    give_back: CancellationToken,
}

/// What to tell the stream of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Done,
    Again(Duration),
}

impl Dispatcher {
    pub(crate) async fn new(
        bus: Bus,
        jobs: Jobs,
        desk: Arc<Desk>,
        reception: Arc<Reception>,
        settings: JobSettings,
        metrics: Metrics,
    ) -> Result<Self, BusError> {
        let mut consumers = Vec::new();
        for priority in Priority::ALL {
            consumers.push(jobs.due(priority).await?);
        }
        Ok(Self {
            bus,
            jobs,
            consumers,
            desk,
            reception,
            metrics,
            permits: Arc::new(Semaphore::new(settings.concurrency)),
            settings,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            give_back: CancellationToken::new(),
        })
    }

    /// Dispatches until `stop`, then lets those under way end, or gives them back.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), BusError> {
        let this = Arc::new(self);
        if this.settings.concurrency > 0 {
            let listener = tokio::spawn(Arc::clone(&this).hear_of_ends(this.give_back.clone()));
            let taken = this.take(&stop).await;
            this.tasks.close();
            if tokio::time::timeout(DRAIN, this.tasks.wait()).await.is_err() {
                this.give_back.cancel();
                this.tasks.wait().await;
            }
            this.give_back.cancel();
            let _ = listener.await;
            return taken;
        }
        stop.cancelled().await;
        Ok(())
    }

    async fn take(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), BusError> {
        let mut hints = Box::pin(self.jobs.hints(Hints::Submitted).await?);
        while !stop.is_cancelled() {
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(&self.permits).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break };
            let free = self.permits.available_permits().saturating_add(1).min(TAKE);
            let pause = match self.take_some(free, permit).await {
                Ok(0) => LOOK,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "jobs cannot be taken");
                    TROUBLE_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(pause, hints.next()) => {}
            }
        }
        Ok(())
    }

    /// Starts up to `free` jobs, the most urgent first, and says how many.
    async fn take_some(self: &Arc<Self>, free: usize, first: OwnedSemaphorePermit) -> Result<usize, BusError> {
        let mut permits = vec![first];
        let mut taken = Vec::new();
        for consumer in &self.consumers {
            if taken.len() < free {
                taken.extend(consumer.take(free - taken.len()).await?);
            }
        }
        while permits.len() < taken.len() {
            match Arc::clone(&self.permits).acquire_owned().await {
                Ok(permit) => permits.push(permit),
                Err(_) => break,
            }
        }
        let count = taken.len();
        for (delivery, permit) in taken.into_iter().zip(permits) {
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                let _permit = permit;
                this.see_to(delivery).await;
            });
        }
        Ok(count)
    }

    /// Stops the jobs under way here that were ended elsewhere: cancelled, mostly.
    async fn hear_of_ends(self: Arc<Self>, stop: CancellationToken) {
        let mut ends = match self.jobs.hints(Hints::Ended).await {
            Ok(ends) => Box::pin(ends),
            Err(error) => {
                tracing::warn!(%error, "a cancelled job goes on until its call ends");
                return;
            }
        };
        while let Some(Some(hint)) = stop.run_until_cancelled(ends.next()).await {
            let Some(token) = hint.and_then(|id| self.lock().get(&id).cloned()) else {
                continue;
            };
            // A hint is no proof: a refused end looks the same. An answer was stored by the job's worker, which goes on to
            // settle and then says so itself.
            if let Some(id) = hint
                && let Ok(Some(end)) = self.jobs.end_of(id).await
                && end.state != RequestState::Answered
            {
                token.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn see_to(&self, delivery: Taken<Job>) {
        let verdict = match &delivery.record {
            Ok(job) => {
                let span = tracing::info_span!("job", job.id = %job.id, request.id = %job.request_id());
                self.hold(job, &delivery).instrument(span).await
            }
            Err(error) => {
                tracing::error!(%error, "a message that is no job was set aside");
                Verdict::Done
            }
        };
        let told = match verdict {
            Verdict::Done => delivery.done().await,
            Verdict::Again(wait) => delivery.again(wait).await,
        };
        if let Err(error) = told {
            // It comes again, and its end is found then.
            tracing::warn!(%error, "a job was not acknowledged");
        }
    }

    /// Tries the job while its lease is renewed.
    async fn hold(&self, job: &Job, delivery: &Taken<Job>) -> Verdict {
        let cancelled = CancellationToken::new();
        {
            let mut running = self.lock();
            if running.contains_key(&job.id) {
                return Verdict::Again(STILL_RUNNING);
            }
            running.insert(job.id, cancelled.clone());
        }
        let renew = async {
            loop {
                tokio::time::sleep(JOB_LEASE / 3).await;
                if let Err(error) = delivery.extend().await {
                    tracing::warn!(%error, "a job's lease was not renewed");
                }
            }
        };
        let verdict = tokio::select! {
            verdict = self.attend(job, delivery.deliveries, &cancelled) => verdict,
            () = renew => Verdict::Again(Duration::ZERO),
        };
        self.lock().remove(&job.id);
        verdict
    }

    async fn attend(&self, job: &Job, tries: u32, cancelled: &CancellationToken) -> Verdict {
        // In this order: whoever answers stores the end before the call is settled. Looked at the other way round, a dispatcher
        // that is held in between would take the answered call for a failed one.
        let fence = self.fence(job).await;
        match self.jobs.end_of(job.id).await {
            Ok(None) => {}
            Ok(Some(_)) => return Verdict::Done,
            Err(error) => {
                tracing::warn!(%error, "it cannot be told whether a job has ended");
                return Verdict::Again(TROUBLE_PAUSE);
            }
        }
        let now = Millis::now();
        let note = self.jobs.note_of(job.id).await;
        if job.deadline <= now {
            let failure = overdue(&note);
            return self.end(job, Err(failure), note.failed_calls).await;
        }
        if let Some(earliest) = job.not_before.filter(|earliest| *earliest > now) {
            let note = JobNote {
                next_try_at: Some(earliest),
                ..note
            };
            self.jobs.note(job.id, note).await;
            return Verdict::Again(earliest.remaining(now));
        }
        let fence = match fence {
            Ok(fence) => fence,
            Err(verdict) => return verdict,
        };
        let running = JobNote {
            running: true,
            next_try_at: None,
            ..note.clone()
        };
        self.jobs.note(job.id, running).await;
        let tried = tokio::select! {
            tried = self.attempt(job, fence) => tried,
            () = cancelled.cancelled() => return Verdict::Done,
            () = self.give_back.cancelled() => {
                self.jobs.note(job.id, note).await;
                return Verdict::Again(Duration::ZERO);
            }
        };
        match tried {
            Ok(body) => self.end(job, Ok(body), note.failed_calls).await,
            Err(failure) => self.failed(job, failure, &note, tries).await,
        }
    }

    /// The place of the job's last call in the ledger stream; the next is made only if none has started since. While the
    /// worker of that call may be alive, the job is left to it.
    async fn fence(&self, job: &Job) -> Result<u64, Verdict> {
        let ledger = self.bus.ledger();
        let last = match ledger.last_start(job.request_id()).await {
            Ok(None) => return Ok(0),
            Ok(Some(last)) if last.settled => return Ok(last.sequence),
            Ok(Some(last)) => last,
            Err(error) => {
                tracing::warn!(%error, "it cannot be told whether a call of the job is under way");
                return Err(Verdict::Again(TROUBLE_PAUSE));
            }
        };
        let attempt = last.attempt;
        match self.bus.ask_after(attempt.attempt_id).await {
            Found::Alive => return Err(Verdict::Again(ALIVE_PAUSE)),
            // Stalled or cut off, it may come back until its time is over.
            Found::Silent if attempt.deadline > Millis::now() => return Err(Verdict::Again(ALIVE_PAUSE)),
            Found::Gone | Found::Silent => {}
        }
        let abandoned = LedgerEvent::Abandoned {
            attempt_id: attempt.attempt_id,
            at: Millis::now(),
        };
        if let Err(error) = ledger.publish(&abandoned).await {
            tracing::warn!(%error, "audit was not told of a lost attempt");
        }
        Ok(last.sequence)
    }

    /// One try: the job as a request at this replica's desk.
    async fn attempt(&self, job: &Job, fence: u64) -> Result<Bytes, Failure> {
        // An accepted job runs, whatever becomes of its key; a limit of the key holds for it as well.
        if let Some(entry) = self.reception.find(job.caller.key_id) {
            self.reception.admit(&entry)?;
        }
        let size = usize::try_from(job.payload.size()).unwrap_or(usize::MAX);
        let buffered = self.reception.reserve(size)?;
        let body = self.jobs.fetch(&job.payload).await.map_err(|error| match error {
            BusError::PayloadGone => Failure::new(ErrorCode::Internal, "the job's request is not stored any more"),
            error => {
                tracing::warn!(%error, "a job's request was not fetched");
                Failure::new(ErrorCode::Unavailable, "the job's request cannot be read at the moment")
            }
        })?;
        let opening = Opening {
            request_id: job.request_id(),
            caller: job.caller.clone(),
            view: job.view.clone(),
            dialect: job.dialect,
            headers: job.headers.clone(),
            body,
            buffered,
            lane: Lane::Durable {
                until: job.deadline,
                fence,
            },
        };
        self.desk.open(opening).await?.whole().await
    }

    async fn failed(&self, job: &Job, failure: Failure, note: &JobNote, tries: u32) -> Verdict {
        let now = Millis::now();
        // The last moments of a job may end its call.
        if job.deadline <= now {
            return self.end(job, Err(overdue(note)), note.failed_calls).await;
        }
        // A worker that was lost is no failure of the request.
        if job.brief && failure.code != ErrorCode::Unavailable {
            return self.end(job, Err(failure), note.failed_calls).await;
        }
        match retry::next(&failure, note.failed_calls, tries, &self.settings, rand::random()) {
            Next::End(failed_calls) => self.end(job, Err(failure), failed_calls).await,
            Next::Wait(wait, failed_calls) => {
                let wait = wait.min(job.deadline.remaining(now) + SOON);
                tracing::info!(
                    code = failure.code.as_str(),
                    wait_ms = wait.as_millis(),
                    failed_calls,
                    "a job waits"
                );
                let note = JobNote {
                    running: false,
                    failed_calls,
                    next_try_at: Some(now.after(wait)),
                    failure: Some(failure),
                };
                self.jobs.note(job.id, note).await;
                Verdict::Again(wait)
            }
        }
    }

    /// Stores the end, however long the stream is away: an answer that was paid for is not lost for that.
    async fn end(&self, job: &Job, ended: Result<Bytes, Failure>, failed_calls: u32) -> Verdict {
        loop {
            let payload = match &ended {
                Ok(body) => self.jobs.check_in(job.id, "answer", body.clone()).await.map(Ok),
                Err(failure) => Ok(Err(failure.clone())),
            };
            let stored = match payload {
                Ok(payload) => {
                    let end = JobEnd::now(job, payload, failed_calls);
                    self.jobs.finish(&end).await.map(|first| (first, end))
                }
                Err(error) => Err(error),
            };
            match stored {
                Ok((first, end)) => {
                    // The answer's worker has mostly been first, and leaves the count to who awaited it.
                    if first || ended.is_ok() {
                        self.count(job, &end);
                    }
                    return Verdict::Done;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a job's end waits for the stream"
                    );
                    if self.give_back.is_cancelled() {
                        return Verdict::Again(Duration::ZERO);
                    }
                    tokio::time::sleep(TROUBLE_PAUSE).await;
                }
            }
        }
    }

    fn count(&self, job: &Job, end: &JobEnd) {
        let outcome = end.failure.as_ref().map_or("answered", |failure| failure.code.as_str());
        let labels = [
            KeyValue::new(label::MODEL, job.view.model.clone()),
            KeyValue::new(label::OUTCOME, outcome),
        ];
        self.metrics.jobs.add(1, &labels);
        let waited = end.ended_at.remaining(job.submitted_at);
        self.metrics.job_duration.record(waited.as_secs_f64(), &labels[..1]);
        tracing::info!(outcome, failed_calls = end.failed_calls, "job ended");
    }
}

/// What is said of a job whose time is over: with the last reason, if there was a try.
fn overdue(note: &JobNote) -> Failure {
    match &note.failure {
        Some(failure) => Failure {
            code: ErrorCode::DeadlineExceeded,
            message: format!("not answered before its deadline; the last try: {}", failure.message),
            ..failure.clone()
        },
        None => Failure::new(ErrorCode::DeadlineExceeded, "not started before its deadline"),
    }
}
