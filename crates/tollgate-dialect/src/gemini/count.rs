//! Counting a conversation's tokens: `models/{model}:countTokens`.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::{RequestView, chat::ChatRequest};

use super::{client, field, write};
use crate::{
    BadAnswer, Invalid, Refused,
    names::Names,
    path_segment,
    side::{Losses, Target},
};

/// Reads what stages need to know: contents, or a whole request for content in which they are.
pub(crate) fn view_count(body: &[u8], model: &str) -> Result<RequestView, Invalid> {
    let request: Value = serde_json::from_slice(body).map_err(|_| Invalid::new("the request body is not JSON"))?;
    let view = match field(&request, "generateContentRequest") {
        Some(inner) => client::view(inner.to_string().as_bytes(), model, false)?,
        None => client::view(body, model, false)?,
    };
    Ok(RequestView {
        max_output_tokens: Some(0),
        answers: 1,
        ..view
    })
}

/// Path of the call.
pub(crate) fn path_count(model: &str) -> String {
    format!("models/{}:countTokens", path_segment(model))
}

/// The request in this dialect, with instructions and tools, which bare contents would leave out.
pub(crate) fn write_count(request: &ChatRequest, target: &Target<'_>, losses: &mut Losses) -> Result<Bytes, Refused> {
    let mut body = write::request(request, target, &mut Names::default(), losses)?;
    body.insert("model".to_owned(), format!("models/{}", target.model).into());
    Ok(json!({ "generateContentRequest": body }).to_string().into())
}

/// What the answer says.
pub(crate) fn read_count(body: &[u8]) -> Result<u64, BadAnswer> {
    let value: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
    field(&value, "totalTokens")
        .and_then(Value::as_u64)
        .ok_or(BadAnswer::Lacks("a count"))
}

/// The answer for a client.
pub(crate) fn count_answer(tokens: u64) -> Bytes {
    json!({ "totalTokens": tokens }).to_string().into()
}
