//! Anthropic's Messages, and its count of tokens.

mod content;
mod request;
mod wire;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    ask::Ask,
    call,
    error::ApiError,
    format::{Chunk, Frame, WireFormat, named_event},
    script::Behaviour,
    trouble::ErrorKind,
};

/// What every signature of the simulator's reasoning is; any other is refused, as the service refuses one it did not make.
pub(crate) const SIGNATURE: &str = "c2lnbmVkIGJ5IHRoZSBzaW11bGF0b3I=";

/// `POST /v1/messages`, or `/v1/messages/count_tokens`.
pub(crate) struct Messages {
    pub(crate) count_only: bool,
}

impl WireFormat for Messages {
    fn name(&self) -> &'static str {
        if self.count_only {
            "anthropic_count"
        } else {
            "anthropic"
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if headers.contains_key(header::AUTHORIZATION) {
            call::bearer(headers)?;
        } else {
            call::key_in(headers, "x-api-key")?;
        }
        let is_date = |version: &str| version.len() == 10 && version.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        match headers
            .get("anthropic-version")
            .and_then(|version| version.to_str().ok())
        {
            Some(version) if is_date(version) => Ok(()),
            Some(_) => Err(ApiError::invalid("anthropic-version: is not a valid version")),
            None => Err(ApiError::invalid("anthropic-version: header is required")),
        }
    }

    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError> {
        request::validate(body, models, self.count_only)
    }

    fn glance(&self, body: &Value) -> (Option<String>, bool) {
        let model = body.get("model").and_then(Value::as_str);
        let stream = body.get("stream").and_then(Value::as_bool);
        (model.map(str::to_owned), stream.unwrap_or(false))
    }

    fn whole(&self, frame: &Frame, ask: &Ask, answer: &Answer, _: &Behaviour) -> Bytes {
        if self.count_only {
            return json!({"input_tokens": ask.input_tokens}).to_string().into();
        }
        wire::whole(frame, ask, answer)
    }

    fn stream(&self, frame: &Frame, ask: &Ask, answer: &Answer, _: &Behaviour) -> Vec<Chunk> {
        wire::stream(frame, ask, answer)
    }

    fn is_free(&self) -> bool {
        self.count_only
    }

    fn error(&self, error: &ApiError) -> Response {
        let status = match error.means {
            Some(ErrorKind::Overloaded) => 529,
            _ => error.status,
        };
        call::error_response(status, &body(error, status))
    }

    fn error_inside(&self, error: &ApiError) -> Bytes {
        named_event("error", &body(error, error.status))
    }

    fn error_whole(&self, error: &ApiError) -> Bytes {
        body(error, error.status).to_string().into()
    }
}

fn body(error: &ApiError, status: u16) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 | 503 => "overloaded_error",
        status if status < 500 => "invalid_request_error",
        _ => "api_error",
    };
    let message = match error.means {
        Some(ErrorKind::ContextLength) => "prompt is too long: 208310 tokens > 200000 maximum",
        Some(ErrorKind::ContentPolicy) => "Output blocked by content filtering policy",
        Some(ErrorKind::Overloaded) => "Overloaded",
        Some(ErrorKind::Quota) => "Your credit balance is too low to access the Anthropic API.",
        None => error.message.as_str(),
    };
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_sim"})
}
