//! Failures in the shape that each dialect's clients expect.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tollgate_types::{Dialect, ErrorCode, Failure};

use crate::reception::Rejection;

/// Anthropic's status for an overload.
const OVERLOADED: u16 = 529;

/// The answer for a failure; `status` overrides the status of its code.
pub(super) fn error_response(dialect: Dialect, rejection: &Rejection, status: Option<u16>) -> Response {
    let failure = &rejection.failure;
    let status = status.unwrap_or_else(|| status_of(dialect, failure));
    let body = error_object(dialect, rejection, status);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (status, content_type, body.to_string()).into_response();
    if let Some(wait) = failure.retry_after_ms {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.div_ceil(1000)));
        headers.insert("retry-after-ms", HeaderValue::from(wait));
    }
    response
}

/// The last event of a stream that failed.
pub(super) fn error_event(dialect: Dialect, rejection: &Rejection) -> Value {
    let mut object = error_object(dialect, rejection, status_of(dialect, &rejection.failure));
    if dialect == Dialect::OpenaiResponses {
        // The event as its reference has it, and the object in which its SDKs look for an error within any stream.
        let error = object["error"].clone();
        object["type"] = "error".into();
        object["code"] = error["code"].clone();
        object["message"] = error["message"].clone();
        object["param"] = error["param"].clone();
    }
    object
}

fn error_object(dialect: Dialect, rejection: &Rejection, status: u16) -> Value {
    let Failure {
        code,
        message,
        retry_after_ms,
        ..
    } = &rejection.failure;
    match dialect {
        Dialect::Anthropic => json!({ "type": "error", "error": {
            "type": anthropic_type(*code, status),
            "message": anthropic_message(*code, message),
            "code": code.as_str(),
        } }),
        Dialect::Gemini => {
            let mut details = vec![json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": code.as_str(),
                "domain": "tollgate",
            })];
            details.extend(retry_after_ms.map(|wait| {
                let delay = format!("{}.{:03}s", wait / 1000, wait % 1000);
                json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay })
            }));
            json!({ "error": {
                "code": status,
                "message": message,
                "status": google_status(status),
                "details": details,
            } })
        }
        Dialect::OpenaiChat | Dialect::OpenaiResponses | Dialect::Bedrock | Dialect::Native => json!({ "error": {
            "message": message,
            "type": openai_type(*code),
            "param": rejection.param,
            "code": openai_code(*code),
        } }),
    }
}

/// A provider's own status goes through, except where the client would take it for its own: our credentials, a redirect.
fn status_of(dialect: Dialect, failure: &Failure) -> u16 {
    match (failure.code, failure.provider_status) {
        (
            ErrorCode::ProviderError
            | ErrorCode::ProviderRateLimited
            | ErrorCode::ProviderRefused
            | ErrorCode::ProviderTimeout,
            Some(status @ 400..=599),
        ) => status,
        (ErrorCode::ContextLength | ErrorCode::ContentPolicy, Some(status @ 400..=499)) => status,
        (ErrorCode::Saturated, _) if dialect == Dialect::Anthropic => OVERLOADED,
        (code, _) => code.http_status(),
    }
}

const fn openai_type(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::ModelNotFound
        | ErrorCode::TooLarge
        | ErrorCode::Unauthenticated
        | ErrorCode::ContextLength
        | ErrorCode::ContentPolicy
        | ErrorCode::Unsupported
        | ErrorCode::ProviderRefused => "invalid_request_error",
        ErrorCode::PermissionDenied | ErrorCode::PolicyDenied => "permission_error",
        ErrorCode::RateLimited | ErrorCode::ProviderRateLimited | ErrorCode::ProviderBusy => "rate_limit_error",
        _ => "server_error",
    }
}

/// OpenAI's own code where it has one that SDKs and users look for, else ours.
const fn openai_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthenticated => "invalid_api_key",
        ErrorCode::RateLimited | ErrorCode::ProviderRateLimited => "rate_limit_exceeded",
        ErrorCode::ContentPolicy => "content_policy_violation",
        ErrorCode::Unsupported => "unsupported_parameter",
        code => code.as_str(),
    }
}

/// As Anthropic's "Errors" page pairs them with statuses.
const fn anthropic_type(code: ErrorCode, status: u16) -> &'static str {
    match (code, status) {
        (ErrorCode::Saturated | ErrorCode::ProviderBusy, _) | (_, OVERLOADED) => "overloaded_error",
        (_, 401) => "authentication_error",
        (_, 402) => "billing_error",
        (_, 403) => "permission_error",
        (_, 404) => "not_found_error",
        (_, 413) => "request_too_large",
        (_, 429) => "rate_limit_error",
        (_, 408 | 504) => "timeout_error",
        (_, 400..=499) => "invalid_request_error",
        _ => "api_error",
    }
}

/// Agents make their conversation shorter when they read these words.
fn anthropic_message(code: ErrorCode, message: &str) -> String {
    const WORDS: &str = "prompt is too long";
    if code == ErrorCode::ContextLength && !message.contains(WORDS) {
        return format!("{WORDS}: {message}");
    }
    message.to_owned()
}

/// As Google's "Errors" (AIP-193) pairs them with statuses.
const fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 | 405 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        400..=498 => "INVALID_ARGUMENT",
        502 | 503 | OVERLOADED => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_answer_in_every_shape() {
        for code in ErrorCode::ALL {
            let rejection = Rejection::from(Failure::new(*code, "text").retry_after_ms(1));
            for dialect in Dialect::ALL {
                let response = error_response(dialect, &rejection, None);
                let status = response.status().as_u16();
                assert!(status == code.http_status() || status == OVERLOADED);
                assert_eq!(response.headers()["retry-after"], "1");
                let object = error_object(dialect, &rejection, status);
                assert!(
                    object["error"]["message"]
                        .as_str()
                        .is_some_and(|said| said.ends_with("text"))
                );
                let kind = if dialect == Dialect::Gemini { "status" } else { "type" };
                assert!(object["error"][kind].is_string());
            }
        }
    }

    #[test]
    fn a_providers_status_goes_through_but_not_its_opinion_of_our_key() {
        let failed = |code, status| {
            let failure = Failure {
                provider_status: Some(status),
                ..Failure::new(code, "")
            };
            status_of(Dialect::OpenaiChat, &failure)
        };
        assert_eq!(failed(ErrorCode::ProviderError, 529), 529);
        assert_eq!(failed(ErrorCode::ProviderRefused, 422), 422);
        assert_eq!(failed(ErrorCode::ContextLength, 400), 400);
        assert_eq!(failed(ErrorCode::ProviderError, 302), 502);
        assert_eq!(failed(ErrorCode::ProviderAuth, 401), 502);
    }
}
