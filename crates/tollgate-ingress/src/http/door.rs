//! One handler for each kind of call; what they share is how a request is opened.

use std::collections::BTreeMap;

use axum::{
    Extension,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use bytes::Bytes;
use tollgate_config::Entry;
use tollgate_types::{Dialect, ErrorCode, Failure, Lane, Operation, RequestId};

use super::{
    answer::{self, Form},
    body,
    credential::credential,
    error::error_response,
};
use crate::{
    desk::Ticket,
    jobs::{JobDesk, Submission},
    labels::Labels,
    reception::{Arrival, Rejection},
};

/// With it a request survives its connection, and a repeat has the same answer.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Headers with which a client asks for more than its body can; they go to a provider of the same dialect.
const PASSED_ON: [&str; 3] = ["anthropic-beta", "anthropic-version", "openai-beta"];

type Shared = State<JobDesk>;

/// What a path says of a request.
struct Call {
    dialect: Dialect,
    operation: Operation,
    /// Gemini's clients name model and form of answer in the path.
    path: Option<(String, bool)>,
    form: Form,
}

impl Call {
    const fn new(dialect: Dialect, operation: Operation) -> Self {
        Self {
            dialect,
            operation,
            path: None,
            form: Form::of(dialect),
        }
    }
}

pub(super) async fn chat_completions(at: Shared, id: Extension<RequestId>, request: Request) -> Response {
    serve(at, id, request, Call::new(Dialect::OpenaiChat, Operation::Chat)).await
}

pub(super) async fn responses(at: Shared, id: Extension<RequestId>, request: Request) -> Response {
    serve(at, id, request, Call::new(Dialect::OpenaiResponses, Operation::Chat)).await
}

pub(super) async fn embeddings(at: Shared, id: Extension<RequestId>, request: Request) -> Response {
    serve(at, id, request, Call::new(Dialect::OpenaiChat, Operation::Embed)).await
}

pub(super) async fn messages(at: Shared, id: Extension<RequestId>, request: Request) -> Response {
    serve(at, id, request, Call::new(Dialect::Anthropic, Operation::Chat)).await
}

pub(super) async fn count_tokens(at: Shared, id: Extension<RequestId>, request: Request) -> Response {
    serve(at, id, request, Call::new(Dialect::Anthropic, Operation::CountTokens)).await
}

/// `models/{model}:generateContent` and its like; the path's last part is `{model}:{method}`.
pub(super) async fn gemini(
    at: Shared,
    id: Extension<RequestId>,
    Path(parts): Path<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let last = parts.get("call").or_else(|| parts.get("model"));
    let (model, method) = last.and_then(|last| last.rsplit_once(':')).unwrap_or_default();
    let chat = Call::new(Dialect::Gemini, Operation::Chat);
    let as_events = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .any(|pair| pair == "alt=sse");
    let call = match method {
        "generateContent" => Call {
            path: Some((model.to_owned(), false)),
            ..chat
        },
        "streamGenerateContent" => Call {
            path: Some((model.to_owned(), true)),
            form: if as_events { chat.form } else { Form::Array },
            ..chat
        },
        "countTokens" => Call {
            path: Some((model.to_owned(), false)),
            operation: Operation::CountTokens,
            ..chat
        },
        _ => {
            body::dismiss(request.into_body()).await;
            let message = "this method is not served; generateContent, streamGenerateContent and countTokens are";
            let failure = Failure::new(ErrorCode::InvalidRequest, message);
            return error_response(Dialect::Gemini, &failure.into(), Some(404));
        }
    };
    serve(at, id, request, call).await
}

/// Answers are not kept, so there is none to be had or changed.
pub(super) async fn kept_response(request: Request) -> Response {
    body::dismiss(request.into_body()).await;
    let message = "responses are not kept here: send the whole input with each request";
    let failure = Failure::new(ErrorCode::InvalidRequest, message);
    error_response(Dialect::OpenaiResponses, &failure.into(), Some(404))
}

async fn serve(
    State(desk): Shared,
    Extension(request_id): Extension<RequestId>,
    request: Request,
    call: Call,
) -> Response {
    let (dialect, form) = (call.dialect, call.form);
    match Box::pin(open(&desk, request_id, request, call)).await {
        Ok(Opened::Under(ticket)) => Box::pin(answer::answer(*ticket, dialect, form)).await,
        Ok(Opened::Kept(body)) => answer::whole(body),
        Ok(Opened::Replayed(frames)) => answer::replay(&frames, form),
        Err(rejection) => error_response(dialect, &rejection, None),
    }
}

/// What becomes of a request.
enum Opened {
    /// It is under way.
    Under(Box<Ticket>),
    /// With an idempotency key, its answer.
    Kept(Bytes),
    /// The same, as a stream.
    Replayed(Vec<Bytes>),
}

async fn open(desk: &JobDesk, request_id: RequestId, request: Request, call: Call) -> Result<Opened, Rejection> {
    let reception = &desk.reception;
    let (head, body) = request.into_parts();
    let known = async {
        let secret = credential(&head.headers, &head.uri)?;
        let entry = reception.authenticate_secret(&secret).await?;
        reception.admit(&entry)?;
        Ok::<_, Failure>((entry, labels(&head.headers)?))
    };
    let (entry, labels) = match known.await {
        Ok(known) => known,
        Err(failure) => {
            body::dismiss(body).await;
            return Err(failure.into());
        }
    };
    let (body, buffered) = body::read(reception, &head.headers, body).await?;
    let headers = passed_on(&head.headers);
    if let Some(key) = head
        .headers
        .get(IDEMPOTENCY_KEY)
        .filter(|_| call.operation != Operation::CountTokens)
    {
        let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
        return once(desk, &entry, labels, headers, key, &body, call).await;
    }
    let arrival = Arrival {
        request_id,
        entry: &entry,
        labels,
        dialect: call.dialect,
        operation: call.operation,
        path: call.path,
        headers,
        body,
        buffered,
    };
    Ok(Opened::Under(Box::new(reception.open(arrival).await?)))
}

/// A request whose answer is kept under a key of the client's.
async fn once(
    desk: &JobDesk,
    entry: &Entry,
    labels: Labels,
    headers: BTreeMap<String, String>,
    key: String,
    body: &[u8],
    call: Call,
) -> Result<Opened, Rejection> {
    let Call { dialect, operation, .. } = call;
    let path = call.path.as_ref().map(|(model, stream)| (model.as_str(), *stream));
    let view = desk
        .reception
        .look(entry, Lane::Interactive, dialect, operation, path, body)?;
    let submission = Submission {
        headers,
        labels,
        body: tollgate_dialect::unstreamed(dialect, body)?,
        path: call.path.map(|(model, _)| (model, false)),
        idempotency_key: Some(key),
        ..Submission::default()
    };
    let whole = desk.once(entry, dialect, operation, submission).await?;
    if !view.stream {
        return Ok(Opened::Kept(whole));
    }
    let frames = tollgate_dialect::restream(dialect, body, &view, &whole);
    let unreadable = |_| Failure::new(ErrorCode::Internal, "the kept answer cannot be streamed");
    Ok(Opened::Replayed(frames.map_err(unreadable)?))
}

/// What the headers say beside the body.
pub(super) fn labels(headers: &HeaderMap) -> Result<Labels, Failure> {
    Labels::read(|name| headers.get(name).map(HeaderValue::as_bytes))
}

pub(super) fn passed_on(headers: &HeaderMap) -> BTreeMap<String, String> {
    PASSED_ON
        .iter()
        .filter_map(|name| {
            let all: Vec<_> = headers
                .get_all(*name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            (!all.is_empty()).then(|| ((*name).to_owned(), all.join(",")))
        })
        .collect()
}
