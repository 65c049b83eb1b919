//! Requests to a provider, and its answers.

use bytes::Bytes;
use serde_json::Value;
use tollgate_types::{ErrorCode, chat::ChatRequest};

use super::{reader::ChatReader, write};
use crate::{
    ProviderError, Refused,
    names::Names,
    side::{Losses, Reader, Target},
};

/// The request in this dialect, and the reader of its answer.
pub(crate) fn write(
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    let mut names = Names::default();
    let body = write::request(request, target, &mut names, losses)?;
    Ok((body.to_string().into(), Box::new(ChatReader::new(names))))
}

/// A reader of the answer to a request that went through as it was.
pub(crate) fn reader() -> Box<dyn Reader> {
    Box::new(ChatReader::new(Names::default()))
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    match serde_json::from_slice::<Value>(body) {
        // Some servers put the error into a list, some have no `error` object at all.
        Ok(Value::Array(errors)) => errors.first().map_or_else(ProviderError::unreadable, said),
        Ok(value) => said(&value),
        Err(_) => ProviderError::unreadable(),
    }
}

/// The error that a 200 carries instead of an answer.
pub(super) fn error_within(body: &[u8]) -> Option<ProviderError> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value.get("error").filter(|error| !error.is_null()).map(reported)
}

fn said(value: &Value) -> ProviderError {
    reported(value.get("error").unwrap_or(value))
}

/// The error that an `error` object tells of, in a body or within a 200.
pub(super) fn reported(error: &Value) -> ProviderError {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let message = text("message").or_else(|| error.as_str());
    let inner = error.pointer("/innererror/code").and_then(Value::as_str);
    let code = text("code").or_else(|| text("type"));
    let means = means(code.unwrap_or_default(), message.unwrap_or_default())
        .or_else(|| means(inner.unwrap_or_default(), ""))
        .or_else(|| means(text("type").unwrap_or_default(), ""));
    ProviderError::new(message, code, means)
}

/// Codes as OpenAI, Azure and the servers that follow them write them; a prompt that is too long has no code with many.
fn means(code: &str, message: &str) -> Option<ErrorCode> {
    match code {
        "context_length_exceeded" => Some(ErrorCode::ContextLength),
        "content_policy_violation" | "content_filter" | "ResponsibleAIPolicyViolation" | "invalid_prompt" => {
            Some(ErrorCode::ContentPolicy)
        }
        "insufficient_quota" | "rate_limit_exceeded" | "rate_limit_error" | "tokens" | "requests" => {
            Some(ErrorCode::ProviderRateLimited)
        }
        "invalid_api_key" | "authentication_error" => Some(ErrorCode::ProviderAuth),
        "server_error" | "overloaded_error" | "engine_overloaded" => Some(ErrorCode::ProviderError),
        _ => {
            let message = message.to_ascii_lowercase();
            let says = |words: &[&str]| words.iter().all(|word| message.contains(word));
            let too_long = says(&["maximum context length"])
                || says(&["context", "exceed", "token"])
                || says(&["prompt is too long"])
                || says(&["exceeds the available context size"]);
            too_long.then_some(ErrorCode::ContextLength)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_known_for_what_they_are() {
        let means = |body: &str| error(body.as_bytes()).means;
        assert_eq!(
            means(r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#),
            Some(ErrorCode::ContextLength)
        );
        let vllm = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}"#;
        assert_eq!(means(vllm), Some(ErrorCode::ContextLength));
        let azure = r#"{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#;
        assert_eq!(means(azure), Some(ErrorCode::ContentPolicy));
        assert_eq!(
            means(r#"[{"error":{"message":"x","type":"server_error"}}]"#),
            Some(ErrorCode::ProviderError)
        );
        assert_eq!(means(r#"{"error":"nope"}"#), None);
        assert_eq!(error(b"<html>").message, "the provider gave no readable reason");
    }
}
