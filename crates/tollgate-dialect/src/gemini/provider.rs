//! Requests to a provider, and its answers.

use bytes::Bytes;
use serde_json::Value;
use tollgate_types::{ErrorCode, chat::ChatRequest};

use super::{reader::ContentReader, write};
use crate::{
    ProviderError, Refused,
    names::Names,
    path_segment,
    side::{Losses, Reader, Target},
};

/// Path of a call, below the base URL.
pub(crate) fn path(model: &str, stream: bool) -> String {
    let model = path_segment(model);
    if stream {
        format!("models/{model}:streamGenerateContent?alt=sse")
    } else {
        format!("models/{model}:generateContent")
    }
}

/// The request in this dialect, and the reader of its answer.
pub(crate) fn write(
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    let mut names = Names::default();
    let body = write::request(request, target, &mut names, losses)?;
    // The service cannot be told to make one call at a time, so we keep the first.
    let one_call = request.parallel_tool_calls == Some(false);
    let reader = ContentReader::new(names, target.model, one_call);
    Ok((Value::Object(body).to_string().into(), Box::new(reader)))
}

/// A reader of the answer to a request that went through as it was.
pub(crate) fn reader() -> Box<dyn Reader> {
    Box::new(ContentReader::new(Names::default(), "", false))
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(list)) => list.first().map_or_else(ProviderError::unreadable, inner),
        Ok(value) => inner(&value),
        Err(_) => ProviderError::unreadable(),
    }
}

fn inner(value: &Value) -> ProviderError {
    reported(value.get("error").unwrap_or(value))
}

/// The error that an `error` object tells of, in a body or in a stream.
pub(super) fn reported(error: &Value) -> ProviderError {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let status = text("status").unwrap_or_default();
    let lower = text("message").unwrap_or_default().to_ascii_lowercase();
    let says = |words: &str| lower.contains(words);
    let too_long = says("token count") && says("exceeds") || says("exceeds the maximum number of tokens");
    let means = match status {
        _ if too_long => Some(ErrorCode::ContextLength),
        _ if says("content policy") || says("blocked by") => Some(ErrorCode::ContentPolicy),
        _ if says("api key not valid") || says("api key expired") => Some(ErrorCode::ProviderAuth),
        "RESOURCE_EXHAUSTED" => Some(ErrorCode::ProviderRateLimited),
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => Some(ErrorCode::ProviderAuth),
        "UNAVAILABLE" | "INTERNAL" | "ABORTED" => Some(ErrorCode::ProviderError),
        "DEADLINE_EXCEEDED" => Some(ErrorCode::ProviderTimeout),
        _ => None,
    };
    ProviderError::new(text("message"), Some(status).filter(|status| !status.is_empty()), means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_cannot_lead_to_another_path() {
        assert_eq!(
            path("gemini-2.5-flash", false),
            "models/gemini-2.5-flash:generateContent"
        );
        assert_eq!(
            path("../x?y#z", true),
            "models/..%2Fx%3Fy%23z:streamGenerateContent?alt=sse"
        );
    }

    #[test]
    fn refusals_are_known_for_what_they_are() {
        let means = |message: &str, status: &str| {
            let body = serde_json::json!([{ "error": { "code": 400, "message": message, "status": status } }]);
            error(body.to_string().as_bytes()).means
        };
        let long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
        assert_eq!(means(long, "INVALID_ARGUMENT"), Some(ErrorCode::ContextLength));
        assert_eq!(
            means("API key not valid.", "INVALID_ARGUMENT"),
            Some(ErrorCode::ProviderAuth)
        );
        assert_eq!(means("x", "RESOURCE_EXHAUSTED"), Some(ErrorCode::ProviderRateLimited));
        assert_eq!(means("x", "INVALID_ARGUMENT"), None);
    }
}
