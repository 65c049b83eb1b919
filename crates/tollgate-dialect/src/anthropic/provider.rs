//! Requests to a provider, and its answers.

use bytes::Bytes;
use serde_json::Value;
use tollgate_types::{ErrorCode, chat::ChatRequest};

use super::{reader::MessageReader, write};
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
    let mut names = Names::default();
    let written = write::request(request, target, &mut names, losses)?;
    let reader = MessageReader::new(names, written.answer_tool);
    Ok((Value::Object(written.body).to_string().into(), Box::new(reader)))
}

/// A client's own bytes for the provider's `model`: both speak this dialect. All else stays byte for byte.
pub(crate) fn readdress(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    let mut fields = Fields::read(body)?;
    fields.set("model", &model.into())?;
    fields.write()
}

/// A reader of the answer to a request that went through as it was.
pub(crate) fn reader() -> Box<dyn Reader> {
    Box::new(MessageReader::new(Names::default(), None))
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => reported(value.get("error").unwrap_or(&value)),
        Err(_) => ProviderError::unreadable(),
    }
}

/// The error that an `error` object tells of, in a body or in a stream.
pub(super) fn reported(error: &Value) -> ProviderError {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let (kind, message) = (text("type").unwrap_or_default(), text("message").unwrap_or_default());
    let lower = message.to_ascii_lowercase();
    let says = |words: &str| lower.contains(words);
    let means = if says("prompt is too long") || says("exceed context limit") || says("context window") {
        Some(ErrorCode::ContextLength)
    } else if says("content filtering policy") || says("content policy") {
        Some(ErrorCode::ContentPolicy)
    } else {
        match kind {
            "rate_limit_error" => Some(ErrorCode::ProviderRateLimited),
            "overloaded_error" | "api_error" => Some(ErrorCode::ProviderError),
            "timeout_error" => Some(ErrorCode::ProviderTimeout),
            "authentication_error" | "permission_error" | "billing_error" => Some(ErrorCode::ProviderAuth),
            _ => None,
        }
    };
    ProviderError::new(text("message"), Some(kind).filter(|kind| !kind.is_empty()), means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_known_for_what_they_are() {
        let means = |kind: &str, message: &str| {
            let body = serde_json::json!({ "type": "error", "error": { "type": kind, "message": message } });
            error(body.to_string().as_bytes()).means
        };
        let long = "prompt is too long: 208310 tokens > 200000 maximum";
        assert_eq!(means("invalid_request_error", long), Some(ErrorCode::ContextLength));
        let sum = "input length and `max_tokens` exceed context limit: 1 + 2 > 3";
        assert_eq!(means("invalid_request_error", sum), Some(ErrorCode::ContextLength));
        assert_eq!(means("overloaded_error", "Overloaded"), Some(ErrorCode::ProviderError));
        assert_eq!(means("invalid_request_error", "x"), None);
    }
}
