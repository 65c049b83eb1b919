//! Durable requests: what is kept of a job, what becomes of it meanwhile, and how it ended.

use std::collections::BTreeMap;

use crate::{
    Caller, Dialect, ErrorCode, Failure, JobId, KeyId, Millis, Payload, RequestId, RequestView, ledger::RequestState,
};

/// How urgent a job is. A more urgent one is started first; none is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// A text that names no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected low, normal or high")]
pub struct UnknownPriority;

impl Priority {
    /// Every priority, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name used in subjects, requests and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl std::str::FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        let mut all = Self::ALL.into_iter();
        all.find(|priority| priority.as_str() == text).ok_or(UnknownPriority)
    }
}

/// An accepted job, as it is stored. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    /// The key that submitted it; its tags include those of the job.
    pub caller: Caller,
    pub view: RequestView,
    pub dialect: Dialect,
    /// Headers for a provider of the client's dialect.
    pub headers: BTreeMap<String, String>,
    pub payload: Payload,
    /// SHA-256 of dialect, operation and body: the same key with another request is a conflict.
    pub fingerprint: [u8; 32],
    pub priority: Priority,
    /// The client's own name for the jobs that belong together.
    pub batch: Option<String>,
    pub submitted_at: Millis,
    /// Not to be started earlier.
    pub not_before: Option<Millis>,
    /// Not to be started later, and given up then.
    pub deadline: Millis,
    /// Somebody waits on the line: a try that fails is its end.
    pub brief: bool,
    /// The address that is told of the end.
    pub webhook: Option<String>,
    /// When it was forgotten. Its id stays taken.
    pub dropped_at: Option<Millis>,
}

impl Job {
    /// The request by which the ledger knows the job's calls.
    #[must_use]
    pub const fn request_id(&self) -> RequestId {
        self.id.request_id()
    }

    /// What is kept of it when it is forgotten.
    #[must_use]
    pub fn dropped(self, at: Millis) -> Self {
        Self {
            headers: BTreeMap::new(),
            payload: Payload::Inline(bytes::Bytes::new()),
            webhook: None,
            dropped_at: Some(at),
            ..self
        }
    }
}

impl JobId {
    /// The id of the job that a key's idempotency key stands for, the same whenever it is asked for.
    #[must_use]
    pub fn derived(digest: &[u8; 32]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self::from(uuid::Builder::from_custom_bytes(first).into_uuid())
    }

    /// The request by which the ledger knows the job's calls.
    #[must_use]
    pub const fn request_id(&self) -> RequestId {
        RequestId::of(self.as_uuid())
    }
}

/// What a job that has not ended is doing; advisory, and lost with the queue's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobNote {
    /// Whether it is under way now.
    pub running: bool,
    /// Calls that failed so far.
    pub failed_calls: u32,
    /// When it is tried again, unless it is under way.
    pub next_try_at: Option<Millis>,
    /// Why the last try failed.
    pub failure: Option<Failure>,
}

/// How a job ended: exactly one for each, the first that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    pub id: JobId,
    pub caller: Caller,
    pub model: String,
    pub dialect: Dialect,
    pub batch: Option<String>,
    pub state: RequestState,
    /// Why, unless it was answered.
    pub failure: Option<Failure>,
    /// The answer's body in the client's dialect, if it was answered.
    pub answer: Option<Payload>,
    pub failed_calls: u32,
    pub submitted_at: Millis,
    pub ended_at: Millis,
    /// The address to tell of it.
    pub webhook: Option<String>,
}

impl JobEnd {
    /// What is kept of it when its job is forgotten.
    #[must_use]
    pub fn dropped(self) -> Self {
        let failure = self.failure.map(|failure| Failure::new(failure.code, ""));
        Self {
            failure,
            answer: None,
            webhook: None,
            ..self
        }
    }

    /// The end of `job` at this moment.
    #[must_use]
    pub fn now(job: &Job, ended: Result<Payload, Failure>, failed_calls: u32) -> Self {
        let (answer, failure) = match ended {
            Ok(answer) => (Some(answer), None),
            Err(failure) => (None, Some(failure)),
        };
        let state = match failure.as_ref().map(|failure| failure.code) {
            None => RequestState::Answered,
            Some(ErrorCode::PolicyDenied) => RequestState::Denied,
            Some(ErrorCode::Cancelled) => RequestState::Cancelled,
            Some(_) => RequestState::Failed,
        };
        Self {
            id: job.id,
            caller: job.caller.clone(),
            model: job.view.model.clone(),
            dialect: job.dialect,
            batch: job.batch.clone(),
            state,
            failure,
            answer,
            failed_calls,
            submitted_at: job.submitted_at,
            ended_at: Millis::now(),
            webhook: job.webhook.clone(),
        }
    }
}

/// A job as its submitter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    pub job: Job,
    pub progress: Progress,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Waiting(JobNote),
    Ended(Box<JobEnd>),
}

impl JobStatus {
    /// Whether the key may see it.
    #[must_use]
    pub fn belongs_to(&self, key: KeyId) -> bool {
        self.job.caller.key_id == key
    }
}
