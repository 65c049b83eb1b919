//! The HTTP doors: one for each dialect, all to the same desk.
//!
//! Each door is also under a prefix of its own (`/openai/v1`, `/anthropic/v1`, `/gemini/v1beta`), for clients that are
//! given one address and add the provider's name themselves.

mod answer;
mod batches;
mod body;
mod credential;
mod door;
mod error;
mod jobs;
mod models;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate_types::{Dialect, ErrorCode, Failure, RequestId};
use tracing::Instrument;

use crate::{
    Error,
    batches::BatchDesk,
    connection::{self, HeadLimits},
    jobs::JobDesk,
};
use error::error_response;
pub(crate) use jobs::JobBody;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Anthropic's SDKs look here.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// What LangChain keeps of a gateway in the metadata of a run.
const GATEWAY_METADATA: HeaderName = HeaderName::from_static("x-langsmith-gateway-metadata");

pub(crate) async fn serve(
    listener: TcpListener,
    desk: JobDesk,
    batches: BatchDesk,
    limits: HeadLimits,
    stop: CancellationToken,
) -> Result<(), Error> {
    let routes = routes()
        .with_state(desk.clone())
        .merge(jobs::routes(desk))
        .merge(batches::routes(batches))
        .method_not_allowed_fallback(|request| lost(request, 405, "the method is not allowed here"))
        .fallback(|request| lost(request, 404, "there is nothing at this path"))
        .layer(middleware::from_fn(identify));
    Ok(connection::serve(listener, routes, limits, stop).await?)
}

fn routes() -> Router<JobDesk> {
    let openai = Router::new()
        .route("/chat/completions", post(door::chat_completions))
        .route("/responses", post(door::responses))
        .route(
            "/responses/{*id}",
            get(door::kept_response)
                .delete(door::kept_response)
                .post(door::kept_response),
        )
        .route("/embeddings", post(door::embeddings));
    let anthropic = Router::new()
        .route("/messages", post(door::messages))
        .route("/messages/count_tokens", post(door::count_tokens));
    let models = Router::new()
        .route("/models", get(models::list))
        .route("/models/{*model}", get(models::one).post(door::gemini));
    let vertex = "/projects/{project}/locations/{location}/publishers/google/models/{*call}";
    let gemini = models.clone().route(vertex, post(door::gemini));
    let all = openai.clone().merge(anthropic.clone()).merge(gemini.clone());
    Router::new()
        .nest("/v1", all)
        .nest("/v1beta", gemini.clone())
        .nest("/v1beta1", gemini.clone())
        .nest("/openai/v1", openai.merge(models.clone()))
        .nest("/anthropic/v1", anthropic.merge(models))
        .nest("/gemini/v1beta", gemini.clone())
        .nest("/gemini/v1", gemini)
}

/// The dialect in which a client at this path expects errors.
fn dialect_at(path: &str) -> Dialect {
    if path.starts_with("/anthropic") || path.starts_with("/v1/messages") {
        Dialect::Anthropic
    } else if path.starts_with("/gemini") || path.starts_with("/v1beta") || path.contains("/publishers/google/") {
        Dialect::Gemini
    } else {
        Dialect::OpenaiChat
    }
}

async fn lost(request: Request, status: u16, message: &'static str) -> Response {
    let dialect = dialect_at(request.uri().path());
    body::dismiss(request.into_body()).await;
    error_response(
        dialect,
        &Failure::new(ErrorCode::InvalidRequest, message).into(),
        Some(status),
    )
}

/// Gives every request its id before anything can go wrong with it.
async fn identify(mut request: Request, next: Next) -> Response {
    let request_id = RequestId::generate();
    request.extensions_mut().insert(request_id);
    let path = request.uri().path();
    let under_prefix = ["/openai/", "/anthropic/", "/gemini/"]
        .iter()
        .any(|prefix| path.starts_with(prefix));
    let dialect = dialect_at(path);
    let span = tracing::info_span!("request", otel.kind = "server", request.id = %request_id);
    tollgate_telemetry::adopt_http(&span, request.headers());
    let mut response = next.run(request).instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        if dialect == Dialect::Anthropic {
            headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
        }
        headers.insert(REQUEST_ID, id);
    }
    if under_prefix
        && let Ok(metadata) = HeaderValue::from_str(&format!(r#"{{"gateway":"tollgate","request_id":"{request_id}"}}"#))
    {
        headers.insert(GATEWAY_METADATA, metadata);
    }
    response
}
