//! The turns of a client's conversation.

use serde_json::{Map, Value};
use tollgate_types::chat::{Media, Message, Part, Role};

use super::{
    citation,
    client::{cache, take, text},
};
use crate::Invalid;

type Fields = Map<String, Value>;

/// Reads `messages` into canonical turns: results of tools in turns of their own.
pub(super) fn read_all(messages: Vec<Value>, beyond: &mut Vec<String>) -> Result<Vec<Message>, Invalid> {
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let at = format!("messages.{index}");
        let Value::Object(mut message) = message else {
            return Err(wrong(&at, "Input should be an object"));
        };
        let content = take(&mut message, "content");
        match message.get("role").and_then(Value::as_str) {
            Some("user") => user(content, &at, beyond, &mut turns)?,
            Some("assistant") => {
                let content = blocks(content, &at, |block, at| assistant_block(block, at, beyond))?;
                turns.push(Message::new(Role::Assistant, content));
            }
            Some("system") => {
                let content = content.ok_or_else(|| wrong(&at, "content is required"))?;
                turns.push(Message::new(Role::System, text_blocks(content, &at)?));
            }
            _ => return Err(wrong(&at, "role must be user or assistant")),
        }
    }
    Ok(turns)
}

/// A text, or blocks of nothing but text.
pub(super) fn text_blocks(content: Value, at: &str) -> Result<Vec<Part>, Invalid> {
    blocks(Some(content), at, |block, at| match plain(block, at)? {
        Ok(part) => Ok(Some(part)),
        Err((kind, _)) => Err(wrong(at, &format!("a block of type {kind} cannot be here"))),
    })
}

fn wrong(at: &str, problem: &str) -> Invalid {
    Invalid::at(at, format!("{at}: {problem}"))
}

fn blocks(
    content: Option<Value>,
    at: &str,
    mut read: impl FnMut(Fields, &str) -> Result<Option<Part>, Invalid>,
) -> Result<Vec<Part>, Invalid> {
    match content {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![Part::text(text)]),
        Some(Value::Array(list)) => {
            let mut parts = Vec::with_capacity(list.len());
            for (index, block) in list.into_iter().enumerate() {
                let at = format!("{at}.content.{index}");
                let Value::Object(block) = block else {
                    return Err(wrong(&at, "Input should be an object"));
                };
                parts.extend(read(block, &at)?);
            }
            Ok(parts)
        }
        Some(_) => Err(wrong(at, "content should be a valid string or list")),
    }
}

/// A user's turn is up to three of ours: words before results, results, words after them.
fn user(content: Option<Value>, at: &str, beyond: &mut Vec<String>, turns: &mut Vec<Message>) -> Result<(), Invalid> {
    let parts = blocks(content, at, |block, at| user_block(block, at, beyond))?;
    let mut last: Option<Message> = None;
    for part in parts {
        let role = if matches!(part, Part::ToolResult { .. }) {
            Role::Tool
        } else {
            Role::User
        };
        match &mut last {
            Some(turn) if turn.role == role => turn.content.push(part),
            _ => turns.extend(last.replace(Message::new(role, vec![part]))),
        }
    }
    turns.push(last.unwrap_or(Message::new(Role::User, Vec::new())));
    Ok(())
}

/// A block that may stand in any turn; else its type and itself.
type Plain = Result<Part, (String, Fields)>;

fn plain(mut block: Fields, at: &str) -> Result<Plain, Invalid> {
    let Some(kind) = block.get("type").and_then(Value::as_str).map(str::to_owned) else {
        return Err(wrong(at, "type: Field required"));
    };
    if kind != "text" {
        return Ok(Err((kind, block)));
    }
    let cache = cache(&mut block);
    let citations = match take(&mut block, "citations") {
        Some(Value::Array(citations)) => citations.iter().filter_map(citation).collect(),
        _ => Vec::new(),
    };
    let text = text(take(&mut block, "text")).ok_or_else(|| wrong(at, "text: Field required"))?;
    Ok(Ok(Part::Text { text, cache, citations }))
}

fn user_block(block: Fields, at: &str, beyond: &mut Vec<String>) -> Result<Option<Part>, Invalid> {
    let (kind, mut block) = match plain(block, at)? {
        Ok(part) => return Ok(Some(part)),
        Err(other) => other,
    };
    match kind.as_str() {
        "image" | "document" => media(&kind, block, at, beyond),
        "tool_result" => {
            let cache = cache(&mut block);
            let call_id = text(take(&mut block, "tool_use_id"));
            let content = blocks(take(&mut block, "content"), at, |block, at| match plain(block, at)? {
                Ok(part) => Ok(Some(part)),
                Err((kind, block)) if kind == "image" || kind == "document" => media(&kind, block, at, beyond),
                Err((kind, _)) => {
                    beyond.push(format!("{at}: type {kind}"));
                    Ok(None)
                }
            })?;
            Ok(Some(Part::ToolResult {
                call_id: call_id.ok_or_else(|| wrong(at, "tool_use_id: Field required"))?,
                content,
                is_error: block.get("is_error").and_then(Value::as_bool).unwrap_or_default(),
                cache,
            }))
        }
        kind => {
            beyond.push(format!("{at}: type {kind}"));
            Ok(None)
        }
    }
}

fn assistant_block(block: Fields, at: &str, beyond: &mut Vec<String>) -> Result<Option<Part>, Invalid> {
    let (kind, mut block) = match plain(block, at)? {
        Ok(part) => return Ok(Some(part)),
        Err(other) => other,
    };
    let lacks = |name: &str| wrong(at, &format!("{name}: Field required"));
    Ok(Some(match kind.as_str() {
        "thinking" => Part::Reasoning {
            text: text(take(&mut block, "thinking")).ok_or_else(|| lacks("thinking"))?,
            signature: text(take(&mut block, "signature")).filter(|signature| !signature.is_empty()),
        },
        "redacted_thinking" => Part::RedactedReasoning {
            data: text(take(&mut block, "data")).ok_or_else(|| lacks("data"))?,
        },
        "tool_use" => Part::ToolCall {
            cache: cache(&mut block),
            id: text(take(&mut block, "id")).ok_or_else(|| lacks("id"))?,
            name: text(take(&mut block, "name")).ok_or_else(|| lacks("name"))?,
            arguments: take(&mut block, "input").map_or_else(|| "{}".to_owned(), |input| input.to_string()),
            signature: None,
        },
        kind => {
            beyond.push(format!("{at}: type {kind}"));
            return Ok(None);
        }
    }))
}

fn media(kind: &str, mut block: Fields, at: &str, beyond: &mut Vec<String>) -> Result<Option<Part>, Invalid> {
    let cache = cache(&mut block);
    let title = text(take(&mut block, "title"));
    if block.get("citations").and_then(|citations| citations.get("enabled")) == Some(&Value::Bool(true)) {
        beyond.push(format!("{at}: citations"));
    }
    if block.get("context").is_some_and(|context| !context.is_null()) {
        beyond.push(format!("{at}: context"));
    }
    let Some(Value::Object(mut source)) = take(&mut block, "source") else {
        return Err(wrong(at, "source: Field required"));
    };
    let mut field =
        |name: &str| text(take(&mut source, name)).ok_or_else(|| wrong(at, &format!("source.{name}: Field required")));
    let media = match field("type")?.as_str() {
        "base64" => Media::Inline {
            media_type: field("media_type")?,
            data: field("data")?,
        },
        "text" => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            Media::Inline {
                media_type: "text/plain".to_owned(),
                data: STANDARD.encode(field("data")?),
            }
        }
        "url" => Media::Url {
            url: field("url")?,
            media_type: None,
        },
        "file" => Media::Uploaded { id: field("file_id")? },
        other => {
            beyond.push(format!("{at}: source of type {other}"));
            return Ok(None);
        }
    };
    Ok(Some(if kind == "image" {
        Part::Image {
            media,
            detail: None,
            cache,
        }
    } else {
        Part::File {
            media,
            filename: title,
            cache,
        }
    }))
}
