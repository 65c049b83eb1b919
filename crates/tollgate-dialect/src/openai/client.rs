//! Requests of clients.

use serde_json::{Map, Value};
use tollgate_types::{
    RequestView,
    chat::{ChatRequest, Effort, Reasoning, ResponseFormat, Tool, ToolChoice},
};

use super::{message, writer::ChatWriter};
use crate::{Invalid, side::Writer};

/// Fields that change nothing in the answer. Another dialect is not told of them.
const HINTS: [&str; 11] = [
    "metadata",
    "moderation",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "provider",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
];

/// Reads the whole request.
pub(crate) fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Invalid::new("the request body must be a JSON object"))?;
    let stream = fields.get("stream").and_then(Value::as_bool).unwrap_or_default();
    HINTS.iter().for_each(|hint| drop(fields.shift_remove(*hint)));
    let mut beyond = Vec::new();
    let messages = match take(&mut fields, "messages") {
        Some(Value::Array(messages)) => message::read_all(messages, &mut beyond)?,
        _ => return Err(Invalid::at("messages", "`messages` must be an array")),
    };
    let request = ChatRequest {
        model: string(&mut fields, "model")?.unwrap_or_default(),
        messages,
        tools: tools(take(&mut fields, "tools"), &mut beyond)?,
        tool_choice: tool_choice(take(&mut fields, "tool_choice"), &mut beyond)?,
        parallel_tool_calls: boolean(&mut fields, "parallel_tool_calls")?,
        response_format: response_format(take(&mut fields, "response_format"))?,
        max_output_tokens: max_tokens(&mut fields)?,
        temperature: number(&mut fields, "temperature")?,
        top_p: number(&mut fields, "top_p")?,
        top_k: whole(&mut fields, "top_k")?,
        presence_penalty: number(&mut fields, "presence_penalty")?,
        frequency_penalty: number(&mut fields, "frequency_penalty")?,
        stop: stop(take(&mut fields, "stop"))?,
        seed: seed(take(&mut fields, "seed"))?,
        reasoning: reasoning(&mut fields)?,
        logprobs: logprobs(&mut fields)?,
        user: string(&mut fields, "user")?,
        beyond: Vec::new(),
        stream,
    };
    beyond.extend(
        fields
            .into_iter()
            .filter(|(name, value)| asks(name, value))
            .map(|(name, _)| name),
    );
    Ok(ChatRequest { beyond, ..request })
}

/// A writer of the answer to `request`.
pub(crate) fn writer(request: &ChatRequest, view: &RequestView) -> Box<dyn Writer> {
    Box::new(ChatWriter::new(request, view.include_usage))
}

/// Whether a field asks for anything: some have a value that says what holds without it.
fn asks(name: &str, value: &Value) -> bool {
    match name {
        "n" => *value != 1,
        "modalities" => value
            .as_array()
            .is_none_or(|kinds| kinds.iter().any(|kind| kind != "text")),
        "logit_bias" | "functions" => match value {
            Value::Object(entries) => !entries.is_empty(),
            Value::Array(entries) => !entries.is_empty(),
            _ => true,
        },
        "verbosity" => value != "medium",
        _ => true,
    }
}

/// Takes a field that is there and not null.
fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.shift_remove(name).filter(|value| !value.is_null())
}

fn wrong(name: &str, must_be: &str) -> Invalid {
    Invalid::at(name, format!("`{name}` must be {must_be}"))
}

fn string(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Invalid> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "a string")),
    }
}

fn boolean(fields: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Invalid> {
    take(fields, name)
        .map(|value| value.as_bool().ok_or_else(|| wrong(name, "true or false")))
        .transpose()
}

fn number(fields: &mut Map<String, Value>, name: &str) -> Result<Option<f64>, Invalid> {
    take(fields, name)
        .map(|value| value.as_f64().ok_or_else(|| wrong(name, "a number")))
        .transpose()
}

fn whole(fields: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, Invalid> {
    take(fields, name)
        .map(|value| value.as_u64().ok_or_else(|| wrong(name, "a positive whole number")))
        .transpose()
}

fn max_tokens(fields: &mut Map<String, Value>) -> Result<Option<u64>, Invalid> {
    let newer = whole(fields, "max_completion_tokens")?;
    let older = whole(fields, "max_tokens")?;
    Ok(newer.or(older))
}

fn seed(value: Option<Value>) -> Result<Option<i64>, Invalid> {
    value
        .map(|value| value.as_i64().ok_or_else(|| wrong("seed", "a whole number")))
        .transpose()
}

fn stop(value: Option<Value>) -> Result<Vec<String>, Invalid> {
    let entries = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(wrong("stop", "a string or an array of strings")),
    };
    let text = |entry: Value| match entry {
        Value::String(text) => Ok(text),
        _ => Err(wrong("stop", "a string or an array of strings")),
    };
    entries.into_iter().map(text).collect()
}

fn logprobs(fields: &mut Map<String, Value>) -> Result<Option<u32>, Invalid> {
    let wanted = boolean(fields, "logprobs")?.unwrap_or_default();
    let top = whole(fields, "top_logprobs")?;
    match (wanted, top) {
        (true, top) => Ok(Some(u32::try_from(top.unwrap_or_default()).unwrap_or(u32::MAX))),
        (false, Some(1..)) => Err(Invalid::at(
            "top_logprobs",
            "`top_logprobs` is only allowed when `logprobs` is true",
        )),
        (false, _) => Ok(None),
    }
}

/// `reasoning_effort`, and what other servers of this dialect know: `reasoning` (OpenRouter), `thinking` (Anthropic).
fn reasoning(fields: &mut Map<String, Value>) -> Result<Option<Reasoning>, Invalid> {
    if let Some(effort) = string(fields, "reasoning_effort")? {
        return Ok(Some(Reasoning {
            effort: Some(effort_of("reasoning_effort", &effort)?),
            ..Reasoning::default()
        }));
    }
    if let Some(mut thinking) = object(fields, "thinking")? {
        let budget = whole(&mut thinking, "budget_tokens")?;
        return match string(&mut thinking, "type")?.as_deref() {
            Some("disabled") => Ok(Some(Reasoning {
                effort: Some(Effort::None),
                ..Reasoning::default()
            })),
            Some("enabled" | "adaptive") => Ok(Some(Reasoning {
                budget_tokens: budget,
                ..Reasoning::default()
            })),
            _ => Err(wrong("thinking.type", "enabled, adaptive or disabled")),
        };
    }
    let Some(mut reasoning) = object(fields, "reasoning")? else {
        return Ok(None);
    };
    let enabled = boolean(&mut reasoning, "enabled")?.unwrap_or(true);
    let effort = string(&mut reasoning, "effort")?;
    let effort = effort
        .map(|effort| effort_of("reasoning.effort", &effort))
        .transpose()?;
    Ok(Some(Reasoning {
        effort: if enabled { effort } else { Some(Effort::None) },
        budget_tokens: whole(&mut reasoning, "max_tokens")?.filter(|_| enabled),
        shown: boolean(&mut reasoning, "exclude")?.map(|exclude| !exclude),
    }))
}

fn effort_of(name: &str, text: &str) -> Result<Effort, Invalid> {
    text.parse()
        .map_err(|error| Invalid::at(name, format!("`{name}`: {error}")))
}

fn object(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Map<String, Value>>, Invalid> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(wrong(name, "an object")),
    }
}

fn tools(value: Option<Value>, beyond: &mut Vec<String>) -> Result<Vec<Tool>, Invalid> {
    let entries = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(wrong("tools", "an array")),
    };
    let mut tools = Vec::with_capacity(entries.len());
    for (index, mut entry) in entries.into_iter().enumerate() {
        let at = format!("tools[{index}]");
        match entry.get("type").and_then(Value::as_str) {
            Some("function") => {}
            Some(kind) => {
                beyond.push(format!("{at}: type {kind}"));
                continue;
            }
            None => return Err(wrong(&format!("{at}.type"), "a string")),
        }
        let cache = message::cache(&mut entry);
        let Some(Value::Object(mut function)) = entry.get_mut("function").map(Value::take) else {
            return Err(wrong(&format!("{at}.function"), "an object"));
        };
        let name = match string(&mut function, "name")? {
            Some(name) if !name.is_empty() => name,
            _ => return Err(wrong(&format!("{at}.function.name"), "a string that is not empty")),
        };
        tools.push(Tool {
            name,
            description: string(&mut function, "description")?,
            parameters: object(&mut function, "parameters")?.unwrap_or_default(),
            strict: boolean(&mut function, "strict")?,
            cache,
        });
    }
    Ok(tools)
}

fn tool_choice(value: Option<Value>, beyond: &mut Vec<String>) -> Result<Option<ToolChoice>, Invalid> {
    let Some(value) = value else { return Ok(None) };
    match value.as_str() {
        Some("auto") => return Ok(Some(ToolChoice::Auto)),
        Some("none") => return Ok(Some(ToolChoice::None)),
        Some("required") => return Ok(Some(ToolChoice::Required)),
        Some(_) => return Err(wrong("tool_choice", "none, auto, required or an object")),
        None => {}
    }
    match value.get("type").and_then(Value::as_str) {
        Some("function") => match value.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => Ok(Some(ToolChoice::Named(name.to_owned()))),
            None => Err(wrong("tool_choice.function.name", "a string")),
        },
        Some(kind) => {
            beyond.push(format!("tool_choice: type {kind}"));
            Ok(None)
        }
        None => Err(wrong("tool_choice", "none, auto, required or an object")),
    }
}

fn response_format(value: Option<Value>) -> Result<Option<ResponseFormat>, Invalid> {
    let Some(mut value) = value else { return Ok(None) };
    match value.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Some(ResponseFormat::Text)),
        Some("json_object") => Ok(Some(ResponseFormat::JsonObject)),
        Some("json_schema") => {
            let at = "response_format.json_schema";
            let Some(Value::Object(mut format)) = value.get_mut("json_schema").map(Value::take) else {
                return Err(wrong(at, "an object"));
            };
            let Some(name) = string(&mut format, "name")? else {
                return Err(wrong(&format!("{at}.name"), "a string"));
            };
            Ok(Some(ResponseFormat::JsonSchema {
                name,
                description: string(&mut format, "description")?,
                schema: object(&mut format, "schema")?.unwrap_or_default(),
                strict: boolean(&mut format, "strict")?,
            }))
        }
        _ => Err(wrong("response_format.type", "text, json_object or json_schema")),
    }
}
