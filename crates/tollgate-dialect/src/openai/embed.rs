//! Embeddings: `POST /v1/embeddings`.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use tollgate_types::{
    Operation, RequestView, Usage,
    embed::{EmbedInput, EmbedRequest, EmbedResponse},
};

use super::reader::WireUsage;
use crate::{BadAnswer, Invalid, scan::first_look, splice::Fields};

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// Reads what stages need to know.
pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    let head: Head<'_> = serde_json::from_slice(body)
        .map_err(|_| Invalid::new("the request body must be a JSON object whose `model` is a string"))?;
    let model = match head.model {
        Some(model) if !model.is_empty() => model.into_owned(),
        _ => return Err(Invalid::at("model", "you must provide a model parameter")),
    };
    if head.input.is_none() {
        return Err(Invalid::at("input", "you must provide an input parameter"));
    }
    Ok(RequestView {
        operation: Operation::Embed,
        model,
        stream: false,
        include_usage: true,
        estimated_input_tokens: scan.estimated_tokens(),
        max_output_tokens: Some(0),
        answers: 1,
    })
}

/// The whole request, and whether its client wants vectors in base64.
pub(crate) fn read(body: &[u8]) -> Result<(EmbedRequest, bool), Invalid> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Invalid::new("the request body must be a JSON object"))?;
    let mut take = |name: &str| fields.shift_remove(name).filter(|value| !value.is_null());
    let in_base64 = match take("encoding_format") {
        None => false,
        Some(Value::String(format)) if format == "float" => false,
        Some(Value::String(format)) if format == "base64" => true,
        Some(_) => {
            return Err(Invalid::at(
                "encoding_format",
                "`encoding_format` must be float or base64",
            ));
        }
    };
    let dimensions = match take("dimensions") {
        None => None,
        Some(value) => match value.as_u64() {
            Some(length @ 1..) => Some(length),
            _ => {
                return Err(Invalid::at(
                    "dimensions",
                    "`dimensions` must be a positive whole number",
                ));
            }
        },
    };
    let request = EmbedRequest {
        model: take("model")
            .and_then(|model| model.as_str().map(str::to_owned))
            .unwrap_or_default(),
        input: inputs(take("input"))?,
        dimensions,
        user: take("user").and_then(|user| user.as_str().map(str::to_owned)),
        beyond: Vec::new(),
    };
    let beyond = fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, _)| name)
        .collect();
    Ok((EmbedRequest { beyond, ..request }, in_base64))
}

fn inputs(value: Option<Value>) -> Result<Vec<EmbedInput>, Invalid> {
    let wrong = || Invalid::at("input", "`input` must be a text, an array of texts, or of token ids");
    let value = value.ok_or_else(wrong)?;
    let is_tokens = |value: &Value| value.as_array().is_some_and(|ids| ids.iter().all(Value::is_u64));
    let inputs = match value {
        Value::String(text) => vec![EmbedInput::Text(text)],
        ids if is_tokens(&ids) && ids.as_array().is_some_and(|ids| !ids.is_empty()) => {
            vec![EmbedInput::Tokens(serde_json::from_value(ids).map_err(|_| wrong())?)]
        }
        Value::Array(entries) if !entries.is_empty() => {
            serde_json::from_value(Value::Array(entries)).map_err(|_| wrong())?
        }
        _ => return Err(wrong()),
    };
    Ok(inputs)
}

/// A client's own bytes for the provider's `model`.
pub(crate) fn readdress(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    let mut fields = Fields::read(body)?;
    fields.set("model", &model.into())?;
    fields.write()
}

/// The request in this dialect.
pub(crate) fn write(request: &EmbedRequest, model: &str) -> Bytes {
    let mut body = json!({ "model": model, "input": request.input, "encoding_format": "float" });
    if let Some(dimensions) = request.dimensions {
        body["dimensions"] = dimensions.into();
    }
    if let Some(user) = &request.user {
        body["user"] = user.clone().into();
    }
    body.to_string().into()
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    data: Vec<WireVector>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireVector {
    #[serde(default)]
    index: u64,
    embedding: WireNumbers,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireNumbers {
    Plain(Vec<f32>),
    Base64(String),
}

/// What an answer says. Its usage has no completion tokens.
pub(crate) fn read_answer(body: &[u8]) -> Result<EmbedResponse, BadAnswer> {
    let mut wire: Wire = serde_json::from_slice(body).map_err(|_| match super::provider::error_within(body) {
        Some(said) => BadAnswer::Reported(said),
        None => BadAnswer::Lacks("vectors"),
    })?;
    wire.data.sort_by_key(|vector| vector.index);
    let vectors = wire
        .data
        .into_iter()
        .map(|vector| numbers(vector.embedding))
        .collect::<Result<_, _>>()?;
    Ok(EmbedResponse {
        model: wire.model.unwrap_or_default(),
        vectors,
        usage: wire.usage.and_then(WireUsage::read_input),
    })
}

fn numbers(wire: WireNumbers) -> Result<Vec<f32>, BadAnswer> {
    match wire {
        WireNumbers::Plain(numbers) => Ok(numbers),
        WireNumbers::Base64(text) => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| BadAnswer::Lacks("a readable vector"))?;
            let (numbers, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(BadAnswer::Lacks("a whole vector"));
            }
            Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
    }
}

/// The answer for a client of this dialect.
pub(crate) fn write_answer(answer: &EmbedResponse, in_base64: bool) -> Bytes {
    let vector = |numbers: &Vec<f32>| -> Value {
        if in_base64 {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        } else {
            numbers.iter().map(|number| json!(number)).collect()
        }
    };
    let data: Vec<_> = answer
        .vectors
        .iter()
        .enumerate()
        .map(|(index, numbers)| json!({ "object": "embedding", "index": index, "embedding": vector(numbers) }))
        .collect();
    let Usage { input_tokens, .. } = answer.usage.unwrap_or_default();
    json!({
        "object": "list",
        "data": data,
        "model": answer.model,
        "usage": { "prompt_tokens": input_tokens, "total_tokens": input_tokens },
    })
    .to_string()
    .into()
}
