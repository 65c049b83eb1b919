//! Requests to a provider, and its answers.
//!
//! Of a request's fields `user` alone is left out without a word: Bedrock has no place for it, and it changes no answer.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tollgate_types::chat::ChatRequest;

use super::{
    model::Model,
    read::ConverseReader,
    reasoning::{self, Plan},
    tools::{self, Form},
    turns,
    wire::{Body, Inference, OutputConfig},
};
use crate::{
    Invalid, ProviderError, Refused,
    names::Names,
    side::{Losses, Reader, Target},
};

/// Path of a call, below the base URL. The model's id, which may be an ARN with `:` and `/`, is one segment of it.
pub(crate) fn path(model: &str, stream: bool) -> String {
    let mut path = "model/".to_owned();
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path + if stream { "/converse-stream" } else { "/converse" }
}

/// The request in this dialect, and the reader of its answer.
pub(crate) fn write(
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    let model = Model::of(target.model);
    let mut names = Names::default();
    refuse_unsayable(request, losses)?;
    let plan = reasoning::plan(request, request.max_output_tokens.unwrap_or(u64::MAX), model, losses)?;
    let mut additional_model_request_fields = Map::new();
    let inference_config = inference(request, model, plan.on, losses)?;
    top_k(request, model, plan.on, &mut additional_model_request_fields, losses)?;
    let form = tools::form(request.response_format.as_ref(), model, losses)?;
    let tools = tools::write(request, model, &form, plan.on, &mut names, losses)?;
    let turns = turns::write(&request.messages, model, &mut names, losses)?;
    let own_fields = [
        ("thinking", plan.thinking.clone()),
        ("tool_choice", tools.claude_choice),
    ];
    for (name, field) in own_fields {
        additional_model_request_fields.extend(field.map(|field| (name.to_owned(), field)));
    }
    let body = Body {
        messages: turns.messages,
        system: turns.system,
        inference_config,
        tool_config: tools.config,
        additional_model_request_fields,
        // Only Claude tells which stop sequence was met, and only when asked.
        additional_model_response_field_paths: if model.is_claude() && !request.stop.is_empty() {
            &["/stop_sequence"]
        } else {
            &[]
        },
        output_config: output(form, &plan),
    };
    let bytes = serde_json::to_vec(&body).map_err(|_| Invalid::new("the request cannot be written as JSON"))?;
    let reader = ConverseReader::new(target.model, names, tools.answer);
    Ok((bytes.into(), Box::new(reader)))
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    super::error::error(body)
}

fn refuse_unsayable(request: &ChatRequest, losses: &mut Losses) -> Result<(), Refused> {
    let unsayable = [
        ("seed", request.seed.is_some()),
        (
            "presence_penalty",
            request.presence_penalty.is_some_and(|penalty| penalty != 0.0),
        ),
        (
            "frequency_penalty",
            request.frequency_penalty.is_some_and(|penalty| penalty != 0.0),
        ),
        ("logprobs", request.logprobs.is_some()),
    ];
    for (feature, _) in unsayable.into_iter().filter(|(_, asked)| *asked) {
        losses.cannot(feature)?;
    }
    Ok(())
}

fn inference<'a>(
    request: &'a ChatRequest,
    model: Model,
    thinking: bool,
    losses: &mut Losses,
) -> Result<Inference<'a>, Refused> {
    let fixed = thinking || model.has_fixed_sampling();
    let mut temperature = request.temperature;
    // One is what the model uses when nothing is said.
    if temperature.is_some_and(|temperature| temperature > 1.0 || (fixed && temperature != 1.0)) {
        losses.cannot("this temperature")?;
        temperature = None;
    }
    let mut top_p = request.top_p;
    let least = if model.has_fixed_sampling() { 0.99 } else { 0.95 };
    if top_p.is_some_and(|top_p| fixed && top_p < least) {
        losses.cannot("this top_p")?;
        top_p = None;
    }
    let mut stop_sequences = Vec::new();
    for (place, stop) in request.stop.iter().enumerate() {
        if stop.is_empty() || (model.is_claude() && stop.trim().is_empty()) {
            losses.cannot(format!("stop[{place}]: white space"))?;
        } else {
            stop_sequences.push(stop.as_str());
        }
    }
    Ok(Inference {
        max_tokens: request.max_output_tokens,
        temperature,
        top_p,
        stop_sequences,
    })
}

fn top_k(
    request: &ChatRequest,
    model: Model,
    thinking: bool,
    fields: &mut Map<String, Value>,
    losses: &mut Losses,
) -> Result<(), Refused> {
    match (request.top_k, model) {
        (None, _) => {}
        (Some(top_k), Model::Claude(..)) if !thinking && !model.has_fixed_sampling() => {
            fields.insert("top_k".to_owned(), top_k.into());
        }
        (Some(top_k), Model::Nova) => {
            fields.insert("inferenceConfig".to_owned(), json!({ "topK": top_k }));
        }
        (Some(_), _) => losses.cannot("top_k")?,
    }
    Ok(())
}

fn output<'a>(form: Form<'a>, plan: &Plan) -> Option<OutputConfig<'a>> {
    let text_format = match form {
        Form::Native(format) => Some(format),
        Form::Free | Form::Tool { .. } => None,
    };
    (text_format.is_some() || plan.effort.is_some()).then_some(OutputConfig {
        text_format,
        effort: plan.effort,
    })
}
