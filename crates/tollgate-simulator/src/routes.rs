//! The simulator's HTTP surface: the provider's own endpoints, and those by which a test reads and steers it.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Script, Simulator,
    chat::{self, error_response},
    error::ApiError,
};

/// Largest chat request, in bytes.
const CHAT_LIMIT: usize = 64 * 1024 * 1024;
/// Largest script, in bytes.
const SCRIPT_LIMIT: usize = 1024 * 1024;
/// When the models were made: a fixed date, in Unix seconds.
const MODEL_CREATED: u64 = 1_715_367_049;

#[derive(Clone)]
struct App {
    simulator: Simulator,
    stop: CancellationToken,
}

/// All routes.
pub(crate) fn router(simulator: Simulator, stop: CancellationToken) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/stats", get(stats))
        .route("/calls", get(calls))
        .route("/script", get(script).put(replace_script))
        .route("/reset", post(reset))
        .fallback(unknown_url)
        .method_not_allowed_fallback(wrong_method)
        .with_state(App { simulator, stop })
}

async fn completions(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match read(body, CHAT_LIMIT).await {
        Ok(body) => body,
        // Not a call: the request never arrived in full.
        Err(error) => return error_response(&error),
    };
    let id = parts.headers.get("x-client-request-id");
    let id = id.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let ticket = app.simulator.open(id, app.stop);
    chat::answer(&app.simulator, &parts.headers, body, ticket).await
}

async fn models(State(app): State<App>, request: Request) -> Response {
    if let Err(error) = chat::authenticate(request.headers()) {
        return error_response(&error);
    }
    let active = app.simulator.active();
    let data: Vec<Value> = active
        .script
        .models
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": MODEL_CREATED, "owned_by": "simulator"}))
        .collect();
    answer(&json!({"object": "list", "data": data}))
}

async fn stats(State(app): State<App>) -> Response {
    answer(&app.simulator.stats())
}

async fn calls(State(app): State<App>, uri: Uri) -> Response {
    let mut since = 0;
    for pair in uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        match pair.split_once('=').map(|(key, value)| (key, value.parse::<u64>())) {
            Some(("since", Ok(number))) => since = number,
            _ => {
                return error_response(&ApiError::invalid(
                    "The only query parameter is since=N, a call's number.",
                ));
            }
        }
    }
    answer(&app.simulator.calls_since(since))
}

async fn script(State(app): State<App>) -> Response {
    answer(&app.simulator.active().script)
}

async fn replace_script(State(app): State<App>, body: Body) -> Response {
    let bytes = match read(body, SCRIPT_LIMIT).await {
        Ok(bytes) => bytes,
        Err(error) => return error_response(&error),
    };
    match Script::from_json(&bytes) {
        Ok(script) => {
            let response = answer(&script);
            app.simulator.set_script(script);
            response
        }
        Err(error) => error_response(&ApiError::invalid(error.to_string()).code("invalid_script")),
    }
}

async fn reset(State(app): State<App>) -> Response {
    app.simulator.reset();
    answer(&app.simulator.stats())
}

async fn unknown_url(method: Method, uri: Uri) -> Response {
    error_response(
        &ApiError::invalid(format!(
            "Unknown request URL: {method} {}. Please check the URL for typos, or see the docs at \
             https://platform.openai.com/docs/api-reference/.",
            uri.path()
        ))
        .with_status(404)
        .code("unknown_url"),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    error_response(
        &ApiError::invalid(format!("Not allowed to {method} on {}.", uri.path()))
            .with_status(405)
            .code("method_not_supported"),
    )
}

/// Reads a body in full.
async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit).await.map_err(|_| {
        ApiError::invalid(format!(
            "The request body could not be read in full; its limit is {limit} bytes."
        ))
        .with_status(StatusCode::PAYLOAD_TOO_LARGE.as_u16())
    })
}

fn answer(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(_) => error_response(&ApiError::scripted(500)),
    }
}
