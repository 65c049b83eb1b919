//! The `response` object of an answer.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatRequest, FinishReason, Part, ResponseFormat, Role, Tool, ToolChoice},
};

/// How an answer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    /// With the reason.
    Incomplete(&'static str),
}

impl Status {
    /// `refused` says that the answer holds the words of a refusal, which are a complete answer.
    pub(super) const fn of(reason: FinishReason, refused: bool) -> Self {
        match reason {
            FinishReason::Stop | FinishReason::ToolCalls => Self::Completed,
            FinishReason::Refusal if refused => Self::Completed,
            FinishReason::Length => Self::Incomplete("max_output_tokens"),
            FinishReason::ContentFilter | FinishReason::Refusal => Self::Incomplete("content_filter"),
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
        }
    }
}

/// What every `response` object of one answer has in common.
pub(super) struct Frame {
    id: String,
    model: String,
    created_at: u64,
    settings: Map<String, Value>,
}

impl Frame {
    pub(super) const fn new(settings: Map<String, Value>, id: String, model: String, created_at: u64) -> Self {
        Self {
            id,
            model,
            created_at,
            settings,
        }
    }

    /// The object as it is when `output` is what there is.
    pub(super) fn response(&self, status: Status, output: &[Value], usage: Option<&Usage>) -> Value {
        let incomplete = match status {
            Status::Incomplete(reason) => json!({ "reason": reason }),
            Status::InProgress | Status::Completed => Value::Null,
        };
        let completed_at = (status == Status::Completed).then(now);
        let mut response = Map::from_iter([
            ("id".to_owned(), json!(self.id)),
            ("object".to_owned(), json!("response")),
            ("created_at".to_owned(), json!(self.created_at)),
            ("status".to_owned(), json!(status.as_str())),
            ("completed_at".to_owned(), json!(completed_at)),
            ("error".to_owned(), Value::Null),
            ("incomplete_details".to_owned(), incomplete),
            ("model".to_owned(), json!(self.model)),
            ("output".to_owned(), json!(output)),
            ("usage".to_owned(), usage.map_or(Value::Null, usage_object)),
        ]);
        response.extend(self.settings.clone());
        response.into()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn usage_object(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
    })
}

/// The request's settings, as an answer repeats them.
pub(super) fn settings(request: &ChatRequest) -> Map<String, Value> {
    let reasoning = request.reasoning.unwrap_or_default();
    let settings = json!({
        "background": false,
        "instructions": instructions(request),
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": null,
        "metadata": {},
        "parallel_tool_calls": request.parallel_tool_calls.unwrap_or(true),
        "previous_response_id": null,
        "reasoning": {
            "effort": reasoning.as_effort().map(|effort| effort.as_str()),
            "summary": (reasoning.shown == Some(true)).then_some("auto"),
        },
        "store": false,
        "temperature": request.temperature,
        "text": { "format": format(request.response_format.as_ref()) },
        "tool_choice": tool_choice(request.tool_choice.as_ref()),
        "tools": request.tools.iter().map(tool).collect::<Vec<_>>(),
        "top_logprobs": request.logprobs.unwrap_or_default(),
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": request.user,
    });
    match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    }
}

/// A first turn of the developer, which is what `instructions` are read as.
fn instructions(request: &ChatRequest) -> Option<&str> {
    let first = request.messages.first()?;
    match first.content.as_slice() {
        [Part::Text { text, .. }] if first.role == Role::Developer => Some(text),
        _ => None,
    }
}

fn tool(tool: &Tool) -> Value {
    json!({
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    })
}

/// Also how a request says it.
pub(super) fn tool_choice(choice: Option<&ToolChoice>) -> Value {
    match choice {
        None | Some(ToolChoice::Auto) => json!("auto"),
        Some(ToolChoice::None) => json!("none"),
        Some(ToolChoice::Required) => json!("required"),
        Some(ToolChoice::Named(name)) => json!({ "type": "function", "name": name }),
    }
}

fn format(format: Option<&ResponseFormat>) -> Value {
    match format {
        None | Some(ResponseFormat::Text) => json!({ "type": "text" }),
        Some(ResponseFormat::JsonObject) => json!({ "type": "json_object" }),
        Some(ResponseFormat::JsonSchema {
            name,
            description,
            schema,
            strict,
        }) => json!({
            "type": "json_schema",
            "name": name,
            "description": description,
            "schema": schema,
            "strict": strict.unwrap_or_default(),
        }),
    }
}
