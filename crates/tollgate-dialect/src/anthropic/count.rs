//! Counting a conversation's tokens: `POST /v1/messages/count_tokens`.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::{RequestView, chat::ChatRequest};

use super::{client, provider, write};
use crate::{
    BadAnswer, Invalid, Refused,
    names::Names,
    side::{Losses, Target},
};

/// Fields of a request that are no part of what is counted.
const NOT_COUNTED: [&str; 8] = [
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "metadata",
    "service_tier",
];

/// Reads what stages need to know.
pub(crate) fn view_count(body: &[u8]) -> Result<RequestView, Invalid> {
    let view = client::head(body)?;
    Ok(RequestView {
        stream: false,
        max_output_tokens: Some(0),
        answers: 1,
        ..view
    })
}

/// A client's own bytes for the provider's `model`.
pub(crate) fn count_body(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    provider::readdress(body, model)
}

/// The request in this dialect.
pub(crate) fn write_count(request: &ChatRequest, target: &Target<'_>, losses: &mut Losses) -> Result<Bytes, Refused> {
    let mut body = write::request(request, target, &mut Names::default(), losses)?.body;
    NOT_COUNTED.iter().for_each(|name| drop(body.shift_remove(*name)));
    Ok(Value::Object(body).to_string().into())
}

/// What the answer says.
pub(crate) fn read_count(body: &[u8]) -> Result<u64, BadAnswer> {
    let value: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
    value
        .get("input_tokens")
        .and_then(Value::as_u64)
        .ok_or(BadAnswer::Lacks("a count"))
}

/// The answer for a client.
pub(crate) fn count_answer(tokens: u64) -> Bytes {
    json!({ "input_tokens": tokens }).to_string().into()
}
