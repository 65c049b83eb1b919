//! Amazon Bedrock's Converse and ConverseStream.

mod request;
mod wire;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    ask::Ask,
    call,
    error::ApiError,
    format::{Chunk, Frame, WireFormat},
    script::Behaviour,
    trouble::ErrorKind,
};

/// What every signature of the simulator's reasoning is.
pub(crate) const SIGNATURE: &str = "YmVkcm9jayBzaW11bGF0b3Igc2lnbmF0dXJl";

/// `POST /model/{model}/converse`, or `/converse-stream`.
pub(crate) struct Converse {
    pub(crate) model: String,
    pub(crate) stream: bool,
}

impl WireFormat for Converse {
    fn name(&self) -> &'static str {
        "bedrock"
    }

    /// A signature has the form of one; whether it is right is for a test that knows the secret.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if !shown.starts_with("AWS4-HMAC-SHA256 ") {
            return call::bearer(headers);
        }
        let whole = ["Credential=", "/bedrock/aws4_request", "SignedHeaders=", "Signature="];
        if whole.iter().all(|part| shown.contains(part)) && headers.contains_key("x-amz-date") {
            return Ok(());
        }
        let message = "The request signature we calculated does not match the signature you provided.";
        Err(ApiError::key(message).with_status(403))
    }

    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError> {
        if !models.contains(&self.model) {
            return Err(ApiError::invalid("The provided model identifier is invalid."));
        }
        Ok(Ask {
            service_tier: "",
            model: self.model.clone(),
            stream: self.stream,
            ..request::converse(body)?
        })
    }

    fn glance(&self, _: &Value) -> (Option<String>, bool) {
        (Some(self.model.clone()), self.stream)
    }

    fn whole(&self, frame: &Frame, _: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes {
        wire::whole(frame, answer, behaviour)
    }

    fn stream(&self, frame: &Frame, _: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
        wire::stream(frame, answer, behaviour)
    }

    fn error(&self, error: &ApiError) -> Response {
        let status = if error.status == 401 { 403 } else { error.status };
        let mut response = call::error_response(status, &json!({"message": message(error)}));
        response
            .headers_mut()
            .insert("x-amzn-errortype", HeaderValue::from_static(kind(status)));
        response
    }

    fn error_inside(&self, error: &ApiError) -> Bytes {
        wire::exception("internalServerException", &json!({"message": message(error)}))
    }

    fn error_whole(&self, error: &ApiError) -> Bytes {
        json!({"message": message(error)}).to_string().into()
    }

    fn stream_type(&self) -> &'static str {
        "application/vnd.amazon.eventstream"
    }
}

fn message(error: &ApiError) -> &str {
    match error.means {
        Some(ErrorKind::ContextLength) => "Input is too long for requested model.",
        Some(ErrorKind::ContentPolicy) => "The content was blocked by a content policy.",
        Some(ErrorKind::Overloaded) => "The service is unavailable, try again.",
        Some(ErrorKind::Quota) => "Too many tokens, please wait before trying again.",
        None => &error.message,
    }
}

const fn kind(status: u16) -> &'static str {
    match status {
        400 => "ValidationException",
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        _ => "InternalServerException",
    }
}
