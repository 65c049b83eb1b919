//! One chat call from its bytes to its answer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::{
    Active, Simulator,
    answer::{self, Answer},
    count::{Outcome, Ticket},
    error::ApiError,
    play::{self, Step},
    request::{self, Request},
    script::Behaviour,
    trouble::{self, Trouble},
    wire::{self, Frame},
};

/// Bodies from this size on are read and counted off the async threads.
const LARGE_BODY: usize = 128 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const API_VERSION: HeaderName = HeaderName::from_static("openai-version");

/// A valid call with everything decided about its answer.
struct Plan {
    request: Request,
    behaviour: Behaviour,
    trouble: Trouble,
    answer: Answer,
}

/// Answers a request that has been read in full; the ticket is already open.
pub(crate) async fn answer(simulator: &Simulator, headers: &HeaderMap, body: Bytes, mut ticket: Ticket) -> Response {
    let started = Instant::now();
    let serial = ticket.serial();
    let mut response = match plan(simulator, headers, body, &ticket).await {
        Ok(plan) => perform(plan, ticket).await,
        Err(error) => {
            ticket.status(error.status);
            ticket.end(Outcome::Refused);
            error_response(&error)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&format!("req_sim{serial:016x}")) {
        headers.insert(REQUEST_ID, id);
    }
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, elapsed.into());
    headers.insert(API_VERSION, HeaderValue::from_static("2020-10-01"));
    response
}

/// Checks the call and decides its answer.
async fn plan(simulator: &Simulator, headers: &HeaderMap, body: Bytes, ticket: &Ticket) -> Result<Plan, ApiError> {
    authenticate(headers)?;
    json_type(headers)?;
    let active = simulator.active();
    let (glance, plan) = if body.len() < LARGE_BODY {
        read(&active, &body)
    } else {
        tokio::task::spawn_blocking(move || read(&active, &body))
            .await
            .map_err(|_| ApiError::scripted(500))?
    };
    let (model, stream) = glance;
    ticket.asked(model, stream);
    plan
}

/// The model and the wish for a stream, as far as they can be told, and the plan.
type Read = ((Option<String>, bool), Result<Plan, ApiError>);

fn read(active: &Active, body: &[u8]) -> Read {
    match request::parse(body) {
        Ok(value) => (request::glance(&value), decide(active, &value)),
        Err(error) => ((None, false), Err(error)),
    }
}

fn decide(active: &Active, value: &Value) -> Result<Plan, ApiError> {
    let request = request::validate(value, &active.script.models)?;
    let rule = active.script.rule_index(&request.model);
    let mut behaviour = active
        .script
        .effective(rule.and_then(|index| active.script.rules.get(index)));
    let directed = trouble::directives(&request.prompt, &mut behaviour).map_err(|directive| {
        ApiError::invalid(format!("Unknown simulator directive '#sim:{directive}'.")).param("messages")
    })?;
    let answer = answer::compose(&request, &behaviour);
    let trouble = directed.unwrap_or_else(|| active.draw(rule, &behaviour));
    Ok(Plan {
        request,
        behaviour,
        trouble,
        answer,
    })
}

/// Waits as scripted, then answers. While this waits, a client that leaves drops the ticket.
async fn perform(plan: Plan, mut ticket: Ticket) -> Response {
    let Plan {
        request,
        behaviour,
        trouble,
        answer,
    } = plan;
    if !matches!(trouble, Trouble::Error(_)) {
        ticket.bill_prompt(answer.usage.prompt);
    }
    if behaviour.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
    }
    if let Trouble::Error(status) = trouble {
        ticket.status(status);
        ticket.end(Outcome::Error);
        return scripted_error(status, &behaviour);
    }
    let frame = Frame {
        serial: ticket.serial(),
        created: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    };
    ticket.status(StatusCode::OK.as_u16());
    let end = match trouble {
        Trouble::ErrorInside => Outcome::Error,
        _ => Outcome::Ok,
    };
    if request.stream {
        let steps = wire::stream_steps(&frame, &request, &answer, &behaviour, trouble);
        let mut response = Response::new(play::body(steps, ticket, end));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return response;
    }
    let body: Bytes = match trouble {
        Trouble::ErrorInside => ApiError::scripted(500).body().to_string().into(),
        _ => wire::whole(&frame, &request, &answer, &behaviour),
    };
    let steps: Vec<Step> = wire::whole_steps(&body, answer.usage.completion, trouble);
    let mut response = Response::new(play::body(steps, ticket, end));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Declared even when less is sent: that is how a client knows a cut body from a short one.
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    response
}

fn scripted_error(status: u16, behaviour: &Behaviour) -> Response {
    let mut response = error_response(&ApiError::scripted(status));
    if let (429 | 503, Some(seconds)) = (status, behaviour.retry_after_s) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// An error as a response.
pub(crate) fn error_response(error: &ApiError) -> Response {
    let mut response = Response::new(Body::from(error.body().to_string()));
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Any key will do, but for the one that stands for a revoked key.
pub(crate) fn authenticate(headers: &HeaderMap) -> Result<(), ApiError> {
    let key = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    match key {
        None | Some("") => Err(ApiError::key(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
             auth (i.e. Authorization: Bearer YOUR_KEY).",
        )),
        Some("sk-invalid") => Err(ApiError::key("Incorrect API key provided: sk-invalid.")),
        Some(_) => Ok(()),
    }
}

fn json_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let got = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = got.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid content type. Expected type to be application/json, but got '{got}'."
    ))
    .code("unsupported_content_type"))
}
