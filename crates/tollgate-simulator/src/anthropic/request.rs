//! Validation of a request as the real service does it: unknown fields refused, turns alternating, tools answered.

use serde_json::Value;

use super::content::Conversation;
use crate::{
    ask::{Ask, Form, Tool},
    check::{Object, wrong_type},
    error::ApiError,
    tokens,
};

const FIELDS: [&str; 18] = [
    "model",
    "messages",
    "max_tokens",
    "system",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "tools",
    "tool_choice",
    "thinking",
    "service_tier",
    "container",
    "output_config",
    "inference_geo",
    "cache_control",
];
/// What may be counted.
const COUNTED: [&str; 8] = [
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
];
const SMALLEST_BUDGET: i64 = 1024;

/// Checks a parsed body against the service's rules and this provider's models.
pub(super) fn validate(body: &Value, models: &[String], count_only: bool) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    request.only(if count_only { &COUNTED } else { &FIELDS })?;
    let model = request.string("model")?;
    if !models.iter().any(|known| known == model) {
        return Err(ApiError::invalid(format!("model: {model}")).with_status(404));
    }
    let limit = match request.maybe_integer("max_tokens", 1, 1_000_000)? {
        None if !count_only => return Err(ApiError::invalid("max_tokens: Field required")),
        limit => limit,
    };
    request.maybe_decimal("temperature", 0.0, 1.0)?;
    request.maybe_decimal("top_p", 0.0, 1.0)?;
    request.maybe_integer("top_k", 0, 1_000_000)?;
    request.maybe_choice("service_tier", &["auto", "standard_only"])?;
    if let Some(metadata) = request.get("metadata") {
        let metadata = Object::of(metadata, "metadata")?;
        metadata.only(&["user_id"])?;
        metadata.maybe_string("user_id")?;
    }
    let thinking = thinking(&request, limit)?;
    let (tools, forced, no_tools) = tools(&request, thinking)?;
    let mut conversation = Conversation::default();
    conversation.system(request.get("system"))?;
    let turns = request.required("messages")?;
    let Value::Array(turns) = turns else {
        return Err(wrong_type("messages", "a valid list", turns));
    };
    conversation.turns(turns, thinking)?;
    if conversation.has_tools && tools.is_empty() {
        let message = "Requests which include `tool_use` or `tool_result` blocks must define tools";
        return Err(ApiError::invalid(message));
    }
    for tool in &tools {
        conversation.input_tokens += tokens::count(&tool.name);
    }
    Ok(Ask {
        service_tier: "",
        model: model.to_owned(),
        stream: request.maybe_bool("stream")?.unwrap_or(false),
        include_usage: true,
        prompt: conversation.prompt,
        input_tokens: conversation.input_tokens,
        n: 1,
        limit: limit.map(i64::unsigned_abs),
        stop: stops(&request)?,
        tools,
        forced,
        no_tools,
        format: form(&request)?,
        reasoning: thinking,
        logprobs: None,
        attachments: conversation.attachments,
        results: conversation.results,
    })
}

fn stops(request: &Object<'_>) -> Result<Vec<String>, ApiError> {
    let list = request.maybe_array("stop_sequences")?.map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|value| match value.as_str() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
            Some(_) => Err(ApiError::invalid(
                "stop_sequences: each stop sequence must contain non-whitespace",
            )),
            None => Err(wrong_type("stop_sequences", "a valid string", value)),
        })
        .collect()
}

/// Whether reasoning is on.
fn thinking(request: &Object<'_>, limit: Option<i64>) -> Result<bool, ApiError> {
    let Some(value) = request.get("thinking") else {
        return Ok(false);
    };
    let thinking = Object::of(value, "thinking")?;
    match thinking.choice("type", &["enabled", "disabled", "adaptive"])? {
        "disabled" => {
            thinking.only(&["type"])?;
            return Ok(false);
        }
        "adaptive" => thinking.only(&["type", "display"])?,
        _ => {
            thinking.only(&["type", "budget_tokens", "display"])?;
            let budget = thinking.maybe_integer("budget_tokens", SMALLEST_BUDGET, i64::MAX)?;
            let Some(budget) = budget else {
                return Err(ApiError::invalid("thinking.enabled.budget_tokens: Field required"));
            };
            if limit.is_some_and(|limit| budget >= limit) {
                return Err(ApiError::invalid(
                    "`max_tokens` must be greater than `thinking.budget_tokens`.",
                ));
            }
        }
    }
    if request
        .get("temperature")
        .is_some_and(|value| value.as_f64() != Some(1.0))
    {
        return Err(ApiError::invalid(
            "`temperature` may only be set to 1 when thinking is enabled.",
        ));
    }
    if request.get("top_k").is_some() {
        return Err(ApiError::invalid("`top_k` must be unset when thinking is enabled."));
    }
    Ok(true)
}

type Tools = (Vec<Tool>, Option<Tool>, bool);

fn tools(request: &Object<'_>, thinking: bool) -> Result<Tools, ApiError> {
    let list = request.maybe_array("tools")?.map_or(&[][..], Vec::as_slice);
    let mut offered = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("tools.{index}");
        let tool = Object::of(value, &path)?;
        tool.only(&["type", "name", "description", "input_schema", "cache_control", "strict"])?;
        tool.maybe_choice("type", &["custom"])?;
        let name = tool.string("name")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
            let message = format!("{path}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'");
            return Err(ApiError::invalid(message));
        }
        tool.maybe_string("description")?;
        let schema = tool.required("input_schema")?;
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(ApiError::invalid(format!(
                "{path}.custom.input_schema.type: Field required"
            )));
        }
        offered.push(Tool {
            name: name.to_owned(),
            parameters: Some(schema.clone()),
        });
    }
    let Some(value) = request.get("tool_choice") else {
        return Ok((offered, None, false));
    };
    if offered.is_empty() {
        return Err(ApiError::invalid("tool_choice: tools must be provided"));
    }
    let choice = Object::of(value, "tool_choice")?;
    let kind = choice.choice("type", &["auto", "any", "tool", "none"])?;
    choice.only(&["type", "name", "disable_parallel_tool_use"])?;
    choice.maybe_bool("disable_parallel_tool_use")?;
    if thinking && matches!(kind, "any" | "tool") {
        return Err(ApiError::invalid(
            "Thinking may not be enabled when tool_choice forces tool use.",
        ));
    }
    let forced = match kind {
        "any" => offered.first().cloned(),
        "tool" => {
            let name = choice.string("name")?;
            let found = offered.iter().find(|tool| tool.name == name).cloned();
            Some(found.ok_or_else(|| ApiError::invalid(format!("Tool '{name}' not found in provided tools")))?)
        }
        _ => None,
    };
    Ok((offered, forced, kind == "none"))
}

fn form(request: &Object<'_>) -> Result<Form, ApiError> {
    let Some(value) = request.get("output_config") else {
        return Ok(Form::Text);
    };
    let config = Object::of(value, "output_config")?;
    config.only(&["effort", "format"])?;
    config.maybe_choice("effort", &["low", "medium", "high", "xhigh", "max"])?;
    let Some(value) = config.get("format") else {
        return Ok(Form::Text);
    };
    let format = Object::of(value, "output_config.format")?;
    format.only(&["type", "schema"])?;
    format.choice("type", &["json_schema"])?;
    let schema = format.required("schema")?;
    closed(schema)?;
    Ok(Form::Schema(schema.clone()))
}

/// Every object of a schema must say that it has no more than its properties.
fn closed(schema: &Value) -> Result<(), ApiError> {
    match schema {
        Value::Object(fields) => {
            if fields.get("type").is_some_and(|kind| kind == "object")
                && fields.get("additionalProperties") != Some(&Value::Bool(false))
            {
                let message = "output_config.format.schema: For 'object' type, 'additionalProperties' must be \
                               explicitly set to false";
                return Err(ApiError::invalid(message));
            }
            fields.values().try_for_each(closed)
        }
        Value::Array(items) => items.iter().try_for_each(closed),
        _ => Ok(()),
    }
}
