//! Durable requests: taking them in, saying how they are, and dispatching them.
//!
//! A job is accepted when the stream has it on disk. From then on the stream owns it: any replica dispatches it, tries it
//! until it ends or its deadline passes, and the first end that is written is its end. What clients are told is read from
//! the streams, so that any replica answers for any job.

mod check;
mod dispatch;
pub(crate) mod grpc;
mod id;
mod kind;
mod retry;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tollgate_bus::{Error as BusError, Jobs, jobs::Hints};
use tollgate_config::{Entry, schema::JobSettings};
use tollgate_proto::v1;
use tollgate_types::{
    BatchId, Caller, Dialect, ErrorCode, Failure, Job, JobEnd, JobId, KeyId, Lane, Millis, Operation,
    job::{JobStatus, Priority, Progress},
    ledger::RequestState,
};

use self::{
    check::check,
    id::{Meant, fingerprint, named},
};
use crate::{
    labels::Labels,
    reception::{Reception, Rejection},
    webhook::Webhooks,
};

pub(crate) use dispatch::Dispatcher;
pub(crate) use id::at_line;
pub(crate) use kind::Kind;

/// A watcher looks for himself this often, should a hint be lost.
const LOOK: Duration = Duration::from_secs(5);
const RETRY_WAIT_MS: u64 = 1000;
/// How often one idempotency key may be tried anew after a failure.
const MOST_FAILURES: u32 = 50;

/// What clients ask of jobs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct JobDesk {
    pub(crate) jobs: Jobs,
    pub(crate) reception: Arc<Reception>,
    settings: JobSettings,
    /// How long somebody waits on the line.
    patience: Duration,
    /// None when the configuration has none.
    webhooks: Option<Arc<Webhooks>>,
}

/// A job as a door has read it.
#[derive(Clone, Default)]
pub(crate) struct Submission {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    /// Model, and whether a stream is wanted, where the path says so and not the body.
    pub(crate) path: Option<(String, bool)>,
    pub(crate) idempotency_key: Option<String>,
    /// How often the request of this key has failed before; each time it is a job of its own.
    pub(crate) failures: u32,
    /// The place in a batch's file, in place of an idempotency key.
    pub(crate) line: Option<(BatchId, u64)>,
    pub(crate) priority: Priority,
    pub(crate) not_before: Option<Millis>,
    pub(crate) deadline: Option<Millis>,
    pub(crate) labels: Labels,
    pub(crate) batch: Option<String>,
    /// The address to tell of the end.
    pub(crate) webhook: Option<String>,
    /// Somebody waits on the line.
    pub(crate) brief: bool,
}

/// What became of a submission.
pub(crate) struct Submitted {
    pub(crate) status: JobStatus,
    pub(crate) new: bool,
}

/// Which jobs to list.
pub(crate) struct Listing {
    pub(crate) batch: String,
    pub(crate) state: v1::JobState,
    pub(crate) limit: u32,
    pub(crate) page_token: String,
}

impl JobDesk {
    pub(crate) fn new(
        jobs: Jobs,
        reception: Arc<Reception>,
        settings: JobSettings,
        patience: Duration,
        webhooks: Option<Arc<Webhooks>>,
    ) -> Self {
        Self {
            jobs,
            reception,
            settings,
            patience,
            webhooks,
        }
    }

    /// Stores a job. A repeat of one that is stored already gives that one.
    pub(crate) async fn submit(
        &self,
        entry: &Entry,
        dialect: Dialect,
        operation: Operation,
        submission: Submission,
    ) -> Result<Submitted, Rejection> {
        let now = Millis::now();
        check(&submission)?;
        if let Some(address) = &submission.webhook {
            let webhooks = self.webhooks.as_ref().ok_or("there is no secret to sign webhooks with");
            webhooks
                .and_then(|webhooks| webhooks.check(address))
                .map_err(|wrong| at("webhook", wrong))?;
        }
        let path = submission
            .path
            .as_ref()
            .map(|(model, stream)| (model.as_str(), *stream));
        let lane = if submission.brief {
            Lane::Interactive
        } else {
            Lane::Jobs
        };
        let view = self
            .reception
            .look(entry, lane, dialect, operation, path, &submission.body)?;
        if view.stream {
            return Err(at("stream", "a job's answer is fetched whole: leave stream out"));
        }
        let deadline = self.deadline(&submission, now)?;
        let key = submission.idempotency_key.as_deref();
        let meant = match submission.line {
            Some((batch, line)) => Some(Meant::Line(batch, line)),
            None => key.map(|key| Meant::Key(key, submission.failures)),
        };
        let id = meant.map_or_else(JobId::generate, |meant| named(entry.caller.key_id, meant));
        let fingerprint = fingerprint(dialect, operation, &submission.body);
        // A body that is stored apart is stored before the job that names it.
        let payload = match meant {
            Some(_) => match self.jobs.find(id).await.map_err(away)? {
                Some(known) => return self.known(known, &fingerprint).await,
                None => self.jobs.check_in(id, "request", submission.body).await,
            },
            None => self.jobs.check_in(id, "request", submission.body).await,
        };
        let job = Job {
            id,
            caller: submission.labels.apply(&entry.caller),
            view,
            dialect,
            headers: submission.headers,
            payload: payload.map_err(away)?,
            fingerprint,
            priority: submission.priority,
            batch: submission.batch,
            submitted_at: now,
            not_before: submission.not_before,
            deadline,
            brief: submission.brief,
            webhook: submission.webhook,
            dropped_at: None,
        };
        if self.jobs.submit(&job).await.map_err(away)? {
            tracing::debug!(job.id = %id, model = job.view.model, key = job.caller.key_name, "job accepted");
            let progress = Progress::Waiting(tollgate_types::JobNote::default());
            return Ok(Submitted {
                status: JobStatus { job, progress },
                new: true,
            });
        }
        let known = self.jobs.find(id).await.map_err(away)?;
        let gone = || Failure::new(ErrorCode::Unavailable, "the job cannot be read at the moment");
        self.known(known.ok_or_else(gone)?, &fingerprint).await
    }

    async fn known(&self, job: Job, fingerprint: &[u8; 32]) -> Result<Submitted, Rejection> {
        let conflict = |message: &str| Err(Failure::new(ErrorCode::IdempotencyConflict, message).into());
        if job.fingerprint != *fingerprint {
            return conflict("this idempotency key stands for another request");
        }
        if job.dropped_at.is_some() {
            return conflict("the job of this idempotency key was dropped");
        }
        let progress = self.progress(job.id).await?;
        Ok(Submitted {
            status: JobStatus { job, progress },
            new: false,
        })
    }

    fn deadline(&self, submission: &Submission, now: Millis) -> Result<Millis, Rejection> {
        let latest = now.after(self.settings.deadline);
        let deadline = submission.deadline.map_or(latest, |asked| asked.min(latest));
        if deadline <= now {
            return Err(at("deadline", "is in the past"));
        }
        if submission.not_before.is_some_and(|earliest| earliest >= deadline) {
            return Err(at("not_before", "is not before the deadline"));
        }
        Ok(deadline)
    }

    /// The whole answer to a request with an idempotency key: a job that somebody waits for. The same key gets the same
    /// answer, whoever is lost meanwhile; after a failure it is tried anew.
    pub(crate) async fn once(
        &self,
        entry: &Entry,
        dialect: Dialect,
        operation: Operation,
        submission: Submission,
    ) -> Result<Bytes, Rejection> {
        if submission.idempotency_key.is_none() {
            return Err(at("idempotency_key", "is missing"));
        }
        let until = Millis::now().after(self.patience);
        for failures in 0..MOST_FAILURES {
            let submission = Submission {
                failures,
                priority: Priority::High,
                brief: true,
                ..submission.clone()
            };
            let submitted = self.submit(entry, dialect, operation, submission).await?;
            let JobStatus { job, progress } = submitted.status;
            let failed = |progress: &Progress| match progress {
                Progress::Ended(end) => end.failure.clone(),
                Progress::Waiting(_) => None,
            };
            if !submitted.new && failed(&progress).is_some() {
                continue;
            }
            let patience = until.remaining(Millis::now());
            let status = self.wait(entry.caller.key_id, &job.id.to_string(), patience).await?;
            if let Some(failure) = failed(&status.progress) {
                return Err(failure.into());
            }
            let late = || {
                let message = "no answer in the time allowed; it goes on, ask again with the same key";
                Failure::new(ErrorCode::DeadlineExceeded, message)
            };
            return Ok(self.answer(&status).await?.ok_or_else(late)?);
        }
        Err(at("idempotency_key", "has failed too often; use a new one"))
    }

    /// The job of this id, if it is the key's own.
    pub(crate) async fn get(&self, key: KeyId, id: &str) -> Result<JobStatus, Failure> {
        let unknown = || Failure::new(ErrorCode::JobNotFound, "there is no such job");
        let id: JobId = id.parse().map_err(|_| unknown())?;
        let job = self.jobs.find(id).await.map_err(away)?;
        let own = |job: &Job| job.caller.key_id == key && job.dropped_at.is_none();
        let job = job.filter(own).ok_or_else(unknown)?;
        let progress = self.progress(id).await?;
        Ok(JobStatus { job, progress })
    }

    async fn progress(&self, id: JobId) -> Result<Progress, Failure> {
        Ok(match self.jobs.end_of(id).await.map_err(away)? {
            Some(end) => Progress::Ended(Box::new(end)),
            None => Progress::Waiting(self.jobs.note_of(id).await),
        })
    }

    /// The body of the job's answer, if it has one.
    pub(crate) async fn answer(&self, status: &JobStatus) -> Result<Option<Bytes>, Failure> {
        match &status.progress {
            Progress::Ended(end) => self.answer_of(end).await,
            Progress::Waiting(_) => Ok(None),
        }
    }

    async fn answer_of(&self, end: &JobEnd) -> Result<Option<Bytes>, Failure> {
        match &end.answer {
            Some(answer) => self.jobs.fetch(answer).await.map(Some).map_err(away),
            None => Ok(None),
        }
    }

    /// The job as it is, and again at each change, until it has ended.
    pub(crate) async fn watch(
        &self,
        key: KeyId,
        id: &str,
    ) -> Result<impl Stream<Item = Result<JobStatus, Failure>> + Send + use<>, Failure> {
        let first = self.get(key, id).await?;
        let hints = self.jobs.hints(Hints::Of(first.job.id)).await.map_err(away)?;
        // Between the first look and the subscription it may have changed: look again at once.
        let start = (self.clone(), Box::pin(hints), first.job.id.to_string(), None, true);
        Ok(stream::unfold(Some(start), move |state| async move {
            let (desk, mut hints, id, last, mut at_once) = state?;
            loop {
                if !std::mem::take(&mut at_once) {
                    let _ = tokio::time::timeout(LOOK, hints.next()).await;
                }
                let status = match desk.get(key, &id).await {
                    Ok(status) => status,
                    Err(failure) => return Some((Err(failure), None)),
                };
                if last.as_ref() == Some(&status.progress) {
                    continue;
                }
                let ended = matches!(status.progress, Progress::Ended(_));
                let last = Some(status.progress.clone());
                return Some((Ok(status), (!ended).then_some((desk, hints, id, last, false))));
            }
        }))
    }

    /// Waits until the job has ended, or `patience` is over, and says how it is then.
    pub(crate) async fn wait(&self, key: KeyId, id: &str, patience: Duration) -> Result<JobStatus, Failure> {
        let mut changes = Box::pin(self.watch(key, id).await?);
        let mut last = None;
        let until_end = async {
            while let Some(change) = changes.next().await {
                last = Some(change);
            }
        };
        let _ = tokio::time::timeout(patience, until_end).await;
        match last {
            Some(status) => status,
            None => self.get(key, id).await,
        }
    }

    /// Ends the job, unless it has ended.
    pub(crate) async fn cancel(&self, key: KeyId, id: &str) -> Result<JobStatus, Failure> {
        let status = self.get(key, id).await?;
        if matches!(status.progress, Progress::Ended(_)) {
            return Ok(status);
        }
        let failure = Failure::new(ErrorCode::Cancelled, "the job was cancelled");
        let note = self.jobs.note_of(status.job.id).await;
        let end = JobEnd::now(&status.job, Err(failure), note.failed_calls);
        self.jobs.finish(&end).await.map_err(away)?;
        self.get(key, id).await
    }

    /// Forgets a job that has ended; how it was.
    pub(crate) async fn drop(&self, key: KeyId, id: &str) -> Result<JobStatus, Failure> {
        let status = self.get(key, id).await?;
        let Progress::Ended(end) = &status.progress else {
            let message = "only a job that has ended can be dropped: cancel it first";
            return Err(Failure::new(ErrorCode::InvalidRequest, message));
        };
        let (job, end) = (status.job.clone(), JobEnd::clone(end));
        self.jobs.forget(job, end, Millis::now()).await.map_err(away)?;
        Ok(status)
    }

    /// Submits the request of a job that failed or was cancelled once more, under the rights that its key has now.
    pub(crate) async fn retry(&self, entry: &Entry, id: &str) -> Result<JobStatus, Failure> {
        let key = entry.caller.key_id;
        let JobStatus { job, progress } = self.get(key, id).await?;
        let over = matches!(&progress, Progress::Ended(end) if end.state != RequestState::Answered);
        if !over {
            let message = "only a job that ended without an answer can be tried again";
            return Err(Failure::new(ErrorCode::InvalidRequest, message));
        }
        let model = job.view.model.as_str();
        self.reception.look_again(entry, Lane::Jobs, job.dialect, model)?;
        let now = Millis::now();
        // The body may be stored under the old job's name; it is kept as long from its own start, so it is stored anew.
        let body = self.jobs.fetch(&job.payload).await.map_err(away)?;
        let again = named(key, Meant::RetryOf(job.id));
        let job = Job {
            id: again,
            caller: Caller {
                tags: job.caller.tags.clone(),
                user: job.caller.user.clone(),
                ..entry.caller.clone()
            },
            payload: self.jobs.check_in(again, "request", body).await.map_err(away)?,
            submitted_at: now,
            not_before: None,
            deadline: now.after(self.settings.deadline),
            brief: false,
            ..job
        };
        self.jobs.submit(&job).await.map_err(away)?;
        self.get(key, &again.to_string()).await
    }

    /// Jobs of the key, newest first, as audit knows them.
    /// How many of a key's jobs of a batch are in which state.
    pub(crate) async fn count(&self, key: KeyId, batch: String) -> Result<v1::CountJobsAnswer, Failure> {
        let key_id = key.to_string();
        let query = v1::CountJobsQuery { key_id, batch };
        let mut answer = self.jobs.ask_for_count(query).await.map_err(away)?;
        match answer.failure.take() {
            None => Ok(answer),
            Some(failure) => Err(told(failure)),
        }
    }

    pub(crate) async fn list(&self, key: KeyId, listing: Listing) -> Result<v1::ListJobsResponse, Failure> {
        let query = v1::ListJobsQuery {
            key_id: key.to_string(),
            batch: listing.batch,
            state: listing.state.into(),
            limit: if listing.limit == 0 {
                100
            } else {
                listing.limit.min(1000)
            },
            page_token: listing.page_token,
        };
        let answer = self.jobs.ask_for_list(query).await.map_err(away)?;
        match answer.failure {
            None => Ok(v1::ListJobsResponse {
                jobs: answer.jobs,
                next_page_token: answer.next_page_token,
            }),
            Some(failure) => Err(told(failure)),
        }
    }
}

/// What audit says instead of an answer.
fn told(failure: v1::Failure) -> Failure {
    Failure::try_from(failure).unwrap_or_else(|_| Failure::new(ErrorCode::Internal, "audit gave no answer"))
}

pub(crate) fn away(error: BusError) -> Failure {
    tracing::warn!(
        error = &error as &dyn std::error::Error,
        "the streams of jobs did not answer"
    );
    Failure::new(ErrorCode::Unavailable, "jobs cannot be reached at the moment").retry_after_ms(RETRY_WAIT_MS)
}

fn at(param: &str, message: &str) -> Rejection {
    Rejection {
        failure: Failure::new(ErrorCode::InvalidRequest, format!("{param}: {message}")),
        param: Some(param.to_owned()),
    }
}
