//! Validation of a chat request as the real service does it: strictly, field by field, unknown ones refused.
//!
//! Written from the service's own reference and its error texts, never from Tollgate's dialect crate, so that a
//! mistake there meets a refusal here.

mod messages;
mod tools;

use serde_json::Value;

use crate::{
    ask::{Ask, Form},
    check::{self, Object, empty_array, long_array, wrong_type},
    error::ApiError,
};

/// Every top-level field the service knows.
const FIELDS: [&str; 36] = [
    "model",
    "messages",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

const MOST_STOPS: usize = 4;

/// Checks a parsed body against the service's rules and this provider's models.
pub(crate) fn validate(body: &Value, models: &[String]) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    request.only(&FIELDS)?;
    if request.get("model").is_none() {
        return Err(ApiError::invalid("you must provide a model parameter"));
    }
    let model = request.string("model")?;
    if !models.iter().any(|known| known == model) {
        return Err(ApiError::invalid(format!(
            "The model `{model}` does not exist or you do not have access to it."
        ))
        .with_status(404)
        .code("model_not_found"));
    }
    let stream = request.maybe_bool("stream")?.unwrap_or(false);
    let include_usage = stream_options(&request, stream)?;
    sampling(&request)?;
    extras(&request)?;
    let service_tier = service_tier(&request)?;
    let limit = limit(&request)?;
    let stop = stops(&request)?;
    let tools = tools::read(&request)?;
    let format = tools::format(&request)?;

    request.required("messages")?;
    let list = request.maybe_filled_array("messages")?.map_or(&[][..], Vec::as_slice);
    let messages = messages::read(list)?;
    if format == Form::Object && !messages.says_json {
        return Err(ApiError::invalid(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        )
        .param("messages"));
    }
    let logprobs = request.maybe_bool("logprobs")?.unwrap_or(false);
    let top = request.maybe_integer("top_logprobs", 0, 20)?.unwrap_or(0);
    let effort = request.maybe_string("reasoning_effort")?;
    Ok(Ask {
        model: model.to_owned(),
        stream,
        include_usage,
        service_tier,
        n: request.maybe_integer("n", 1, 8)?.unwrap_or(1).unsigned_abs(),
        limit,
        stop,
        prompt: messages.last_user,
        input_tokens: messages.prompt_tokens,
        tools: tools.offered,
        forced: tools.forced,
        no_tools: tools.none,
        format,
        reasoning: effort.is_some_and(|effort| effort != "none"),
        logprobs: logprobs.then_some(top.unsigned_abs()),
        attachments: messages.attachments,
        results: messages.results,
    })
}

fn stream_options(request: &Object<'_>, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = request.get("stream_options") else {
        return Ok(false);
    };
    if !stream {
        return Err(
            ApiError::invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
                .param("stream_options"),
        );
    }
    let options = Object::of(value, "stream_options")?;
    options.only(&["include_usage", "include_obfuscation"])?;
    options.maybe_bool("include_obfuscation")?;
    Ok(options.maybe_bool("include_usage")?.unwrap_or(false))
}

/// The numbers that steer sampling; none of them changes the simulator's answer.
fn sampling(request: &Object<'_>) -> Result<(), ApiError> {
    request.maybe_decimal("temperature", 0.0, 2.0)?;
    request.maybe_decimal("top_p", 0.0, 1.0)?;
    request.maybe_decimal("frequency_penalty", -2.0, 2.0)?;
    request.maybe_decimal("presence_penalty", -2.0, 2.0)?;
    request.maybe_integer("seed", i64::MIN, i64::MAX)?;
    let logprobs = request.maybe_bool("logprobs")?.unwrap_or(false);
    if request.maybe_integer("top_logprobs", 0, 20)?.is_some() && !logprobs {
        return Err(
            ApiError::invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.")
                .param("top_logprobs"),
        );
    }
    if let Some(value) = request.get("logit_bias") {
        let bias = Object::of(value, "logit_bias")?;
        for key in bias.map.keys() {
            bias.maybe_decimal(key, -100.0, 100.0)?;
        }
    }
    Ok(())
}

/// As asked for; what is left to us is served as usual.
fn service_tier(request: &Object<'_>) -> Result<&'static str, ApiError> {
    let asked = request.maybe_choice("service_tier", &["auto", "default", "flex", "scale", "priority"])?;
    Ok(match asked {
        Some("flex") => "flex",
        Some("scale") => "scale",
        Some("priority") => "priority",
        _ => "default",
    })
}

/// The remaining fields, by their types.
fn extras(request: &Object<'_>) -> Result<(), ApiError> {
    for key in ["user", "safety_identifier", "prompt_cache_key"] {
        request.maybe_string(key)?;
    }
    request.maybe_bool("store")?;
    request.maybe_choice("prompt_cache_retention", &["in_memory", "in-memory", "24h"])?;
    request.maybe_choice("verbosity", &["low", "medium", "high"])?;
    let efforts = ["none", "minimal", "low", "medium", "high", "xhigh"];
    request.maybe_choice("reasoning_effort", &efforts)?;
    for key in ["audio", "prediction", "web_search_options"] {
        if let Some(value) = request.get(key) {
            Object::of(value, key)?;
        }
    }
    request.maybe_filled_array("functions")?;
    for value in request.maybe_filled_array("modalities")?.into_iter().flatten() {
        match value.as_str() {
            Some("text" | "audio") => {}
            Some(other) => return Err(check::not_supported("modalities", other, &["text", "audio"])),
            None => return Err(wrong_type("modalities", "a string", value)),
        }
    }
    if let Some(value) = request.get("metadata") {
        let metadata = Object::of(value, "metadata")?;
        if metadata.map.len() > 16 {
            return Err(ApiError::invalid(
                "Invalid 'metadata': too many properties. Expected an object with at most 16 properties.",
            )
            .param("metadata")
            .code("object_above_max_properties"));
        }
        for key in metadata.map.keys() {
            metadata.maybe_string(key)?;
        }
    }
    Ok(())
}

/// The limit on answer tokens, under either of its names but not both.
fn limit(request: &Object<'_>) -> Result<Option<u64>, ApiError> {
    let old = request.maybe_integer("max_tokens", 1, i64::MAX)?;
    let new = request.maybe_integer("max_completion_tokens", 1, i64::MAX)?;
    if old.is_some() && new.is_some() {
        return Err(ApiError::invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        )
        .code("invalid_parameter_combination"));
    }
    Ok(new.or(old).map(i64::unsigned_abs))
}

fn stops(request: &Object<'_>) -> Result<Vec<String>, ApiError> {
    match request.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) if list.is_empty() => Err(empty_array("stop")),
        Some(Value::Array(list)) if list.len() > MOST_STOPS => Err(long_array("stop", MOST_STOPS, list.len())),
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(index, value)| match value {
                Value::String(text) => Ok(text.clone()),
                other => Err(wrong_type(&format!("stop[{index}]"), "a string", other)),
            })
            .collect(),
        Some(other) => Err(wrong_type("stop", "one of a string or array of strings", other)),
    }
}

#[cfg(test)]
mod tests;
