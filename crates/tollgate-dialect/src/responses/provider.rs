//! Requests to a provider, and its answers.

use bytes::Bytes;
use serde_json::Value;
use tollgate_types::{ErrorCode, chat::ChatRequest};

use super::{reader::ResponseReader, request};
use crate::{
    Invalid, ProviderError, Refused,
    names::Names,
    side::{Losses, Reader, Target},
    splice::Fields,
};

/// The request in this dialect, and the reader of its answer.
pub(crate) fn write(
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    let (body, names) = request::body(request, target, losses)?;
    let body = serde_json::to_vec(&body).map_err(|_| Invalid::new("the request cannot be written as JSON"))?;
    Ok((body.into(), Box::new(ResponseReader::translated(names))))
}

/// A client's own bytes for the provider's `model`: both speak this dialect. All else stays byte for byte.
pub(crate) fn readdress(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    let mut fields = Fields::read(body)?;
    fields.set("model", &model.into())?;
    fields.write()
}

/// A reader of the answer to a request that went through as it was.
pub(crate) fn reader() -> Box<dyn Reader> {
    Box::new(ResponseReader::new(Names::default()))
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => reported(value.get("error").unwrap_or(&value)),
        Err(_) => ProviderError::unreadable(),
    }
}

/// The error that an object with a message, and perhaps a code and a type, tells of.
pub(super) fn reported(error: &Value) -> ProviderError {
    let text = |name: &str| error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let message = text("message").or_else(|| error.as_str());
    let (code, kind) = (text("code"), text("type").filter(|kind| *kind != "error"));
    let means = [code, kind].into_iter().flatten().find_map(means);
    let means = means.or_else(|| message.is_some_and(too_long).then_some(ErrorCode::ContextLength));
    ProviderError::new(message, code.or(kind), means)
}

fn means(code: &str) -> Option<ErrorCode> {
    Some(match code {
        "context_length_exceeded" => ErrorCode::ContextLength,
        "content_policy_violation"
        | "content_filter"
        | "invalid_prompt"
        | "bio_policy"
        | "cyber_policy_violation"
        | "misalignment_policy_violation"
        | "image_content_policy_violation" => ErrorCode::ContentPolicy,
        "insufficient_quota" | "rate_limit_exceeded" | "rate_limit_error" | "tokens" | "requests" => {
            ErrorCode::ProviderRateLimited
        }
        "invalid_api_key" | "authentication_error" => ErrorCode::ProviderAuth,
        "server_error" | "overloaded_error" | "server_is_overloaded" | "slow_down" | "vector_store_timeout" => {
            ErrorCode::ProviderError
        }
        _ => return None,
    })
}

/// Servers other than OpenAI's have no code for it.
fn too_long(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("maximum context length") || message.contains("exceeds the context window")
}
