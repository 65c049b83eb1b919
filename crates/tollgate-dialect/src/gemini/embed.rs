//! Embeddings: `models/{model}:batchEmbedContents`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_types::embed::{EmbedInput, EmbedRequest, EmbedResponse};

use super::provider::reported;
use crate::{BadAnswer, Refused, path_segment, side::Losses};

/// Path of the call.
pub(crate) fn path_embed(model: &str) -> String {
    format!("models/{}:batchEmbedContents", path_segment(model))
}

/// The request in this dialect. The user's id, a hint, is left out.
pub(crate) fn write_embed(request: &EmbedRequest, model: &str, losses: &mut Losses) -> Result<Bytes, Refused> {
    let mut requests = Vec::with_capacity(request.input.len());
    for input in &request.input {
        let EmbedInput::Text(text) = input else {
            losses.cannot("input as token ids")?;
            continue;
        };
        let mut one = json!({ "model": format!("models/{model}"), "content": { "parts": [{ "text": text }] } });
        if let Some(dimensions) = request.dimensions {
            one["outputDimensionality"] = dimensions.into();
        }
        requests.push(one);
    }
    Ok(json!({ "requests": requests }).to_string().into())
}

#[derive(Deserialize)]
struct Wire {
    embeddings: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    values: Vec<f32>,
}

/// What an answer says. The service tells no usage.
pub(crate) fn read_embed(body: &[u8]) -> Result<EmbedResponse, BadAnswer> {
    let value: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
    if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
        return Err(BadAnswer::Reported(reported(error)));
    }
    let wire: Wire = serde_json::from_value(value).map_err(|_| BadAnswer::Lacks("vectors"))?;
    Ok(EmbedResponse {
        model: String::new(),
        vectors: wire.embeddings.into_iter().map(|vector| vector.values).collect(),
        usage: None,
    })
}
