//! One handler for each kind of call; what they share is how a request is opened.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    extract::{Path, Request, State},
    http::HeaderMap,
    response::Response,
};
use tollgate_types::{Dialect, ErrorCode, Failure, Operation, RequestId};

use super::{
    answer::{self, Form},
    body,
    credential::credential,
    error::error_response,
};
use crate::reception::{Arrival, Reception, Rejection};

/// Headers with which a client asks for more than its body can; they go to a provider of the same dialect.
const PASSED_ON: [&str; 3] = ["anthropic-beta", "anthropic-version", "openai-beta"];

type Shared = State<Arc<Reception>>;

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

async fn serve(at: Shared, Extension(request_id): Extension<RequestId>, request: Request, call: Call) -> Response {
    let (dialect, form) = (call.dialect, call.form);
    match open(&at, request_id, request, call).await {
        Ok(ticket) => answer::answer(ticket, dialect, form).await,
        Err(rejection) => error_response(dialect, &rejection, None),
    }
}

async fn open(
    reception: &Reception,
    request_id: RequestId,
    request: Request,
    call: Call,
) -> Result<crate::desk::Ticket, Rejection> {
    let (head, body) = request.into_parts();
    let known = credential(&head.headers, &head.uri)
        .and_then(|secret| reception.authenticate_secret(&secret))
        .and_then(|entry| reception.admit(entry.caller.key_id).map(|()| entry));
    let entry = match known {
        Ok(entry) => entry,
        Err(failure) => {
            body::dismiss(body).await;
            return Err(failure.into());
        }
    };
    let (body, buffered) = body::read(reception, &head.headers, body).await?;
    reception
        .open(Arrival {
            request_id,
            entry,
            dialect: call.dialect,
            operation: call.operation,
            path: call.path,
            headers: passed_on(&head.headers),
            body,
            buffered,
        })
        .await
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
