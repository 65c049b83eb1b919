//! OpenAI's Chat Completions.

mod request;
mod wire;

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::{
    answer::Answer,
    ask::Ask,
    call,
    error::ApiError,
    format::{Chunk, Frame, WireFormat, event},
    script::Behaviour,
};

/// `POST /v1/chat/completions`; `deployment` is the model that Azure's older paths name.
pub(crate) struct Chat {
    pub(crate) deployment: Option<String>,
}

impl WireFormat for Chat {
    fn name(&self) -> &'static str {
        "openai_chat"
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if headers.contains_key("api-key") {
            return call::key_in(headers, "api-key");
        }
        call::bearer(headers)
    }

    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError> {
        let mut body = body.clone();
        if let Some(deployment) = &self.deployment {
            body["model"] = deployment.clone().into();
        }
        request::validate(&body, models)
    }

    fn glance(&self, body: &Value) -> (Option<String>, bool) {
        let model = body.get("model").and_then(Value::as_str);
        let stream = body.get("stream").and_then(Value::as_bool);
        (model.map(str::to_owned), stream.unwrap_or(false))
    }

    fn whole(&self, frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes {
        wire::whole(frame, ask, answer, behaviour)
    }

    fn stream(&self, frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
        wire::stream(frame, ask, answer, behaviour)
    }

    fn error(&self, error: &ApiError) -> Response {
        call::error_response(error.status, &error.body())
    }

    fn error_inside(&self, error: &ApiError) -> Bytes {
        event(&error.body().to_string())
    }
}
