//! Errors, in the body of an answer and within a stream.

use serde_json::Value;
use tollgate_types::ErrorCode;

use crate::ProviderError;

/// What the body of an error says. Its type is mostly in a header, whose place the status takes.
pub(super) fn error(body: &[u8]) -> ProviderError {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return ProviderError::unreadable();
    };
    // What no service feels responsible for is answered inside an envelope.
    let body = body.get("Output").unwrap_or(&body);
    let field = |names: &[&str]| names.iter().find_map(|name| body.get(name).and_then(Value::as_str));
    let message = field(&["message", "Message", "originalMessage"]);
    let code = field(&["__type", "code", "Code"]).map(short);
    ProviderError::new(
        message,
        code,
        meaning(code.unwrap_or_default(), message.unwrap_or_default()),
    )
}

/// A type without its namespace, nor the address of its description.
fn short(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default()
}

/// What an error of this type, with this text, means.
pub(super) fn meaning(code: &str, message: &str) -> Option<ErrorCode> {
    let code = code.to_ascii_lowercase();
    let message = message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    let is = |names: &[&str]| names.iter().any(|name| code.contains(name));
    if is(&["throttling", "toomanyrequests", "servicequota", "modelnotready"]) {
        Some(ErrorCode::ProviderRateLimited)
    } else if is(&[
        "accessdenied",
        "unrecognizedclient",
        "expiredtoken",
        "invalidsignature",
        "missingauthentication",
        "incompletesignature",
    ]) {
        Some(ErrorCode::ProviderAuth)
    } else if is(&["timeout"]) {
        Some(ErrorCode::ProviderTimeout)
    } else if is(&["internal", "serviceunavailable", "modelstreamerror", "modelerror"]) {
        Some(ErrorCode::ProviderError)
    } else if says(&[
        "input is too long",
        "prompt is too long",
        "too many input tokens",
        "context length",
        "context window",
    ]) || (says(&["exceeds the maximum", "exceed the maximum"]) && says(&["input", "prompt", "context"]))
    {
        Some(ErrorCode::ContextLength)
    } else if says(&[
        "content filter",
        "content policy",
        "blocked by guardrail",
        "guardrail intervened",
    ]) {
        Some(ErrorCode::ContentPolicy)
    } else {
        None
    }
}

/// What an exception within a stream says.
pub(super) fn exception(kind: &str, payload: &[u8]) -> ProviderError {
    let mut error = error(payload);
    error.means = meaning(kind, &error.message);
    error.code = Some(kind.to_owned());
    error
}
