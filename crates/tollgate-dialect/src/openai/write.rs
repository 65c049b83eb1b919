//! The superset model as a request of this dialect.

use serde_json::{Map, Value, json};
use tollgate_types::chat::{ChatRequest, Media, Message, Part, Reasoning, ResponseFormat, Role, Tool, ToolChoice};

use super::TOOL_NAME;
use crate::{
    Refused,
    names::{Names, Rule},
    side::{Losses, Quirks, Target},
};

/// Longest id of a tool call.
const CALL_ID: Rule = Rule {
    also: "_-.:",
    longest: 40,
};

/// The body for the provider's model. Left out, because they only help a provider that knows them: cache markers, the end
/// of a citation, whether a tool's result is an error (its text says so).
pub(super) fn request(
    request: &ChatRequest,
    target: &Target<'_>,
    names: &mut Names,
    losses: &mut Losses,
) -> Result<Value, Refused> {
    if request.top_k.is_some() {
        losses.cannot("top_k")?;
    }
    let mut writer = Writer {
        quirks: target.quirks,
        names,
        ids: Names::default(),
        losses,
    };
    let mut messages = Vec::with_capacity(request.messages.len());
    for (index, message) in request.messages.iter().enumerate() {
        writer.message(message, &format!("messages[{index}]"), &mut messages)?;
    }
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("model", Some(target.model.into()));
    set("messages", Some(messages.into()));
    let tools: Vec<_> = request.tools.iter().map(|tool| writer.tool(tool)).collect();
    set("tools", (!tools.is_empty()).then(|| tools.into()));
    set(
        "tool_choice",
        request.tool_choice.as_ref().map(|choice| writer.tool_choice(choice)),
    );
    // OpenAI refuses it without tools.
    set(
        "parallel_tool_calls",
        request
            .parallel_tool_calls
            .filter(|_| !request.tools.is_empty())
            .map(Value::from),
    );
    set(
        "response_format",
        writer.response_format(request.response_format.as_ref())?,
    );
    let limit = if target.quirks.max_tokens {
        "max_tokens"
    } else {
        "max_completion_tokens"
    };
    set(limit, request.max_output_tokens.map(Value::from));
    set("temperature", request.temperature.map(Value::from));
    set("top_p", request.top_p.map(Value::from));
    set("presence_penalty", request.presence_penalty.map(Value::from));
    set("frequency_penalty", request.frequency_penalty.map(Value::from));
    set("stop", (!request.stop.is_empty()).then(|| request.stop.clone().into()));
    set("seed", request.seed.map(Value::from));
    set("reasoning_effort", request.reasoning.as_ref().and_then(effort));
    set("logprobs", request.logprobs.map(|_| true.into()));
    set("top_logprobs", request.logprobs.filter(|top| *top > 0).map(Value::from));
    set("user", request.user.clone().map(Value::from));
    if request.stream {
        set("stream", Some(true.into()));
        let options = json!({ "include_usage": true });
        set("stream_options", (!target.quirks.no_stream_options).then_some(options));
    }
    Ok(body.into())
}

fn effort(reasoning: &Reasoning) -> Option<Value> {
    reasoning.as_effort().map(|effort| effort.as_str().into())
}

struct Writer<'a> {
    quirks: Quirks,
    names: &'a mut Names,
    ids: Names,
    losses: &'a mut Losses,
}

impl Writer<'_> {
    fn message(&mut self, message: &Message, at: &str, out: &mut Vec<Value>) -> Result<(), Refused> {
        match message.role {
            Role::Tool => self.tool_turn(message, at, out),
            Role::Assistant => {
                let turn = self.assistant(message, at)?;
                out.extend(turn);
                Ok(())
            }
            role => {
                let role = match role {
                    Role::Developer if self.quirks.no_developer => Role::System,
                    role => role,
                };
                let content = self.content(&message.content, at)?;
                let mut turn = json!({ "role": role.as_str(), "content": content });
                if let Some(name) = &message.name {
                    turn["name"] = name.clone().into();
                }
                out.push(turn);
                Ok(())
            }
        }
    }

    /// Words and calls. Reasoning is not sent back: this dialect has no place for it.
    fn assistant(&mut self, message: &Message, at: &str) -> Result<Option<Value>, Refused> {
        let (mut words, mut calls, mut refusal) = (Vec::new(), Vec::new(), String::new());
        for part in &message.content {
            match part {
                Part::ToolCall {
                    id, name, arguments, ..
                } => {
                    let name = self.names.wire(name, TOOL_NAME);
                    // An empty text is no JSON, and some servers parse it.
                    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
                    let function = json!({ "name": name, "arguments": arguments });
                    calls.push(json!({ "id": self.ids.wire(id, CALL_ID), "type": "function", "function": function }));
                }
                Part::Reasoning { .. } | Part::RedactedReasoning { .. } => {}
                Part::Refusal { text } => refusal.push_str(text),
                other => words.push(other.clone()),
            }
        }
        if words.is_empty() && calls.is_empty() && refusal.is_empty() {
            return Ok(None);
        }
        let mut turn = json!({ "role": "assistant" });
        turn["content"] = if words.is_empty() {
            Value::Null
        } else {
            self.content(&words, at)?
        };
        if !refusal.is_empty() {
            turn["refusal"] = refusal.into();
        }
        if !calls.is_empty() {
            turn["tool_calls"] = calls.into();
        }
        if let Some(name) = &message.name {
            turn["name"] = name.clone().into();
        }
        Ok(Some(turn))
    }

    /// A message for each result. A result takes text alone here, so its images and files follow as the user's.
    fn tool_turn(&mut self, message: &Message, at: &str, out: &mut Vec<Value>) -> Result<(), Refused> {
        let mut shown = Vec::new();
        for part in &message.content {
            let Part::ToolResult { call_id, content, .. } = part else {
                continue;
            };
            let (words, media): (Vec<_>, Vec<_>) = content
                .iter()
                .cloned()
                .partition(|part| matches!(part, Part::Text { .. }));
            let id = self.ids.wire(call_id, CALL_ID);
            let mut content = self.content(&words, at)?;
            if !media.is_empty() {
                let note = format!("What {id} returned beside text follows.");
                if words.is_empty() {
                    content = note.clone().into();
                }
                shown.push(json!({ "type": "text", "text": note }));
                for part in &media {
                    shown.push(self.part(part, at)?);
                }
            }
            out.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
        }
        if !shown.is_empty() {
            shown.retain(|part| !part.is_null());
            out.push(json!({ "role": "user", "content": shown }));
        }
        Ok(())
    }

    fn content(&mut self, parts: &[Part], at: &str) -> Result<Value, Refused> {
        match parts {
            [] => Ok("".into()),
            [Part::Text { text, .. }] => Ok(text.clone().into()),
            parts => {
                let mut content = Vec::with_capacity(parts.len());
                for part in parts {
                    content.push(self.part(part, at)?);
                }
                content.retain(|part| !part.is_null());
                Ok(content.into())
            }
        }
    }

    /// Null for what is left out by policy.
    fn part(&mut self, part: &Part, at: &str) -> Result<Value, Refused> {
        match part {
            Part::Text { text, .. } => Ok(json!({ "type": "text", "text": text })),
            Part::Image { media, detail, .. } => {
                let Some(url) = media.to_url() else {
                    return self.cannot(format!("{at}: an uploaded image"));
                };
                let mut image = json!({ "url": url });
                if let Some(detail) = detail {
                    image["detail"] = detail.clone().into();
                }
                Ok(json!({ "type": "image_url", "image_url": image }))
            }
            Part::Audio { media, .. } => {
                let Media::Inline { media_type, data } = media else {
                    return self.cannot(format!("{at}: audio at an address"));
                };
                let format = match media_type.as_str() {
                    "audio/mpeg" | "audio/mp3" => "mp3",
                    "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
                    other => return self.cannot(format!("{at}: {other}")),
                };
                Ok(json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } }))
            }
            Part::File { media, filename, .. } => match media {
                Media::Inline { .. } => {
                    let name = filename.as_deref().unwrap_or("file");
                    Ok(json!({ "type": "file", "file": { "filename": name, "file_data": media.to_url() } }))
                }
                Media::Uploaded { id } => Ok(json!({ "type": "file", "file": { "file_id": id } })),
                Media::Url { .. } => self.cannot(format!("{at}: a file at an address")),
            },
            Part::Refusal { text } => Ok(json!({ "type": "refusal", "refusal": text })),
            Part::Reasoning { .. }
            | Part::RedactedReasoning { .. }
            | Part::ToolCall { .. }
            | Part::ToolResult { .. } => self.cannot(format!("{at}: a part where it cannot be")),
        }
    }

    fn cannot(&mut self, feature: String) -> Result<Value, Refused> {
        self.losses.cannot(feature).map(|()| Value::Null)
    }

    fn tool(&mut self, tool: &Tool) -> Value {
        let name = self.names.wire(&tool.name, TOOL_NAME);
        let mut function = json!({ "name": name, "parameters": tool.parameters });
        if tool.parameters.is_empty() {
            function["parameters"] = json!({ "type": "object", "properties": {} });
        }
        if let Some(description) = &tool.description {
            function["description"] = description.clone().into();
        }
        if let Some(strict) = tool.strict {
            function["strict"] = strict.into();
        }
        json!({ "type": "function", "function": function })
    }

    fn tool_choice(&mut self, choice: &ToolChoice) -> Value {
        match choice {
            ToolChoice::Auto => "auto".into(),
            ToolChoice::None => "none".into(),
            ToolChoice::Required => "required".into(),
            ToolChoice::Named(name) => {
                json!({ "type": "function", "function": { "name": self.names.wire(name, TOOL_NAME) } })
            }
        }
    }

    fn response_format(&mut self, format: Option<&ResponseFormat>) -> Result<Option<Value>, Refused> {
        Ok(match format {
            None => None,
            Some(ResponseFormat::Text) => Some(json!({ "type": "text" })),
            Some(ResponseFormat::JsonObject) => Some(json!({ "type": "json_object" })),
            Some(ResponseFormat::JsonSchema { .. }) if self.quirks.no_json_schema => {
                self.losses.cannot("a JSON schema of the answer")?;
                Some(json!({ "type": "json_object" }))
            }
            Some(ResponseFormat::JsonSchema {
                name,
                description,
                schema,
                strict,
            }) => {
                let mut format = json!({ "name": name, "schema": schema });
                if let Some(description) = description {
                    format["description"] = description.clone().into();
                }
                if let Some(strict) = strict {
                    format["strict"] = (*strict).into();
                }
                Some(json!({ "type": "json_schema", "json_schema": format }))
            }
        })
    }
}
