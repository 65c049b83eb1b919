//! Conversions of jobs: what the streams keep, and what submitters see.

use tollgate_types::{
    Failure, Job, JobEnd, JobId, JobNote, Millis, Operation, Payload,
    chat::{ChatEvent, ChatRequest},
    embed::{EmbedRequest, EmbedResponse},
    job::{JobStatus, Priority, Progress},
    ledger::RequestState,
};

use crate::{
    Invalid,
    pipeline::{dialect_in, dialect_out, is_plain},
    v1,
};

impl From<Payload> for v1::Payload {
    fn from(payload: Payload) -> Self {
        let payload = match payload {
            Payload::Inline(bytes) => v1::payload::Payload::Inline(bytes),
            Payload::Stored { object, size } => v1::payload::Payload::Stored(v1::StoredPayload { object, size }),
        };
        Self { payload: Some(payload) }
    }
}

impl TryFrom<v1::Payload> for Payload {
    type Error = Invalid;

    fn try_from(wire: v1::Payload) -> Result<Self, Invalid> {
        match wire.payload.ok_or(Invalid::missing("payload"))? {
            v1::payload::Payload::Inline(bytes) => Ok(Self::Inline(bytes)),
            v1::payload::Payload::Stored(stored) if is_plain(&stored.object) => Ok(Self::Stored {
                object: stored.object,
                size: stored.size,
            }),
            v1::payload::Payload::Stored(_) => Err(Invalid::new("stored.object", "is no object name")),
        }
    }
}

impl From<Job> for v1::JobRecord {
    fn from(job: Job) -> Self {
        Self {
            id: job.id.to_string(),
            caller: Some(job.caller.into()),
            view: Some(job.view.into()),
            dialect: dialect_out(job.dialect).into(),
            headers: job.headers.into_iter().collect(),
            payload: Some(job.payload.into()),
            fingerprint: job.fingerprint.to_vec(),
            priority: job.priority.as_str().to_owned(),
            batch: job.batch,
            submitted_unix_ms: job.submitted_at.0,
            not_before_unix_ms: job.not_before.map(|time| time.0),
            deadline_unix_ms: job.deadline.0,
            brief: job.brief,
            webhook: job.webhook,
            dropped_unix_ms: job.dropped_at.map(|time| time.0),
        }
    }
}

impl TryFrom<v1::JobRecord> for Job {
    type Error = Invalid;

    fn try_from(wire: v1::JobRecord) -> Result<Self, Invalid> {
        Ok(Self {
            id: job_id(&wire.id)?,
            caller: wire.caller.ok_or(Invalid::missing("caller"))?.try_into()?,
            view: wire.view.ok_or(Invalid::missing("view"))?.try_into()?,
            dialect: dialect_in(wire.dialect)?,
            headers: wire.headers.into_iter().collect(),
            payload: wire.payload.ok_or(Invalid::missing("payload"))?.try_into()?,
            fingerprint: wire
                .fingerprint
                .try_into()
                .map_err(|_| Invalid::new("fingerprint", "is no SHA-256"))?,
            priority: wire
                .priority
                .parse()
                .map_err(|_| Invalid::new("priority", "is unknown"))?,
            batch: wire.batch,
            submitted_at: Millis(wire.submitted_unix_ms),
            not_before: wire.not_before_unix_ms.map(Millis),
            deadline: Millis(wire.deadline_unix_ms),
            brief: wire.brief,
            webhook: wire.webhook,
            dropped_at: wire.dropped_unix_ms.map(Millis),
        })
    }
}

impl From<JobNote> for v1::JobNoteRecord {
    fn from(note: JobNote) -> Self {
        Self {
            running: note.running,
            failed_calls: note.failed_calls,
            next_try_unix_ms: note.next_try_at.map(|time| time.0),
            failure: note.failure.map(Into::into),
        }
    }
}

impl TryFrom<v1::JobNoteRecord> for JobNote {
    type Error = Invalid;

    fn try_from(wire: v1::JobNoteRecord) -> Result<Self, Invalid> {
        Ok(Self {
            running: wire.running,
            failed_calls: wire.failed_calls,
            next_try_at: wire.next_try_unix_ms.map(Millis),
            failure: wire.failure.map(Failure::try_from).transpose()?,
        })
    }
}

impl From<JobEnd> for v1::JobEndRecord {
    fn from(end: JobEnd) -> Self {
        Self {
            id: end.id.to_string(),
            caller: Some(end.caller.into()),
            model: end.model,
            dialect: dialect_out(end.dialect).into(),
            batch: end.batch,
            state: end.state.as_str().to_owned(),
            failure: end.failure.map(Into::into),
            answer: end.answer.map(Into::into),
            failed_calls: end.failed_calls,
            submitted_unix_ms: end.submitted_at.0,
            ended_unix_ms: end.ended_at.0,
            webhook: end.webhook,
        }
    }
}

impl TryFrom<v1::JobEndRecord> for JobEnd {
    type Error = Invalid;

    fn try_from(wire: v1::JobEndRecord) -> Result<Self, Invalid> {
        let mut states = RequestState::ALL.into_iter();
        Ok(Self {
            id: job_id(&wire.id)?,
            caller: wire.caller.ok_or(Invalid::missing("caller"))?.try_into()?,
            model: wire.model,
            dialect: dialect_in(wire.dialect)?,
            batch: wire.batch,
            state: states
                .find(|state| state.as_str() == wire.state)
                .ok_or(Invalid::new("state", "is unknown"))?,
            failure: wire.failure.map(Failure::try_from).transpose()?,
            answer: wire.answer.map(Payload::try_from).transpose()?,
            failed_calls: wire.failed_calls,
            submitted_at: Millis(wire.submitted_unix_ms),
            ended_at: Millis(wire.ended_unix_ms),
            webhook: wire.webhook,
        })
    }
}

fn job_id(text: &str) -> Result<JobId, Invalid> {
    text.parse().map_err(|_| Invalid::new("id", "is no job id"))
}

/// What a job asks for.
pub enum JobRequest {
    Complete(Box<ChatRequest>),
    Embed(EmbedRequest),
}

impl TryFrom<v1::submit_job_request::Request> for JobRequest {
    type Error = Invalid;

    fn try_from(wire: v1::submit_job_request::Request) -> Result<Self, Invalid> {
        Ok(match wire {
            v1::submit_job_request::Request::Complete(request) => Self::Complete(Box::new(request.try_into()?)),
            v1::submit_job_request::Request::Embed(request) => Self::Embed(request.try_into()?),
        })
    }
}

impl v1::JobPriority {
    /// As the stages know it.
    #[must_use]
    pub const fn domain(self) -> Priority {
        match self {
            Self::Low => Priority::Low,
            Self::High => Priority::High,
            Self::Normal | Self::Unspecified => Priority::Normal,
        }
    }

    const fn of(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
        }
    }
}

const fn state_out(state: RequestState) -> v1::JobState {
    match state {
        RequestState::Answered => v1::JobState::Answered,
        RequestState::Denied => v1::JobState::Denied,
        RequestState::Failed => v1::JobState::Failed,
        RequestState::Cancelled => v1::JobState::Cancelled,
    }
}

impl v1::Job {
    /// The job without its answer.
    #[must_use]
    pub fn of(status: &JobStatus) -> Self {
        let JobStatus { job, progress } = status;
        let mut out = Self {
            id: job.id.to_string(),
            model: job.view.model.clone(),
            batch: job.batch.clone().unwrap_or_default(),
            tags: job.caller.tags.clone().into_iter().collect(),
            submitted_unix_ms: job.submitted_at.0,
            not_before_unix_ms: job.not_before.map_or(0, |time| time.0),
            deadline_unix_ms: job.deadline.0,
            ..Self::default()
        };
        out.set_priority(v1::JobPriority::of(job.priority));
        let failure = match progress {
            Progress::Waiting(note) => {
                out.set_state(if note.running {
                    v1::JobState::Running
                } else {
                    v1::JobState::Waiting
                });
                out.failed_calls = note.failed_calls;
                out.next_try_unix_ms = note.next_try_at.map_or(0, |time| time.0);
                &note.failure
            }
            Progress::Ended(end) => {
                out.set_state(state_out(end.state));
                out.failed_calls = end.failed_calls;
                out.ended_unix_ms = end.ended_at.0;
                &end.failure
            }
        };
        out.error = failure.as_ref().map(|failure| v1::JobError {
            code: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
        });
        out
    }

    /// The same with the body of its answer: as a message if the job was submitted as one.
    #[must_use]
    pub fn answered(mut self, job: &Job, body: bytes::Bytes) -> Self {
        let request_id = job.request_id();
        let native = job.dialect == tollgate_types::Dialect::Native;
        self.answer = match job.view.operation {
            Operation::Chat if native => serde_json::from_slice::<Vec<ChatEvent>>(&body)
                .ok()
                .map(|events| v1::job::Answer::Complete(v1::CompleteResponse::of(request_id, events))),
            Operation::Embed if native => serde_json::from_slice::<EmbedResponse>(&body)
                .ok()
                .map(|answer| v1::job::Answer::Embed(v1::EmbedResponse::of(request_id, answer))),
            _ => Some(v1::job::Answer::Body(body)),
        };
        self
    }
}
