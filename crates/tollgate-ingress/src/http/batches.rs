//! `/v1/files` and `/v1/batches`: many durable requests in a file, as OpenAI's clients send them.

use std::sync::Arc;
use std::{collections::BTreeMap, io};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Path, Request, State, multipart::Field},
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::io::{ReaderStream, StreamReader};
use tollgate_bus::batches::{BatchStatus, File, LineMistake};
use tollgate_config::Entry;
use tollgate_types::{Dialect, ErrorCode, Failure, KeyId, Millis};

use super::{
    body,
    credential::credential,
    error::error_response,
    jobs::{idempotency_key, json, parameter},
};
use crate::{
    batches::{BatchDesk, Counted, PURPOSE, Wanted},
    reception::Rejection,
};

const PAGE: usize = 20;
const LONGEST_PAGE: usize = 100;
/// Multipart boundaries and small fields, beside the file itself.
const FORM_BYTES: usize = 64 << 10;

pub(super) fn routes(desk: BatchDesk) -> Router {
    let upload = post(upload).layer(DefaultBodyLimit::max(desk.max_file_bytes() + FORM_BYTES));
    let routes = Router::new()
        .route("/files", upload.get(files))
        .route("/files/{id}", get(file).delete(remove))
        .route("/files/{id}/content", get(content))
        .route("/batches", post(create).get(list))
        .route("/batches/{id}", get(one))
        .route("/batches/{id}/cancel", post(cancel))
        .with_state(desk);
    Router::new().nest("/v1", routes.clone()).nest("/openai/v1", routes)
}

/// A file as a client sees it. Times are in seconds since 1970.
#[derive(Serialize)]
struct FileBody {
    id: String,
    object: &'static str,
    bytes: u64,
    created_at: u64,
    filename: String,
    purpose: String,
    status: &'static str,
}

impl From<File> for FileBody {
    fn from(file: File) -> Self {
        Self {
            id: file.id.to_string(),
            object: "file",
            bytes: file.bytes,
            created_at: seconds(file.created_at),
            filename: file.name,
            purpose: file.purpose,
            status: "processed",
        }
    }
}

/// A batch as a client sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// A batch as a client sees it. Times are in seconds since 1970.
#[derive(Serialize)]
struct BatchBody {
    id: String,
    object: &'static str,
    endpoint: String,
    errors: Option<Mistakes>,
    input_file_id: String,
    completion_window: String,
    status: &'static str,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
    created_at: u64,
    in_progress_at: Option<u64>,
    expires_at: u64,
    completed_at: Option<u64>,
    failed_at: Option<u64>,
    expired_at: Option<u64>,
    cancelling_at: Option<u64>,
    cancelled_at: Option<u64>,
    request_counts: Counts,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Mistakes {
    object: &'static str,
    data: Vec<LineMistake>,
}

#[derive(Serialize)]
struct Counts {
    total: u64,
    completed: u64,
    failed: u64,
}

#[derive(Serialize)]
struct ListBody<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

const fn seconds(at: Millis) -> u64 {
    at.0 / 1000
}

/// The name that OpenAI has for it.
fn state(Counted { status, counts }: &Counted) -> &'static str {
    let BatchStatus {
        reading,
        cancellation,
        ending,
        ..
    } = status;
    match (reading, ending) {
        (Some(reading), _) if !reading.mistakes.is_empty() => "failed",
        (_, Some(_)) if cancellation.is_some() => "cancelled",
        (_, Some(ending)) if ending.expired => "expired",
        (_, Some(_)) => "completed",
        _ if cancellation.is_some() => "cancelling",
        (None, None) => "validating",
        (Some(reading), None) if counts.answered + counts.not_answered >= reading.requests => "finalizing",
        (Some(_), None) => "in_progress",
    }
}

impl From<Counted> for BatchBody {
    fn from(counted: Counted) -> Self {
        let state = state(&counted);
        let Counted { status, counts } = counted;
        let BatchStatus {
            batch,
            reading,
            cancellation,
            ending,
        } = status;
        let read_at = reading.as_ref().map(|reading| seconds(reading.at));
        let ended_at = ending.as_ref().map(|ending| seconds(ending.at));
        let when = |name: &str, at: Option<u64>| at.filter(|_| state == name);
        let total = reading.as_ref().map_or(0, |reading| reading.requests);
        let mistakes = reading.map(|reading| reading.mistakes).unwrap_or_default();
        let file = |id: Option<tollgate_types::FileId>| id.map(|id| id.to_string());
        Self {
            id: batch.id.to_string(),
            object: "batch",
            endpoint: batch.endpoint,
            errors: (!mistakes.is_empty()).then_some(Mistakes {
                object: "list",
                data: mistakes,
            }),
            input_file_id: batch.input.to_string(),
            completion_window: batch.window,
            status: state,
            output_file_id: file(ending.as_ref().and_then(|ending| ending.output)),
            error_file_id: file(ending.as_ref().and_then(|ending| ending.errors)),
            created_at: seconds(batch.created_at),
            in_progress_at: read_at.filter(|_| state != "failed"),
            expires_at: seconds(batch.expires_at),
            completed_at: when("completed", ended_at),
            failed_at: when("failed", read_at),
            expired_at: when("expired", ended_at),
            cancelling_at: cancellation.map(|cancellation| seconds(cancellation.at)),
            cancelled_at: when("cancelled", ended_at),
            request_counts: Counts {
                total,
                completed: counts.answered,
                failed: counts.not_answered,
            },
            metadata: batch.metadata,
        }
    }
}

fn answer<T: Serialize>(result: Result<T, impl Into<Rejection>>) -> Response {
    match result {
        Ok(value) => json(&value),
        Err(rejection) => error_response(Dialect::OpenaiChat, &rejection.into(), None),
    }
}

async fn entry_of(desk: &BatchDesk, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Entry>, Failure> {
    let secret = credential(headers, uri)?;
    desk.reception().authenticate_secret(&secret).await
}

async fn key_of(desk: &BatchDesk, headers: &HeaderMap, uri: &Uri) -> Result<KeyId, Failure> {
    Ok(entry_of(desk, headers, uri).await?.caller.key_id)
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message)
}

async fn upload(State(desk): State<BatchDesk>, request: Request) -> Response {
    let key = match key_of(&desk, request.headers(), request.uri()).await {
        Ok(key) => key,
        Err(failure) => {
            body::dismiss(request.into_body()).await;
            return answer::<FileBody>(Err(failure));
        }
    };
    answer(uploaded(&desk, key, request).await.map(FileBody::from))
}

async fn uploaded(desk: &BatchDesk, key: KeyId, request: Request) -> Result<File, Failure> {
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|_| invalid("expected multipart/form-data with the fields purpose and file"))?;
    let broken = |_| invalid("the form is incomplete or too large");
    let (mut file, mut purpose) = (None, None);
    let read = async {
        while let Some(field) = form.next_field().await.map_err(broken)? {
            match field.name().unwrap_or_default() {
                "purpose" if purpose.is_none() => purpose = Some(field.text().await.map_err(broken)?),
                "file" if file.is_none() => file = Some(stored(desk, key, field).await?),
                name => {
                    let name: String = name.chars().take(64).collect();
                    return Err(invalid(format!("the form has an unexpected field {name:?}")));
                }
            }
        }
        if purpose.as_deref() == Some(PURPOSE) {
            return Ok(());
        }
        Err(invalid("purpose: expected batch"))
    };
    let outcome = read.await;
    match (outcome, file) {
        (Ok(()), Some(file)) => Ok(file),
        (Ok(()), None) => Err(invalid("file: is missing")),
        (Err(failure), file) => {
            if let Some(file) = file {
                desk.remove(key, &file.id.to_string()).await?;
            }
            Err(failure)
        }
    }
}

async fn stored(desk: &BatchDesk, key: KeyId, field: Field<'_>) -> Result<File, Failure> {
    let name = field.file_name().map(str::to_owned);
    let (mut left, mut wrong) = (desk.max_file_bytes(), None);
    let bytes = field.map(|bytes| {
        let bytes = bytes.map_err(|_| invalid("the form is incomplete or too large"));
        let counted = bytes.and_then(|bytes| match left.checked_sub(bytes.len()) {
            Some(rest) => {
                left = rest;
                Ok(bytes)
            }
            None => {
                let message = format!("the file is larger than {} bytes", desk.max_file_bytes());
                Err(Failure::new(ErrorCode::TooLarge, message))
            }
        });
        counted.map_err(|failure| {
            wrong = Some(failure);
            io::Error::other("the upload broke off")
        })
    });
    let stored = {
        let mut reader = Box::pin(StreamReader::new(bytes));
        desk.upload(key, name.as_deref(), &mut reader).await
    };
    match wrong {
        Some(failure) => Err(failure),
        None => stored,
    }
}

async fn files(State(desk): State<BatchDesk>, headers: HeaderMap, uri: Uri) -> Response {
    let listed = async {
        let files = desk.files(key_of(&desk, &headers, &uri).await?).await?;
        let purpose = parameter(&uri, "purpose");
        let (after, limit) = (parameter(&uri, "after"), limit(&uri, 10_000, 10_000)?);
        let of_purpose = |file: &File| purpose.is_none_or(|purpose| purpose == file.purpose);
        let mut bodies: Vec<FileBody> = files.into_iter().filter(of_purpose).map(FileBody::from).collect();
        if let Some(after) = after {
            let place = bodies.iter().position(|file| file.id == after);
            let place = place.ok_or_else(|| Failure::new(ErrorCode::FileNotFound, "after: there is no such file"))?;
            bodies.drain(..=place);
        }
        let has_more = bodies.len() > limit;
        bodies.truncate(limit);
        Ok::<_, Failure>(page(bodies, |file| &file.id, has_more))
    };
    answer(listed.await)
}

fn page<T>(data: Vec<T>, id: impl Fn(&T) -> &String, has_more: bool) -> ListBody<T> {
    ListBody {
        object: "list",
        first_id: data.first().map(|one| id(one).clone()),
        last_id: data.last().map(|one| id(one).clone()),
        has_more,
        data,
    }
}

fn limit(uri: &Uri, usual: usize, most: usize) -> Result<usize, Failure> {
    let limit = parameter(uri, "limit").map_or(Ok(usual), str::parse);
    let limit = limit.ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| invalid(format!("limit: expected 1 to {most}")))
}

async fn file(State(desk): State<BatchDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let found = async { desk.file(key_of(&desk, &headers, &uri).await?, &id).await };
    answer(found.await.map(FileBody::from))
}

async fn remove(State(desk): State<BatchDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    #[derive(Serialize)]
    struct Deleted {
        id: String,
        object: &'static str,
        deleted: bool,
    }
    let removed = async { desk.remove(key_of(&desk, &headers, &uri).await?, &id).await };
    answer(removed.await.map(|file| Deleted {
        id: file.id.to_string(),
        object: "file",
        deleted: true,
    }))
}

async fn content(State(desk): State<BatchDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let found = async { desk.content(key_of(&desk, &headers, &uri).await?, &id).await };
    match found.await {
        Ok((file, content)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/jsonl".to_owned()),
                (header::CONTENT_LENGTH, file.bytes.to_string()),
            ];
            let bytes = ReaderStream::new(content).map_err(|error| {
                tracing::warn!(%error, "a file broke off");
                error
            });
            (headers, Body::from_stream(bytes)).into_response()
        }
        Err(failure) => answer::<FileBody>(Err(failure)),
    }
}

async fn create(State(desk): State<BatchDesk>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let entry = match entry_of(&desk, &head.headers, &head.uri).await {
        Ok(entry) => entry,
        Err(failure) => {
            body::dismiss(body).await;
            return answer::<BatchBody>(Err(failure));
        }
    };
    let created = async {
        let (bytes, _buffered) = body::read(desk.reception(), &head.headers, body).await?;
        let wire: CreateBody = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        let wanted = Wanted {
            input: wire.input_file_id,
            endpoint: wire.endpoint,
            window: wire.completion_window,
            metadata: wire.metadata.unwrap_or_default(),
            idempotency_key: idempotency_key(&head.headers),
        };
        desk.create(&entry, wanted).await
    };
    answer(created.await.map(BatchBody::from))
}

async fn list(State(desk): State<BatchDesk>, headers: HeaderMap, uri: Uri) -> Response {
    let listed = async {
        let key = key_of(&desk, &headers, &uri).await?;
        let limit = limit(&uri, PAGE, LONGEST_PAGE)?;
        let (batches, has_more) = desk.list(key, parameter(&uri, "after"), limit).await?;
        let bodies = batches.into_iter().map(BatchBody::from).collect();
        Ok::<_, Failure>(page(bodies, |batch| &batch.id, has_more))
    };
    answer(listed.await)
}

async fn one(State(desk): State<BatchDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let found = async { desk.get(key_of(&desk, &headers, &uri).await?, &id).await };
    answer(found.await.map(BatchBody::from))
}

async fn cancel(State(desk): State<BatchDesk>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    let cancelled = async { desk.cancel(key_of(&desk, &headers, &uri).await?, &id).await };
    answer(cancelled.await.map(BatchBody::from))
}
