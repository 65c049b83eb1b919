//! Conversions between a gRPC client's chat and the superset model.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use tollgate_types::{
    RequestId,
    chat::{ChatEvent, ChatRequest, FinishReason, Message, Part, ResponseFormat, Role, Tool, ToolCall, ToolChoice},
};

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
            messages: wire
                .messages
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            tools: wire
                .tools
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            tool_choice: wire.tool_choice.map(TryInto::try_into).transpose()?,
            parallel_tool_calls: wire.parallel_tool_calls,
            response_format: wire.response_format.map(TryInto::try_into).transpose()?,
            max_output_tokens: wire.max_output_tokens,
            temperature: in_range("temperature", wire.temperature, 2.0)?,
            top_p: in_range("top_p", wire.top_p, 1.0)?,
            stop: match wire.stop.len() {
                0..=4 => wire.stop,
                _ => return Err(Invalid::new("stop", "has more than four entries")),
            },
            seed: wire.seed,
            reasoning_effort: wire.reasoning_effort,
            stream: false,
        })
    }
}

fn in_range(field: &'static str, value: Option<f64>, most: f64) -> Result<Option<f64>, Invalid> {
    match value {
        Some(number) if !(0.0..=most).contains(&number) => Err(Invalid::new(field, "is out of range")),
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
        if role == Role::Tool && wire.tool_call_id.is_none() {
            return Err(Invalid::missing("messages.tool_call_id"));
        }
        if wire.content.is_empty() && wire.tool_calls.is_empty() {
            return Err(Invalid::missing("messages.content"));
        }
        Ok(Self {
            role,
            content: wire
                .content
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            tool_calls: wire.tool_calls.into_iter().map(Into::into).collect(),
            tool_call_id: wire.tool_call_id,
            name: wire.name,
        })
    }
}

impl TryFrom<v1::Part> for Part {
    type Error = Invalid;

    fn try_from(wire: v1::Part) -> Result<Self, Invalid> {
        Ok(match wire.part.ok_or(Invalid::missing("messages.content.part"))? {
            v1::part::Part::Text(text) => Self::Text { text },
            v1::part::Part::Image(image) => {
                if !image.url.starts_with("https:") && !image.url.starts_with("data:") {
                    return Err(Invalid::new("image.url", "is neither an https: nor a data: URL"));
                }
                Self::Image {
                    url: image.url,
                    detail: image.detail,
                }
            }
            v1::part::Part::Audio(audio) => Self::Audio {
                data: STANDARD.encode(audio.data),
                format: audio.format,
            },
            v1::part::Part::File(file) => {
                let is_media_type = file.media_type.split_once('/').is_some_and(|(kind, name)| {
                    let plain = |text: &str| {
                        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b))
                    };
                    plain(kind) && plain(name)
                });
                if !is_media_type {
                    return Err(Invalid::new("file.media_type", "is no media type"));
                }
                let data = format!("data:{};base64,{}", file.media_type, STANDARD.encode(file.data));
                Self::File {
                    data,
                    filename: file.filename,
                }
            }
        })
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
        })
    }
}

fn json_object(field: &'static str, text: &str) -> Result<Map<String, Value>, Invalid> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| Invalid::new(field, "is no JSON object"))
}

impl From<v1::ToolCall> for ToolCall {
    fn from(wire: v1::ToolCall) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            arguments: wire.arguments_json,
        }
    }
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

impl TryFrom<v1::ResponseFormat> for ResponseFormat {
    type Error = Invalid;

    fn try_from(wire: v1::ResponseFormat) -> Result<Self, Invalid> {
        Ok(match wire.format.ok_or(Invalid::missing("response_format.format"))? {
            v1::response_format::Format::Text(_) => Self::Text,
            v1::response_format::Format::JsonObject(_) => Self::JsonObject,
            v1::response_format::Format::JsonSchema(schema) => Self::JsonSchema {
                schema: json_object("response_format.json_schema.schema_json", &schema.schema_json)?,
                name: schema.name,
                strict: schema.strict,
            },
        })
    }
}

const fn finish_out(reason: FinishReason) -> v1::FinishReason {
    match reason {
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::ToolCalls => v1::FinishReason::ToolCalls,
        FinishReason::ContentFilter => v1::FinishReason::ContentFilter,
    }
}

impl v1::CompleteEvent {
    /// A piece of the answer to `request_id`.
    #[must_use]
    pub fn of(request_id: RequestId, event: ChatEvent) -> Self {
        use v1::complete_event::{Event, Start, ToolCallDelta};
        let event = match event {
            ChatEvent::Start { id, model } => Event::Start(Start {
                request_id: request_id.to_string(),
                provider_id: id,
                model,
            }),
            ChatEvent::Text { text } => Event::Text(text),
            ChatEvent::Refusal { text } => Event::Refusal(text),
            ChatEvent::Reasoning { text } => Event::Reasoning(text),
            ChatEvent::ToolCall {
                index,
                id,
                name,
                arguments,
            } => Event::ToolCall(ToolCallDelta {
                index,
                id,
                name,
                arguments_json: arguments,
            }),
            ChatEvent::Finish { reason } => Event::Finish(finish_out(reason).into()),
            ChatEvent::Usage { usage } => Event::Usage(usage.into()),
        };
        Self { event: Some(event) }
    }
}

impl v1::CompleteResponse {
    /// The whole answer to `request_id`, put together from its pieces.
    #[must_use]
    pub fn of(request_id: RequestId, events: impl IntoIterator<Item = ChatEvent>) -> Self {
        let mut whole = Self {
            request_id: request_id.to_string(),
            ..Self::default()
        };
        for event in events {
            match event {
                ChatEvent::Start { id, model } => (whole.provider_id, whole.model) = (id, model),
                ChatEvent::Text { text } => whole.text.push_str(&text),
                ChatEvent::Refusal { text } => whole.refusal.push_str(&text),
                ChatEvent::Reasoning { text } => whole.reasoning.push_str(&text),
                ChatEvent::ToolCall {
                    index,
                    id,
                    name,
                    arguments,
                } => {
                    // A hostile index must not make us allocate; calls arrive in order, so the next one is at most new.
                    let at = (index as usize).min(whole.tool_calls.len());
                    if at == whole.tool_calls.len() {
                        whole.tool_calls.push(v1::ToolCall::default());
                    }
                    let call = &mut whole.tool_calls[at];
                    call.id.push_str(&id.unwrap_or_default());
                    call.name.push_str(&name.unwrap_or_default());
                    call.arguments_json.push_str(&arguments);
                }
                ChatEvent::Finish { reason } => whole.set_finish(finish_out(reason)),
                ChatEvent::Usage { usage } => whole.usage = Some(usage.into()),
            }
        }
        whole
    }
}
