//! The simulator's HTTP surface: the provider's own endpoints, and those by which a test reads and steers it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    Script, Simulator, anthropic,
    bedrock::Converse,
    call::{self, error_response},
    error::ApiError,
    format::WireFormat,
    gemini::{self, Gemini},
    openai, responses,
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
        .route("/openai/deployments/{deployment}/chat/completions", post(deployed))
        .route("/v1/responses", post(responses))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1beta/models/{*call}", post(gemini))
        .route(
            "/v1/projects/{project}/locations/{location}/publishers/google/models/{*call}",
            post(gemini),
        )
        .route("/model/{model}/converse", post(converse))
        .route("/model/{model}/converse-stream", post(converse_stream))
        .route("/v1/models", get(models))
        .route("/v1/organization/usage/completions", get(usage))
        .route("/stats", get(stats))
        .route("/calls", get(calls))
        .route("/script", get(script).put(replace_script))
        .route("/reset", post(reset))
        .fallback(unknown_url)
        .method_not_allowed_fallback(wrong_method)
        .with_state(App { simulator, stop })
}

async fn completions(state: State<App>, request: Request) -> Response {
    serve(state, request, openai::Chat { deployment: None }).await
}

async fn deployed(state: State<App>, Path(deployment): Path<String>, request: Request) -> Response {
    let deployment = Some(deployment);
    serve(state, request, openai::Chat { deployment }).await
}

async fn responses(state: State<App>, request: Request) -> Response {
    serve(state, request, responses::Responses).await
}

async fn embeddings(state: State<App>, request: Request) -> Response {
    serve(state, request, responses::Embeddings).await
}

async fn messages(state: State<App>, request: Request) -> Response {
    serve(state, request, anthropic::Messages { count_only: false }).await
}

async fn count_tokens(state: State<App>, request: Request) -> Response {
    serve(state, request, anthropic::Messages { count_only: true }).await
}

async fn converse(state: State<App>, Path(model): Path<String>, request: Request) -> Response {
    serve(state, request, Converse { model, stream: false }).await
}

async fn converse_stream(state: State<App>, Path(model): Path<String>, request: Request) -> Response {
    serve(state, request, Converse { model, stream: true }).await
}

/// `models/{model}:{method}`; a stream must ask for events.
async fn gemini(state: State<App>, Path(parts): Path<BTreeMap<String, String>>, request: Request) -> Response {
    let call = parts.get("call").map(String::as_str).unwrap_or_default();
    let (model, method) = call.rsplit_once(':').unwrap_or_default();
    let Some(method) = gemini::Method::named(method) else {
        return unknown_url(request.method().clone(), request.uri().clone()).await;
    };
    let as_events = request.uri().query() == Some("alt=sse");
    if method == gemini::Method::Stream && !as_events {
        return refuse(&ApiError::invalid("The simulator streams with alt=sse alone."));
    }
    let model = model.to_owned();
    serve(state, request, Gemini { model, method }).await
}

/// Reads the request and answers it in its format.
async fn serve(State(app): State<App>, request: Request, format: impl WireFormat) -> Response {
    let (parts, body) = request.into_parts();
    let body = match read(body, CHAT_LIMIT).await {
        Ok(body) => body,
        // Not a call: the request never arrived in full.
        Err(error) => return format.error(&error),
    };
    let id = parts.headers.get("x-client-request-id");
    let id = id.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let ticket = app.simulator.open(id, app.stop);
    call::answer(&app.simulator, Arc::new(format), &parts.headers, body, ticket).await
}

fn refuse(error: &ApiError) -> Response {
    error_response(error.status, &error.body())
}

async fn models(State(app): State<App>, request: Request) -> Response {
    if let Err(error) = call::bearer(request.headers()) {
        return refuse(&error);
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
                return refuse(&ApiError::invalid(
                    "The only query parameter is since=N, a call's number.",
                ));
            }
        }
    }
    answer(&app.simulator.calls_since(since))
}

/// What was billed, by UTC day and model, in the form of OpenAI's usage API; of the calls that the log still has.
async fn usage(State(app): State<App>) -> Response {
    const DAY: u64 = 24 * 3600;
    let mut days: BTreeMap<u64, BTreeMap<String, (u64, u64, u64)>> = BTreeMap::new();
    for call in app.simulator.calls_since(0) {
        if call.input_tokens + call.output_tokens > 0 {
            let day = days.entry(call.started_ms / 1000 / DAY * DAY).or_default();
            let sums = day.entry(call.model.unwrap_or_default()).or_default();
            *sums = (sums.0 + 1, sums.1 + call.input_tokens, sums.2 + call.output_tokens);
        }
    }
    let bucket = |(start, models): (u64, BTreeMap<String, (u64, u64, u64)>)| {
        let result = |(model, (requests, input, output))| {
            json!({ "object": "organization.usage.completions.result", "model": model, "num_model_requests": requests,
                    "input_tokens": input, "output_tokens": output })
        };
        let results: Vec<_> = models.into_iter().map(result).collect();
        json!({ "object": "bucket", "start_time": start, "end_time": start + DAY, "results": results })
    };
    let data: Vec<_> = days.into_iter().map(bucket).collect();
    answer(&json!({ "object": "page", "data": data, "has_more": false, "next_page": null }))
}

async fn script(State(app): State<App>) -> Response {
    answer(&app.simulator.active().script)
}

async fn replace_script(State(app): State<App>, body: Body) -> Response {
    let bytes = match read(body, SCRIPT_LIMIT).await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(&error),
    };
    match Script::from_json(&bytes) {
        Ok(script) => {
            let response = answer(&script);
            app.simulator.set_script(script);
            response
        }
        Err(error) => refuse(&ApiError::invalid(error.to_string()).code("invalid_script")),
    }
}

async fn reset(State(app): State<App>) -> Response {
    app.simulator.reset();
    answer(&app.simulator.stats())
}

async fn unknown_url(method: Method, uri: Uri) -> Response {
    refuse(
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
    refuse(
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
        Err(_) => refuse(&ApiError::scripted(500)),
    }
}
