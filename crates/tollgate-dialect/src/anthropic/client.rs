//! Requests of clients.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, value::RawValue};
use tollgate_types::{
    Operation, RequestView,
    chat::{Cache, ChatRequest, Effort, Message, Reasoning, ResponseFormat, Role, Tool, ToolChoice},
};

use super::{turns, writer::MessageWriter};
use crate::{
    Invalid,
    scan::{first_look, typed},
    side::Writer,
};

/// Fields that change nothing in the answer. Another dialect is not told of them.
const HINTS: [&str; 5] = [
    "service_tier",
    "inference_geo",
    "cache_control",
    "diagnostics",
    "workspace_id",
];
/// The name under which a schema goes to dialects that want one.
const SCHEMA_NAME: &str = "answer";

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
}

/// Reads what stages need to know. What only the provider can judge is left to the provider.
pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    let view = head(body)?;
    if view.max_output_tokens.is_none_or(|limit| limit == 0) {
        return Err(Invalid::at(
            "max_tokens",
            "max_tokens: a positive whole number is required",
        ));
    }
    Ok(view)
}

/// The same of a request that is only to be counted.
pub(super) fn head(body: &[u8]) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    let head: Head<'_> = serde_json::from_slice(body)
        .map_err(|_| Invalid::new("the request body must be a JSON object whose `model` is a string"))?;
    let model = match head.model {
        Some(model) if !model.is_empty() => model.into_owned(),
        _ => return Err(Invalid::at("model", "model: Field required")),
    };
    let messages = head
        .messages
        .and_then(|raw| serde_json::from_str::<Vec<IgnoredAny>>(raw.get()).ok());
    if messages.is_none_or(|messages| messages.is_empty()) {
        return Err(Invalid::at("messages", "messages: at least one message is required"));
    }
    Ok(RequestView {
        operation: Operation::Chat,
        model,
        stream: typed::<bool>(head.stream, "stream", "true or false")?.unwrap_or_default(),
        include_usage: true,
        estimated_input_tokens: scan.estimated_tokens(),
        max_output_tokens: typed::<u64>(head.max_tokens, "max_tokens", "a positive whole number")?,
        answers: 1,
    })
}

/// Reads the whole request.
pub(crate) fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Invalid::new("the request body must be a JSON object"))?;
    HINTS.iter().for_each(|hint| drop(fields.shift_remove(*hint)));
    let mut beyond = Vec::new();
    let mut messages: Vec<Message> = Vec::new();
    if let Some(system) = take(&mut fields, "system") {
        messages.push(Message::new(Role::System, turns::text_blocks(system, "system")?));
    }
    match take(&mut fields, "messages") {
        Some(Value::Array(all)) => messages.extend(turns::read_all(all, &mut beyond)?),
        _ => return Err(Invalid::at("messages", "messages: Input should be a valid list")),
    }
    let (tool_choice, parallel_tool_calls) = tool_choice(take(&mut fields, "tool_choice"))?;
    let (effort, response_format) = output(&mut fields)?;
    let metadata = take(&mut fields, "metadata");
    let request = ChatRequest {
        model: text(take(&mut fields, "model")).unwrap_or_default(),
        messages,
        tools: tools(take(&mut fields, "tools"), &mut beyond)?,
        tool_choice,
        parallel_tool_calls,
        response_format,
        max_output_tokens: whole(&mut fields, "max_tokens")?,
        temperature: number(&mut fields, "temperature")?,
        top_p: number(&mut fields, "top_p")?,
        top_k: whole(&mut fields, "top_k")?,
        presence_penalty: None,
        frequency_penalty: None,
        stop: stop(take(&mut fields, "stop_sequences"))?,
        seed: None,
        reasoning: reasoning(take(&mut fields, "thinking"), effort)?,
        logprobs: None,
        user: metadata.and_then(|metadata| text(metadata.get("user_id").cloned())),
        beyond: Vec::new(),
        stream: take(&mut fields, "stream") == Some(Value::Bool(true)),
    };
    beyond.extend(
        fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name),
    );
    Ok(ChatRequest { beyond, ..request })
}

/// A writer of the answer to `request`, streamed if it asks for that.
pub(crate) fn writer(request: &ChatRequest) -> Box<dyn Writer> {
    Box::new(MessageWriter::new(&request.model))
}

pub(super) fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.shift_remove(name).filter(|value| !value.is_null())
}

pub(super) fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The mark of what is to be cached.
pub(super) fn cache(fields: &mut Map<String, Value>) -> Option<Cache> {
    let marker = take(fields, "cache_control")?;
    Some(Cache {
        ttl: marker.get("ttl").and_then(Value::as_str).map(str::to_owned),
    })
}

fn number(fields: &mut Map<String, Value>, name: &str) -> Result<Option<f64>, Invalid> {
    take(fields, name)
        .map(|value| {
            value
                .as_f64()
                .ok_or_else(|| Invalid::at(name, format!("{name}: Input should be a valid number")))
        })
        .transpose()
}

fn whole(fields: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, Invalid> {
    take(fields, name)
        .map(|value| {
            value
                .as_u64()
                .ok_or_else(|| Invalid::at(name, format!("{name}: Input should be a valid integer")))
        })
        .transpose()
}

fn stop(value: Option<Value>) -> Result<Vec<String>, Invalid> {
    let wrong = || {
        Invalid::at(
            "stop_sequences",
            "stop_sequences: Input should be a valid list of strings",
        )
    };
    match value {
        None => Ok(Vec::new()),
        Some(list) => serde_json::from_value(list).map_err(|_| wrong()),
    }
}

fn reasoning(value: Option<Value>, effort: Option<Effort>) -> Result<Option<Reasoning>, Invalid> {
    let Some(thinking) = value else {
        return Ok(effort.map(|effort| Reasoning {
            effort: Some(effort),
            ..Reasoning::default()
        }));
    };
    let shown = match thinking.get("display").and_then(Value::as_str) {
        Some("omitted") => Some(false),
        Some(_) => Some(true),
        None => None,
    };
    match thinking.get("type").and_then(Value::as_str) {
        Some("disabled" | "between_tools") => Ok(Some(Reasoning {
            effort: Some(Effort::None),
            ..Reasoning::default()
        })),
        Some("adaptive") => Ok(Some(Reasoning {
            effort,
            budget_tokens: None,
            shown,
        })),
        Some("enabled") => match thinking.get("budget_tokens").and_then(Value::as_u64) {
            Some(budget) => Ok(Some(Reasoning {
                effort,
                budget_tokens: Some(budget),
                shown,
            })),
            None => Err(Invalid::at(
                "thinking",
                "thinking.enabled.budget_tokens: Field required",
            )),
        },
        _ => Err(Invalid::at(
            "thinking",
            "thinking: type must be enabled, adaptive or disabled",
        )),
    }
}

/// `output_config`, and `output_format`, as its schema was first called.
fn output(fields: &mut Map<String, Value>) -> Result<(Option<Effort>, Option<ResponseFormat>), Invalid> {
    let mut config = take(fields, "output_config").unwrap_or_default();
    let effort = match config.get("effort").and_then(Value::as_str) {
        None => None,
        Some(effort) => Some(
            effort
                .parse()
                .map_err(|_| Invalid::at("output_config", "output_config.effort: unknown"))?,
        ),
    };
    let format = config
        .get_mut("format")
        .map(Value::take)
        .filter(|format| !format.is_null());
    let Some(mut format) = format.or_else(|| take(fields, "output_format")) else {
        return Ok((effort, None));
    };
    match format.get_mut("schema").map(Value::take) {
        Some(Value::Object(schema)) => Ok((
            effort,
            Some(ResponseFormat::JsonSchema {
                name: SCHEMA_NAME.to_owned(),
                description: None,
                schema,
                strict: Some(true),
            }),
        )),
        _ => Err(Invalid::at(
            "output_config",
            "output_config.format.schema: Field required",
        )),
    }
}

fn tools(value: Option<Value>, beyond: &mut Vec<String>) -> Result<Vec<Tool>, Invalid> {
    let list = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Invalid::at("tools", "tools: Input should be a valid list")),
    };
    let mut tools = Vec::with_capacity(list.len());
    for (index, entry) in list.into_iter().enumerate() {
        let Value::Object(mut entry) = entry else {
            return Err(Invalid::at(
                format!("tools.{index}"),
                format!("tools.{index}: Input should be an object"),
            ));
        };
        match entry.get("type").and_then(Value::as_str) {
            None | Some("custom") => {}
            Some(kind) => {
                beyond.push(format!("tools[{index}]: type {kind}"));
                continue;
            }
        }
        let name = text(take(&mut entry, "name")).filter(|name| !name.is_empty());
        let missing = || {
            Invalid::at(
                format!("tools.{index}.name"),
                format!("tools.{index}.name: Field required"),
            )
        };
        tools.push(Tool {
            name: name.ok_or_else(missing)?,
            description: text(take(&mut entry, "description")),
            parameters: match take(&mut entry, "input_schema") {
                Some(Value::Object(schema)) => schema,
                _ => Map::new(),
            },
            strict: entry.get("strict").and_then(Value::as_bool),
            cache: cache(&mut entry),
        });
    }
    Ok(tools)
}

fn tool_choice(value: Option<Value>) -> Result<(Option<ToolChoice>, Option<bool>), Invalid> {
    let Some(choice) = value else {
        return Ok((None, None));
    };
    let alone = choice.get("disable_parallel_tool_use").and_then(Value::as_bool);
    let wanted = match choice.get("type").and_then(Value::as_str) {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Required,
        Some("none") => ToolChoice::None,
        Some("tool") => match choice.get("name").and_then(Value::as_str) {
            Some(name) => ToolChoice::Named(name.to_owned()),
            None => return Err(Invalid::at("tool_choice", "tool_choice.tool.name: Field required")),
        },
        _ => {
            return Err(Invalid::at(
                "tool_choice",
                "tool_choice: type must be auto, any, tool or none",
            ));
        }
    };
    Ok((Some(wanted), alone.map(|alone| !alone)))
}
