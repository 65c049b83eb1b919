//! Failures in OpenAI's shape, as its SDKs expect them.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tollgate_types::{ErrorCode, Failure};

use crate::reception::Rejection;

/// The `error` object of an answer or of an event in a stream.
pub(super) fn error_object(rejection: &Rejection) -> Value {
    let Failure { code, message, .. } = &rejection.failure;
    json!({ "error": {
        "message": message,
        "type": error_type(*code),
        "param": rejection.param,
        "code": error_code(*code),
    } })
}

/// The answer for a failure; `status` overrides the status of its code.
pub(super) fn error_response(rejection: &Rejection, status: Option<u16>) -> Response {
    let failure = &rejection.failure;
    let status = status.unwrap_or_else(|| status_of(failure));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (status, content_type, error_object(rejection).to_string()).into_response();
    if let Some(wait) = failure.retry_after_ms {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.div_ceil(1000)));
        headers.insert("retry-after-ms", HeaderValue::from(wait));
    }
    response
}

/// A provider's own status goes through, except where the client would take it for its own: our credentials, a redirect.
fn status_of(failure: &Failure) -> u16 {
    match (failure.code, failure.provider_status) {
        (
            ErrorCode::ProviderError
            | ErrorCode::ProviderRateLimited
            | ErrorCode::ProviderRefused
            | ErrorCode::ProviderTimeout,
            Some(status @ 400..=599),
        ) => status,
        (code, _) => code.http_status(),
    }
}

const fn error_type(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::ModelNotFound
        | ErrorCode::TooLarge
        | ErrorCode::Unauthenticated
        | ErrorCode::ProviderRefused => "invalid_request_error",
        ErrorCode::PermissionDenied | ErrorCode::PolicyDenied => "permission_error",
        ErrorCode::RateLimited | ErrorCode::ProviderRateLimited | ErrorCode::ProviderBusy => "rate_limit_error",
        _ => "server_error",
    }
}

/// OpenAI's own code where it has one that SDKs and users look for, else ours.
const fn error_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthenticated => "invalid_api_key",
        ErrorCode::RateLimited | ErrorCode::ProviderRateLimited => "rate_limit_exceeded",
        code => code.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_answer_in_openais_shape() {
        for code in ErrorCode::ALL {
            let rejection = Rejection::from(Failure::new(*code, "text").retry_after_ms(1));
            let object = error_object(&rejection);
            assert!(object["error"]["type"].is_string() && object["error"]["code"].is_string());
            let response = error_response(&rejection, None);
            assert_eq!(response.status().as_u16(), code.http_status());
            assert_eq!(response.headers()["retry-after"], "1");
        }
    }

    #[test]
    fn a_providers_status_goes_through_but_not_its_opinion_of_our_key() {
        let failed = |code, status| Failure {
            provider_status: Some(status),
            ..Failure::new(code, "")
        };
        assert_eq!(status_of(&failed(ErrorCode::ProviderError, 529)), 529);
        assert_eq!(status_of(&failed(ErrorCode::ProviderRefused, 422)), 422);
        assert_eq!(status_of(&failed(ErrorCode::ProviderError, 302)), 502);
        assert_eq!(status_of(&failed(ErrorCode::ProviderAuth, 401)), 502);
    }
}
