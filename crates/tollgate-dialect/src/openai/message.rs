//! The turns of a client's conversation.

use serde_json::{Map, Value};
use tollgate_types::chat::{Cache, Media, Message, Part, Role};

use crate::Invalid;

/// Reads `messages` into canonical turns.
pub(super) fn read_all(messages: Vec<Value>, beyond: &mut Vec<String>) -> Result<Vec<Message>, Invalid> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let at = format!("messages[{index}]");
        let Value::Object(fields) = message else {
            return Err(Invalid::at(&at, format!("`{at}` must be an object")));
        };
        let turn = read(fields, &at, beyond)?;
        match turns.last_mut() {
            Some(last) if last.role == Role::Tool && turn.role == Role::Tool => last.content.extend(turn.content),
            _ => turns.push(turn),
        }
    }
    Ok(turns)
}

fn read(mut fields: Map<String, Value>, at: &str, beyond: &mut Vec<String>) -> Result<Message, Invalid> {
    let role = match fields.get("role").and_then(Value::as_str) {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => {
            let param = format!("{at}.role");
            let message = format!("`{param}` must be developer, system, user, assistant or tool");
            return Err(Invalid::at(param, message));
        }
    };
    let name = text_of(fields.shift_remove("name"));
    let mut content = content(fields.shift_remove("content"), at, beyond)?;
    if let Some(marker) = cache_in(&mut fields)
        && let Some(last) = content.last_mut()
        && let Some(cache) = cache_of(last)
    {
        cache.get_or_insert(marker);
    }
    match role {
        Role::Tool => {
            let Some(call_id) = text_of(fields.shift_remove("tool_call_id")) else {
                let param = format!("{at}.tool_call_id");
                return Err(Invalid::at(&param, format!("`{param}` must be a string")));
            };
            let cache = content.last_mut().and_then(cache_of).and_then(Option::take);
            let result = Part::ToolResult {
                call_id,
                content,
                is_error: false,
                cache,
            };
            return Ok(Message::new(Role::Tool, vec![result]));
        }
        Role::Assistant => content = assistant(&mut fields, content, at, beyond)?,
        Role::System | Role::Developer | Role::User => {}
    }
    Ok(Message { role, content, name })
}

/// An assistant's turn in canonical order: reasoning, words, calls.
fn assistant(
    fields: &mut Map<String, Value>,
    words: Vec<Part>,
    at: &str,
    beyond: &mut Vec<String>,
) -> Result<Vec<Part>, Invalid> {
    for name in ["audio", "function_call"] {
        if fields.get(name).is_some_and(|value| !value.is_null()) {
            beyond.push(format!("{at}.{name}"));
        }
    }
    let mut content = reasoning(fields);
    content.extend(words);
    if let Some(text) = text_of(fields.shift_remove("refusal")) {
        content.push(Part::Refusal { text });
    }
    let calls = match fields.shift_remove("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(calls)) => calls,
        Some(_) => {
            let param = format!("{at}.tool_calls");
            return Err(Invalid::at(&param, format!("`{param}` must be an array")));
        }
    };
    for (index, call) in calls.into_iter().enumerate() {
        let at = format!("{at}.tool_calls[{index}]");
        match call.get("type").and_then(Value::as_str) {
            None | Some("function") => content.push(tool_call(call, &at)?),
            Some(kind) => beyond.push(format!("{at}: type {kind}")),
        }
    }
    Ok(content)
}

fn tool_call(mut call: Value, at: &str) -> Result<Part, Invalid> {
    let signature = call
        .pointer("/extra_content/google/thought_signature")
        .or_else(|| call.pointer("/provider_specific_fields/thought_signature"))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let cache = cache(&mut call);
    let mut text = |pointer: &str| match call.pointer_mut(pointer).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        _ => {
            let param = format!("{at}{}", pointer.replace('/', "."));
            Err(Invalid::at(&param, format!("`{param}` must be a string")))
        }
    };
    Ok(Part::ToolCall {
        id: text("/id")?,
        name: text("/function/name")?,
        arguments: text("/function/arguments")?,
        signature,
        cache,
    })
}

/// `thinking_blocks` say more than `reasoning_content`, which repeats their text.
fn reasoning(fields: &mut Map<String, Value>) -> Vec<Part> {
    let blocks = match fields.shift_remove("thinking_blocks") {
        Some(Value::Array(blocks)) => blocks,
        _ => Vec::new(),
    };
    let parts: Vec<_> = blocks.into_iter().filter_map(thinking_block).collect();
    let plain = text_of(fields.shift_remove("reasoning_content")).or_else(|| text_of(fields.shift_remove("reasoning")));
    match plain {
        Some(text) if parts.is_empty() => vec![Part::Reasoning { text, signature: None }],
        _ => parts,
    }
}

fn thinking_block(mut block: Value) -> Option<Part> {
    let mut text = |name: &str| text_of(block.get_mut(name).map(Value::take));
    match text("type")?.as_str() {
        "thinking" => Some(Part::Reasoning {
            text: text("thinking")?,
            signature: text("signature"),
        }),
        "redacted_thinking" => Some(Part::RedactedReasoning { data: text("data")? }),
        _ => None,
    }
}

fn content(value: Option<Value>, at: &str, beyond: &mut Vec<String>) -> Result<Vec<Part>, Invalid> {
    let parts = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![Part::text(text)]),
        Some(Value::Array(parts)) => parts,
        Some(_) => {
            let param = format!("{at}.content");
            let message = format!("`{param}` must be a string or an array of parts");
            return Err(Invalid::at(param, message));
        }
    };
    let mut content = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        content.extend(read_part(part, &format!("{at}.content[{index}]"), beyond)?);
    }
    Ok(content)
}

fn read_part(mut part: Value, at: &str, beyond: &mut Vec<String>) -> Result<Option<Part>, Invalid> {
    let Some(kind) = part.get("type").and_then(Value::as_str).map(str::to_owned) else {
        let param = format!("{at}.type");
        return Err(Invalid::at(&param, format!("`{param}` must be a string")));
    };
    let cache = cache(&mut part);
    let mut optional = |pointer: &str| text_of(part.pointer_mut(pointer).map(Value::take));
    let lacks = |field: &str| {
        let param = format!("{at}.{field}");
        Invalid::at(&param, format!("`{param}` must be a string"))
    };
    Ok(Some(match kind.as_str() {
        "text" => Part::Text {
            text: optional("/text").ok_or_else(|| lacks("text"))?,
            cache,
            citations: Vec::new(),
        },
        "image_url" => Part::Image {
            media: Media::from_url(&optional("/image_url/url").ok_or_else(|| lacks("image_url.url"))?),
            detail: optional("/image_url/detail"),
            cache,
        },
        "input_audio" => {
            let data = optional("/input_audio/data").ok_or_else(|| lacks("input_audio.data"))?;
            let format = optional("/input_audio/format").ok_or_else(|| lacks("input_audio.format"))?;
            let media_type = format!("audio/{}", if format == "mp3" { "mpeg" } else { &format });
            Part::Audio {
                media: Media::Inline { media_type, data },
                cache,
            }
        }
        "file" => {
            let media = match (optional("/file/file_id"), optional("/file/file_data")) {
                (Some(id), _) => Media::Uploaded { id },
                (None, Some(url)) => Media::from_url(&url),
                (None, None) => return Err(lacks("file.file_data")),
            };
            Part::File {
                media,
                filename: optional("/file/filename"),
                cache,
            }
        }
        "refusal" => Part::Refusal {
            text: optional("/refusal").ok_or_else(|| lacks("refusal"))?,
        },
        "thinking" | "redacted_thinking" => return Ok(thinking_block(part)),
        kind => {
            beyond.push(format!("{at}: type {kind}"));
            return Ok(None);
        }
    }))
}

fn text_of(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Takes the `cache_control` that Anthropic's clients also put into this dialect.
pub(super) fn cache(value: &mut Value) -> Option<Cache> {
    cache_in(value.as_object_mut()?)
}

fn cache_in(fields: &mut Map<String, Value>) -> Option<Cache> {
    let marker = fields.shift_remove("cache_control").filter(Value::is_object)?;
    Some(Cache {
        ttl: marker.get("ttl").and_then(Value::as_str).map(str::to_owned),
    })
}

fn cache_of(part: &mut Part) -> Option<&mut Option<Cache>> {
    match part {
        Part::Text { cache, .. }
        | Part::Image { cache, .. }
        | Part::Audio { cache, .. }
        | Part::File { cache, .. }
        | Part::ToolCall { cache, .. }
        | Part::ToolResult { cache, .. } => Some(cache),
        Part::Reasoning { .. } | Part::RedactedReasoning { .. } | Part::Refusal { .. } => None,
    }
}
