//! The HTTP door, in OpenAI's dialect.

mod body;
mod error;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, stream};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate_types::{Dialect, ErrorCode, Failure, RequestId};
use tracing::Instrument;

use crate::{
    Error, connection,
    desk::{Event, Ticket},
    reception::{Reception, Rejection},
};
use error::{error_object, error_response};

const REQUEST_ID: &str = "x-request-id";

pub(crate) async fn serve(
    listener: TcpListener,
    reception: Arc<Reception>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let routes = Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/models", get(list_models))
        .route("/v1/models/{*model}", get(get_model))
        .method_not_allowed_fallback(|request| lost(request, 405, "the method is not allowed here"))
        .fallback(|request| lost(request, 404, "there is nothing at this path"))
        .layer(middleware::from_fn(identify))
        .with_state(reception);
    Ok(connection::serve(listener, routes, stop).await?)
}

async fn lost(request: Request, status: u16, message: &'static str) -> Response {
    body::dismiss(request.into_body()).await;
    error_response(&Failure::new(ErrorCode::InvalidRequest, message).into(), Some(status))
}

/// Gives every request its id before anything can go wrong with it.
async fn identify(mut request: Request, next: Next) -> Response {
    let request_id = RequestId::generate();
    request.extensions_mut().insert(request_id);
    let span = tracing::info_span!("request", otel.kind = "server", request.id = %request_id);
    tollgate_telemetry::adopt_http(&span, request.headers());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn chat_completions(
    State(reception): State<Arc<Reception>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    match open(&reception, request_id, request).await {
        Ok((ticket, streamed)) => answer(ticket, streamed).await,
        Err(rejection) => error_response(&rejection, None),
    }
}

async fn open(reception: &Reception, request_id: RequestId, request: Request) -> Result<(Ticket, bool), Rejection> {
    let (head, body) = request.into_parts();
    let known = reception
        .authenticate(authorization(&head.headers))
        .and_then(|entry| reception.admit(entry).map(|()| entry));
    let entry = match known {
        Ok(entry) => entry,
        Err(failure) => {
            body::dismiss(body).await;
            return Err(failure.into());
        }
    };
    let (body, buffered) = body::read(reception, &head.headers, body).await?;
    let ticket = reception
        .open(request_id, entry, Dialect::OpenaiChat, body, buffered)
        .await?;
    let streamed = ticket.is_streamed();
    Ok((ticket, streamed))
}

fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    // Two credentials are none: which one counts must not depend on who reads them.
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}

/// Waits for the first event, so that a failure before it is an error with a status and not a broken stream.
async fn answer(mut ticket: Ticket, streamed: bool) -> Response {
    match ticket.next().await {
        Event::Frame(first) if streamed => {
            let headers = [
                (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
                (header::CACHE_CONTROL, "no-cache"),
                (header::HeaderName::from_static("x-accel-buffering"), "no"),
            ];
            (headers, Body::from_stream(events(ticket, first))).into_response()
        }
        Event::Frame(body) => match ticket.next().await {
            Event::End => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Event::Failed(failure) => error_response(&failure.into(), None),
            Event::Frame(_) => {
                let failure = Failure::new(ErrorCode::Internal, "the answer came in pieces that were not asked for");
                error_response(&failure.into(), None)
            }
        },
        Event::Failed(failure) => error_response(&failure.into(), None),
        Event::End => error_response(
            &Failure::new(ErrorCode::ProviderBroken, "the answer was empty").into(),
            None,
        ),
    }
}

/// The rest of an answer as server-sent events. A failure is an event of its own and no `[DONE]` follows it.
fn events(ticket: Ticket, first: Bytes) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((Some(ticket), Some(first)), async |(ticket, first)| {
        let mut ticket = ticket?;
        let event = match first {
            Some(first) => Event::Frame(first),
            None => ticket.next().await,
        };
        Some(match event {
            Event::Frame(frame) => (Ok(sse(&frame)), (Some(ticket), None)),
            Event::End => (Ok(Bytes::from_static(b"data: [DONE]\n\n")), (None, None)),
            Event::Failed(failure) => {
                let error = error_object(&failure.into()).to_string();
                (Ok(sse(error.as_bytes())), (None, None))
            }
        })
    })
}

/// One event; a line break within its data starts another `data:` line.
fn sse(data: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(data.len() + 8);
    for line in data.split(|byte| *byte == b'\n') {
        event.put_slice(b"data: ");
        event.put_slice(line);
        event.put_u8(b'\n');
    }
    event.put_u8(b'\n');
    event.freeze()
}

fn model_object(name: &str) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "tollgate" })
}

async fn list_models(State(reception): State<Arc<Reception>>, headers: HeaderMap) -> Response {
    match reception.authenticate(authorization(&headers)) {
        Ok(entry) => {
            let models: Vec<_> = reception.models(entry).map(model_object).collect();
            json_response(&json!({ "object": "list", "data": models }))
        }
        Err(failure) => error_response(&failure.into(), None),
    }
}

async fn get_model(
    State(reception): State<Arc<Reception>>,
    axum::extract::Path(model): axum::extract::Path<String>,
    headers: HeaderMap,
) -> Response {
    match reception.authenticate(authorization(&headers)) {
        Ok(entry) if reception.models(entry).any(|name| name == model) => json_response(&model_object(&model)),
        Ok(_) => {
            let failure = Failure::new(
                ErrorCode::ModelNotFound,
                "the model does not exist or you do not have access",
            );
            error_response(
                &Rejection {
                    failure,
                    param: Some("model"),
                },
                None,
            )
        }
        Err(failure) => error_response(&failure.into(), None),
    }
}

fn json_response(body: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_with_line_breaks_stays_one_event() {
        assert_eq!(sse(b"{}"), "data: {}\n\n");
        assert_eq!(sse(b"{\n}"), "data: {\ndata: }\n\n");
    }

    #[test]
    fn two_credentials_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(authorization(&headers), Some(&b"Bearer a"[..]));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(authorization(&headers), None);
    }
}
