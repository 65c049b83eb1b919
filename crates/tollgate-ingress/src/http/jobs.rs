//! `/v1/jobs`: durable requests over HTTP, each in the dialect of the path that it names.

use crate::labels::Labels;
use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_proto::v1;
use tollgate_types::{Dialect, ErrorCode, Failure, KeyId, Millis, job::JobStatus};

use super::{
    body,
    credential::credential,
    door::{IDEMPOTENCY_KEY, passed_on},
    error::error_response,
};
use crate::{
    jobs::{JobDesk, Kind, Listing, Submission},
    reception::Rejection,
};

/// Longest that an answer is waited for in one call.
const LONGEST_WAIT: u64 = 60;

pub(super) fn routes(desk: JobDesk) -> Router {
    Router::new()
        .route("/v1/jobs", post(submit).get(list))
        .route("/v1/jobs/{id}", get(one).delete(drop))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/retry", post(retry))
        .with_state(desk)
}

/// A job as a client submits it; `url` and `body` are what it would have sent to wait for the answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitBody<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
    idempotency_key: Option<String>,
    priority: Option<String>,
    not_before: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    user: Option<String>,
    batch: Option<String>,
    webhook: Option<String>,
}

/// A job as a client sees it.
#[derive(Serialize)]
pub(crate) struct JobBody {
    id: String,
    object: &'static str,
    state: &'static str,
    model: String,
    priority: &'static str,
    batch: Option<String>,
    tags: BTreeMap<String, String>,
    submitted_at: String,
    not_before: Option<String>,
    deadline: String,
    ended_at: Option<String>,
    next_try_at: Option<String>,
    failed_calls: u32,
    error: Option<ErrorBody>,
    /// In the dialect in which it was submitted.
    response: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct ErrorBody {
    code: String,
    message: String,
}

fn time(unix_ms: u64) -> String {
    Millis(unix_ms)
        .to_datetime()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

const fn state_name(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Unspecified => "unknown",
        v1::JobState::Waiting => "waiting",
        v1::JobState::Running => "running",
        v1::JobState::Answered => "answered",
        v1::JobState::Denied => "denied",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
    }
}

impl JobBody {
    pub(crate) fn of(job: v1::Job) -> Self {
        let some = |unix_ms: u64| (unix_ms > 0).then(|| time(unix_ms));
        Self {
            object: "job",
            state: state_name(job.state()),
            priority: job.priority().domain().as_str(),
            id: job.id,
            model: job.model,
            batch: (!job.batch.is_empty()).then_some(job.batch),
            tags: job.tags.into_iter().collect(),
            submitted_at: time(job.submitted_unix_ms),
            not_before: some(job.not_before_unix_ms),
            deadline: time(job.deadline_unix_ms),
            ended_at: some(job.ended_unix_ms),
            next_try_at: some(job.next_try_unix_ms),
            failed_calls: job.failed_calls,
            error: job.error.map(|error| ErrorBody {
                code: error.code,
                message: error.message,
            }),
            response: None,
        }
    }
}

fn refuse(rejection: impl Into<Rejection>) -> Response {
    error_response(Dialect::OpenaiChat, &rejection.into(), None)
}

async fn submit(State(desk): State<JobDesk>, request: Request) -> Response {
    match submitted(&desk, request).await {
        Ok((status, job)) => (status, json(&job)).into_response(),
        Err(rejection) => refuse(rejection),
    }
}

async fn submitted(desk: &JobDesk, request: Request) -> Result<(StatusCode, JobBody), Rejection> {
    let (head, body) = request.into_parts();
    let known = async {
        let secret = credential(&head.headers, &head.uri)?;
        desk.reception.authenticate_secret(&secret).await
    };
    let entry = match known.await {
        Ok(entry) => entry,
        Err(failure) => {
            body::dismiss(body).await;
            return Err(failure.into());
        }
    };
    let (bytes, _buffered) = body::read(&desk.reception, &head.headers, body).await?;
    let wrong = |error: serde_json::Error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Failure::new(
            ErrorCode::InvalidRequest,
            format!(
                "the body is no job: expected url and body, and of idempotency_key, priority, not_before, deadline, tags, user and batch what is wanted; {place}"
            ),
        )
    };
    let wire: SubmitBody<'_> = serde_json::from_slice(&bytes).map_err(wrong)?;
    let Kind {
        dialect,
        operation,
        path,
    } = Kind::of(&wire.url)?;
    let priority = wire.priority.as_deref().map(str::parse).transpose();
    let submission = Submission {
        headers: passed_on(&head.headers),
        body: bytes.slice_ref(wire.body.get().as_bytes()),
        path,
        idempotency_key: wire.idempotency_key.or_else(|| idempotency_key(&head.headers)),
        priority: priority
            .map_err(|error: tollgate_types::job::UnknownPriority| {
                Failure::new(ErrorCode::InvalidRequest, format!("priority: {error}"))
            })?
            .unwrap_or_default(),
        not_before: wire.not_before.map(Millis::from),
        deadline: wire.deadline.map(Millis::from),
        labels: Labels {
            tags: wire.tags,
            user: wire.user,
        },
        batch: wire.batch,
        webhook: wire.webhook,
        ..Submission::default()
    };
    let submitted = desk.submit(&entry, dialect, operation, submission).await?;
    let status = if submitted.new {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, whole(desk, &submitted.status).await?))
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?.to_owned())
}

/// The job with its answer.
async fn whole(desk: &JobDesk, status: &JobStatus) -> Result<JobBody, Failure> {
    let mut job = JobBody::of(v1::Job::of(status));
    if let Some(body) = desk.answer(status).await? {
        let text = String::from_utf8(body.into()).ok();
        job.response = text.and_then(|text| RawValue::from_string(text).ok());
    }
    Ok(job)
}

pub(super) fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], Bytes::from(bytes)).into_response(),
        Err(_) => refuse(Failure::new(ErrorCode::Internal, "the answer cannot be written")),
    }
}

async fn key_of(desk: &JobDesk, headers: &HeaderMap, uri: &Uri) -> Result<KeyId, Failure> {
    let secret = credential(headers, uri)?;
    Ok(desk.reception.authenticate_secret(&secret).await?.caller.key_id)
}

pub(super) fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut values = pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name);
    values.next().map(|(_, value)| value)
}

/// With `wait=SECONDS` once the job has ended, or after so long.
async fn one(State(desk): State<JobDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let found = async {
        let key = key_of(&desk, &headers, &uri).await?;
        let status = match parameter(&uri, "wait") {
            None => desk.get(key, &id).await?,
            Some(text) => {
                let seconds = text.parse::<u64>().ok().filter(|seconds| *seconds <= LONGEST_WAIT);
                let seconds = seconds.ok_or_else(|| {
                    let message = format!("wait: expected 0 to {LONGEST_WAIT} seconds");
                    Failure::new(ErrorCode::InvalidRequest, message)
                })?;
                desk.wait(key, &id, Duration::from_secs(seconds)).await?
            }
        };
        whole(&desk, &status).await
    };
    found.await.map_or_else(refuse, |job| json(&job))
}

async fn cancel(State(desk): State<JobDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let cancelled = async {
        let key = key_of(&desk, &headers, &uri).await?;
        let status = desk.cancel(key, &id).await?;
        whole(&desk, &status).await
    };
    cancelled.await.map_or_else(refuse, |job| json(&job))
}

async fn retry(State(desk): State<JobDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let retried = async {
        let entry = desk.reception.authenticate_secret(&credential(&headers, &uri)?).await?;
        let status = desk.retry(&entry, &id).await?;
        whole(&desk, &status).await
    };
    retried.await.map_or_else(refuse, |job| json(&job))
}

async fn drop(State(desk): State<JobDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let dropped = async {
        let key = key_of(&desk, &headers, &uri).await?;
        desk.drop(key, &id)
            .await
            .map(|status| JobBody::of(v1::Job::of(&status)))
    };
    dropped.await.map_or_else(refuse, |job| json(&job))
}

async fn list(State(desk): State<JobDesk>, headers: HeaderMap, uri: Uri) -> Response {
    #[derive(Serialize)]
    struct ListBody {
        object: &'static str,
        data: Vec<JobBody>,
        next_page_token: Option<String>,
    }
    let listed = async {
        let key = key_of(&desk, &headers, &uri).await?;
        let invalid = |message: &str| Failure::new(ErrorCode::InvalidRequest, message);
        let states = [
            v1::JobState::Waiting,
            v1::JobState::Answered,
            v1::JobState::Denied,
            v1::JobState::Failed,
            v1::JobState::Cancelled,
        ];
        let state = match parameter(&uri, "state") {
            None => v1::JobState::Unspecified,
            Some(name) => states
                .into_iter()
                .find(|state| state_name(*state) == name)
                .ok_or_else(|| invalid("state: expected waiting, answered, denied, failed or cancelled"))?,
        };
        let limit = parameter(&uri, "limit").map(str::parse).transpose();
        let listing = Listing {
            batch: parameter(&uri, "batch").unwrap_or_default().to_owned(),
            state,
            limit: limit
                .map_err(|_| invalid("limit: expected a number"))?
                .unwrap_or_default(),
            page_token: parameter(&uri, "page_token").unwrap_or_default().to_owned(),
        };
        desk.list(key, listing).await
    };
    listed.await.map_or_else(refuse, |found| {
        json(&ListBody {
            object: "list",
            data: found.jobs.into_iter().map(JobBody::of).collect(),
            next_page_token: (!found.next_page_token.is_empty()).then_some(found.next_page_token),
        })
    })
}
