//! One call from its bytes to its answer, whatever its wire format.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::{
    Active, Simulator,
    answer::{self, Answer},
    ask::Ask,
    count::{Outcome, Ticket},
    error::ApiError,
    format::{Chunk, Frame, WireFormat},
    play::{self, Step},
    script::Behaviour,
    trouble::{self, Trouble},
};

/// Bodies from this size on are read and counted off the async threads.
const LARGE_BODY: usize = 128 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// A valid call with everything decided about its answer.
struct Plan {
    ask: Ask,
    behaviour: Behaviour,
    trouble: Trouble,
    answer: Answer,
}

/// Answers a request that has been read in full; the ticket is already open.
pub(crate) async fn answer(
    simulator: &Simulator,
    format: Arc<dyn WireFormat>,
    headers: &HeaderMap,
    body: Bytes,
    mut ticket: Ticket,
) -> Response {
    let started = Instant::now();
    let serial = ticket.serial();
    ticket.format(format.name());
    let mut response = match plan(simulator, &format, headers, body, &ticket).await {
        Ok(plan) => perform(plan, &*format, ticket).await,
        Err(error) => {
            ticket.status(error.status);
            ticket.end(Outcome::Refused);
            format.error(&error)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&format!("req_sim{serial:016x}")) {
        headers.insert(REQUEST_ID, id);
    }
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, elapsed.into());
    response
}

/// Checks the call and decides its answer.
async fn plan(
    simulator: &Simulator,
    format: &Arc<dyn WireFormat>,
    headers: &HeaderMap,
    body: Bytes,
    ticket: &Ticket,
) -> Result<Plan, ApiError> {
    format.authenticate(headers)?;
    json_type(headers)?;
    let active = simulator.active();
    let (glance, plan) = if body.len() < LARGE_BODY {
        read(&active, &**format, &body)
    } else {
        let format = Arc::clone(format);
        tokio::task::spawn_blocking(move || read(&active, &*format, &body))
            .await
            .map_err(|_| ApiError::scripted(500))?
    };
    let (model, stream) = glance;
    ticket.asked(model, stream);
    plan
}

/// The model and the wish for a stream, as far as they can be told, and the plan.
type Read = ((Option<String>, bool), Result<Plan, ApiError>);

fn read(active: &Active, format: &dyn WireFormat, body: &[u8]) -> Read {
    match parse(body) {
        Ok(value) => (format.glance(&value), decide(active, format, &value)),
        Err(error) => ((None, false), Err(error)),
    }
}

/// Parses the body. Not JSON, or not an object, is an error in the service's words.
fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let unreadable = || {
        ApiError::invalid(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP \
             library correctly. The API expects a JSON payload, but what was sent was not valid JSON.)",
        )
    };
    let value: Value = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(unreadable())
    }
}

fn decide(active: &Active, format: &dyn WireFormat, value: &Value) -> Result<Plan, ApiError> {
    let ask = format.read(value, &active.script.models)?;
    let rule = active.script.rule_index(&ask.model);
    let mut behaviour = active
        .script
        .effective(rule.and_then(|index| active.script.rules.get(index)));
    let directed = trouble::directives(&ask.prompt, &mut behaviour).map_err(|directive| {
        ApiError::invalid(format!("Unknown simulator directive '#sim:{directive}'.")).param("messages")
    })?;
    let answer = answer::compose(&ask, &behaviour);
    let trouble = directed.unwrap_or_else(|| active.draw(rule, &behaviour));
    Ok(Plan {
        ask,
        behaviour,
        trouble,
        answer,
    })
}

/// Waits as scripted, then answers. While this waits, a client that leaves drops the ticket.
async fn perform(plan: Plan, format: &dyn WireFormat, mut ticket: Ticket) -> Response {
    let Plan {
        ask,
        behaviour,
        trouble,
        answer,
    } = plan;
    let refused = trouble.error();
    if refused.is_none() && !format.is_free() {
        ticket.bill_prompt(answer.usage.input);
    }
    if behaviour.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
    }
    if let Some(error) = refused {
        ticket.status(error.status);
        ticket.end(Outcome::Error);
        let mut response = format.error(&error);
        if let (429 | 503, Some(seconds)) = (error.status, behaviour.retry_after_s) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return response;
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
    if ask.stream {
        let chunks = format.stream(&frame, &ask, &answer, &behaviour);
        let mut response = Response::new(play::body(steps(chunks, format, &behaviour, trouble), ticket, end));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.stream_type()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return response;
    }
    let body = match trouble {
        Trouble::ErrorInside => format.error_whole(&ApiError::scripted(500)),
        _ => format.whole(&frame, &ask, &answer, &behaviour),
    };
    let tokens = if format.is_free() || format.has_no_answer() {
        0
    } else {
        answer.usage.output
    };
    let steps = whole_steps(&body, tokens, trouble);
    let mut response = Response::new(play::body(steps, ticket, end));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Declared even when less is sent: that is how a client knows a cut body from a short one.
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    response
}

/// Steps for a body with a declared length. A whole answer has been generated before its first byte is sent, so
/// even a broken one is billed in full.
fn whole_steps(body: &Bytes, tokens: u64, trouble: Trouble) -> Vec<Step> {
    match trouble {
        Trouble::Stall => vec![Step::Stall],
        Trouble::Cut => {
            let bytes = body.slice(..body.len() / 2);
            vec![Step::Send { bytes, tokens }, Step::Break]
        }
        _ => vec![Step::Send {
            bytes: body.clone(),
            tokens,
        }],
    }
}

/// Steps for a stream: paced, and broken off where the trouble says.
fn steps(chunks: Vec<Chunk>, format: &dyn WireFormat, behaviour: &Behaviour, trouble: Trouble) -> Vec<Step> {
    if trouble == Trouble::Stall {
        return vec![Step::Stall];
    }
    let broken = matches!(trouble, Trouble::Cut | Trouble::ErrorInside);
    let last = chunks.iter().rposition(|chunk| chunk.content).unwrap_or_default();
    let mut steps = Vec::with_capacity(chunks.len());
    let mut sent = 0;
    for (index, chunk) in chunks.into_iter().enumerate() {
        if broken && (index > last || (chunk.content && sent >= behaviour.cut_after_chunks)) {
            break;
        }
        if chunk.content {
            if sent > 0 && chunk.paced && behaviour.chunk_delay_ms > 0 {
                steps.push(Step::Wait(Duration::from_millis(behaviour.chunk_delay_ms)));
            }
            sent += 1;
        }
        steps.push(Step::Send {
            bytes: chunk.bytes,
            tokens: chunk.tokens,
        });
    }
    match trouble {
        Trouble::Cut => steps.push(Step::Break),
        Trouble::ErrorInside => steps.push(Step::Send {
            bytes: format.error_inside(&ApiError::scripted(500)),
            tokens: 0,
        }),
        _ => {}
    }
    steps
}

/// An error as a response, its body as the format writes it.
pub(crate) fn error_response(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A bearer key. Any will do, but for the one that stands for a revoked key.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<(), ApiError> {
    let key = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    known_key(
        key,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
         auth (i.e. Authorization: Bearer YOUR_KEY).",
    )
}

/// A key in a header of its own.
pub(crate) fn key_in(headers: &HeaderMap, name: &str) -> Result<(), ApiError> {
    let key = headers.get(name).and_then(|value| value.to_str().ok());
    known_key(key, "x-api-key header is required")
}

fn known_key(key: Option<&str>, missing: &str) -> Result<(), ApiError> {
    match key {
        None | Some("") => Err(ApiError::key(missing)),
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
