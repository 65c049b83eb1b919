//! Conversions between a gRPC client's chat and the superset model.

mod answer;
mod embed;
mod part;

use serde_json::{Map, Value};
use tollgate_types::chat::{ChatRequest, Message, Part, Reasoning, ResponseFormat, Role, Tool, ToolChoice};

use crate::{Invalid, v1};

impl TryFrom<v1::CompleteRequest> for ChatRequest {
    type Error = Invalid;

    fn try_from(wire: v1::CompleteRequest) -> Result<Self, Invalid> {
        if wire.model.is_empty() {
            return Err(Invalid::missing("model"));
        }
        if wire.messages.is_empty() {
            return Err(Invalid::missing("messages"));
        }
        Ok(Self {
            model: wire.model,
            messages: all(wire.messages)?,
            tools: all(wire.tools)?,
            tool_choice: wire.tool_choice.map(TryInto::try_into).transpose()?,
            parallel_tool_calls: wire.parallel_tool_calls,
            response_format: wire.response_format.map(TryInto::try_into).transpose()?,
            max_output_tokens: match wire.max_output_tokens {
                Some(0) => return Err(Invalid::new("max_output_tokens", "must be at least 1")),
                limit => limit,
            },
            temperature: in_range("temperature", wire.temperature, 0.0, 2.0)?,
            top_p: in_range("top_p", wire.top_p, 0.0, 1.0)?,
            top_k: wire.top_k,
            presence_penalty: in_range("presence_penalty", wire.presence_penalty, -2.0, 2.0)?,
            frequency_penalty: in_range("frequency_penalty", wire.frequency_penalty, -2.0, 2.0)?,
            stop: wire.stop,
            seed: wire.seed,
            reasoning: wire.reasoning.map(TryInto::try_into).transpose()?,
            logprobs: match wire.logprobs {
                Some(21..) => return Err(Invalid::new("logprobs", "is out of range")),
                wanted => wanted,
            },
            user: wire.user,
            beyond: Vec::new(),
            stream: false,
        })
    }
}

/// Converts a list.
fn all<W, T: TryFrom<W, Error = Invalid>>(wire: Vec<W>) -> Result<Vec<T>, Invalid> {
    wire.into_iter().map(TryInto::try_into).collect()
}

fn in_range(field: &'static str, value: Option<f64>, least: f64, most: f64) -> Result<Option<f64>, Invalid> {
    match value {
        Some(number) if !(least..=most).contains(&number) => Err(Invalid::new(field, "is out of range")),
        other => Ok(other),
    }
}

impl TryFrom<v1::Message> for Message {
    type Error = Invalid;

    fn try_from(wire: v1::Message) -> Result<Self, Invalid> {
        let role = match wire.role() {
            v1::Role::System => Role::System,
            v1::Role::Developer => Role::Developer,
            v1::Role::User => Role::User,
            v1::Role::Assistant => Role::Assistant,
            v1::Role::Tool => Role::Tool,
            v1::Role::Unspecified => return Err(Invalid::missing("messages.role")),
        };
        if wire.content.is_empty() {
            return Err(Invalid::missing("messages.content"));
        }
        let content: Vec<Part> = all(wire.content)?;
        if !content.iter().all(|part| may_hold(role, part)) {
            return Err(Invalid::new(
                "messages.content",
                "has a part that this role cannot have",
            ));
        }
        Ok(Self {
            role,
            content,
            name: wire.name,
        })
    }
}

/// The canonical form of a conversation.
const fn may_hold(role: Role, part: &Part) -> bool {
    match part {
        Part::ToolResult { .. } => matches!(role, Role::Tool),
        Part::Reasoning { .. } | Part::RedactedReasoning { .. } | Part::Refusal { .. } | Part::ToolCall { .. } => {
            matches!(role, Role::Assistant)
        }
        Part::Text { .. } | Part::Image { .. } | Part::Audio { .. } | Part::File { .. } => !matches!(role, Role::Tool),
    }
}

impl TryFrom<v1::Tool> for Tool {
    type Error = Invalid;

    fn try_from(wire: v1::Tool) -> Result<Self, Invalid> {
        if wire.name.is_empty() {
            return Err(Invalid::missing("tools.name"));
        }
        Ok(Self {
            name: wire.name,
            description: wire.description,
            parameters: json_object("tools.parameters_json", &wire.parameters_json)?,
            strict: wire.strict,
            cache: wire.cache.map(Into::into),
        })
    }
}

fn json_object(field: &'static str, text: &str) -> Result<Map<String, Value>, Invalid> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| Invalid::new(field, "is no JSON object"))
}

impl TryFrom<v1::ToolChoice> for ToolChoice {
    type Error = Invalid;

    fn try_from(wire: v1::ToolChoice) -> Result<Self, Invalid> {
        match wire.choice.ok_or(Invalid::missing("tool_choice.choice"))? {
            v1::tool_choice::Choice::Tool(name) => Ok(Self::Named(name)),
            v1::tool_choice::Choice::Mode(number) => match v1::tool_choice::Mode::try_from(number) {
                Ok(v1::tool_choice::Mode::Auto) => Ok(Self::Auto),
                Ok(v1::tool_choice::Mode::None) => Ok(Self::None),
                Ok(v1::tool_choice::Mode::Required) => Ok(Self::Required),
                Ok(v1::tool_choice::Mode::Unspecified) | Err(_) => Err(Invalid::new("tool_choice.mode", "is unknown")),
            },
        }
    }
}

impl TryFrom<v1::Reasoning> for Reasoning {
    type Error = Invalid;

    fn try_from(wire: v1::Reasoning) -> Result<Self, Invalid> {
        let effort = wire.effort.map(|effort| effort.parse());
        Ok(Self {
            effort: effort
                .transpose()
                .map_err(|_| Invalid::new("reasoning.effort", "is unknown"))?,
            budget_tokens: wire.budget_tokens,
            shown: wire.shown,
        })
    }
}

impl TryFrom<v1::ResponseFormat> for ResponseFormat {
    type Error = Invalid;

    fn try_from(wire: v1::ResponseFormat) -> Result<Self, Invalid> {
        Ok(match wire.format.ok_or(Invalid::missing("response_format.format"))? {
            v1::response_format::Format::Text(_) => Self::Text,
            v1::response_format::Format::JsonObject(_) => Self::JsonObject,
            v1::response_format::Format::JsonSchema(schema) => Self::JsonSchema {
                schema: json_object("response_format.json_schema.schema_json", &schema.schema_json)?,
                name: schema.name,
                description: schema.description,
                strict: schema.strict,
            },
        })
    }
}
