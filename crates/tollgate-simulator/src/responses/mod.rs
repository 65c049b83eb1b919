//! OpenAI's Responses, and its embeddings.

mod request;
mod wire;

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    ask::Ask,
    call, embed,
    error::ApiError,
    format::{Chunk, Frame, WireFormat, named_event},
    script::Behaviour,
};

/// What every encrypted reasoning of the simulator is.
pub(crate) const ENCRYPTED: &str = "cmVzcG9uc2VzIHNpbXVsYXRvciByZWFzb25pbmc=";

/// `POST /v1/responses`.
pub(crate) struct Responses;

impl WireFormat for Responses {
    fn name(&self) -> &'static str {
        "openai_responses"
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        call::bearer(headers)
    }

    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError> {
        request::validate(body, models)
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
        let data = json!({
            "type": "error",
            "code": error.code.unwrap_or(error.kind),
            "message": error.message,
            "param": error.param,
            "sequence_number": 99,
        });
        named_event("error", &data)
    }
}

/// `POST /v1/embeddings`.
pub(crate) struct Embeddings;

impl WireFormat for Embeddings {
    fn name(&self) -> &'static str {
        "openai_embeddings"
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        call::bearer(headers)
    }

    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError> {
        request::embeddings(body, models)
    }

    fn glance(&self, body: &Value) -> (Option<String>, bool) {
        (body.get("model").and_then(Value::as_str).map(str::to_owned), false)
    }

    fn whole(&self, _: &Frame, ask: &Ask, _: &Answer, _: &Behaviour) -> Bytes {
        let data: Vec<_> = embed::vectors(ask)
            .into_iter()
            .enumerate()
            .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": numbers(ask, vector)}))
            .collect();
        let usage = json!({"prompt_tokens": ask.input_tokens, "total_tokens": ask.input_tokens});
        json!({"object": "list", "data": data, "model": ask.model, "usage": usage})
            .to_string()
            .into()
    }

    fn stream(&self, _: &Frame, _: &Ask, _: &Answer, _: &Behaviour) -> Vec<Chunk> {
        Vec::new()
    }

    fn has_no_answer(&self) -> bool {
        true
    }

    fn error(&self, error: &ApiError) -> Response {
        call::error_response(error.status, &error.body())
    }

    fn error_inside(&self, _: &ApiError) -> Bytes {
        Bytes::new()
    }
}

/// As the request wants them: `include_usage` stands for base64.
fn numbers(ask: &Ask, vector: Vec<f32>) -> Value {
    if !ask.include_usage {
        return json!(vector);
    }
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = three.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let index = (all >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= three.len() {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    text.into()
}
