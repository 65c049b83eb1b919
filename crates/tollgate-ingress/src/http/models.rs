//! Lists of models, in the shape of whoever asks.

use std::sync::Arc;

use axum::{
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tollgate_config::Entry;
use tollgate_types::{Dialect, ErrorCode, Failure};

use super::{credential::credential, dialect_at, error::error_response};
use crate::{jobs::JobDesk, reception::Rejection};

/// OpenAI's clients and Anthropic's ask at the same path; only the latter say which version they speak.
fn asker(headers: &HeaderMap, uri: &Uri) -> Dialect {
    if headers.contains_key("anthropic-version") {
        Dialect::Anthropic
    } else {
        dialect_at(uri.path())
    }
}

fn object(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::Anthropic => {
            json!({ "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z" })
        }
        Dialect::Gemini => json!({
            "name": format!("models/{name}"),
            "displayName": name,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
        _ => json!({ "id": name, "object": "model", "created": 0, "owned_by": "tollgate" }),
    }
}

async fn entry_of(desk: &JobDesk, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Entry>, Failure> {
    let secret = credential(headers, uri)?;
    desk.reception.authenticate_secret(&secret).await
}

pub(super) async fn list(State(desk): State<JobDesk>, headers: HeaderMap, OriginalUri(uri): OriginalUri) -> Response {
    let dialect = asker(&headers, &uri);
    let entry = match entry_of(&desk, &headers, &uri).await {
        Ok(entry) => entry,
        Err(failure) => return error_response(dialect, &failure.into(), None),
    };
    let models: Vec<_> = desk
        .reception
        .models(&entry)
        .map(|name| object(dialect, name))
        .collect();
    let id = |model: Option<&Value>| model.map(|model| model["id"].clone());
    let body = match dialect {
        Dialect::Anthropic => {
            let (first, last) = (id(models.first()), id(models.last()));
            json!({ "data": models, "has_more": false, "first_id": first, "last_id": last })
        }
        Dialect::Gemini => json!({ "models": models }),
        _ => json!({ "object": "list", "data": models }),
    };
    respond(&body)
}

pub(super) async fn one(
    State(desk): State<JobDesk>,
    Path(model): Path<String>,
    headers: HeaderMap,
    OriginalUri(uri): OriginalUri,
) -> Response {
    let dialect = asker(&headers, &uri);
    match entry_of(&desk, &headers, &uri).await {
        Ok(entry) if desk.reception.models(&entry).any(|name| name == model) => respond(&object(dialect, &model)),
        Ok(_) => {
            let message = "the model does not exist or you do not have access";
            let rejection = Rejection {
                failure: Failure::new(ErrorCode::ModelNotFound, message),
                param: Some("model".to_owned()),
            };
            error_response(dialect, &rejection, None)
        }
        Err(failure) => error_response(dialect, &failure.into(), None),
    }
}

fn respond(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
