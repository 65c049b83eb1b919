//! Messages: what each role may say, and that every tool call is answered before the talk goes on.

use serde_json::Value;

use crate::check::{Object, empty_array, wrong_type};
use crate::{
    ask::{Attachments, TOKENS_PER_ATTACHMENT},
    error::ApiError,
    tokens,
};

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Tokens the wire format costs for each message, and once for the answer's opening.
const TOKENS_PER_MESSAGE: u64 = 4;
const TOKENS_TO_OPEN: u64 = 3;

/// What the answer needs to know about the messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// The text of the last user message, its parts joined by a blank.
    pub(crate) last_user: String,
    /// Tokens of all text and attachments, with the format's own.
    pub(crate) prompt_tokens: u64,
    /// What the last user message holds beside text.
    pub(crate) attachments: Attachments,
    /// Texts of the tool messages at the end.
    pub(crate) results: Vec<String>,
    /// Whether any message has the word JSON in it.
    pub(crate) says_json: bool,
}

impl Messages {
    fn text(&mut self, text: &str) {
        self.prompt_tokens += tokens::count(text);
        self.says_json |= text
            .as_bytes()
            .windows(4)
            .any(|window| window.eq_ignore_ascii_case(b"json"));
    }
}

/// Checks all messages in order.
pub(crate) fn read(list: &[Value]) -> Result<Messages, ApiError> {
    let mut seen = Messages {
        prompt_tokens: TOKENS_TO_OPEN,
        ..Messages::default()
    };
    // The tool calls of the last assistant message that have no answer yet, and that message's index.
    let mut asked: Option<Asked> = None;
    for (index, value) in list.iter().enumerate() {
        let path = format!("messages[{index}]");
        let message = Object::of(value, &path)?;
        let role = message.choice("role", &ROLES)?;
        if role == "tool" {
            asked
                .as_mut()
                .map_or_else(|| Err(stray(index)), |a| a.answer(&message, index))?;
        } else if let Some(asked) = asked.take() {
            asked.settled()?;
        }
        one(&message, role, &mut seen)?;
        if role == "assistant" {
            asked = calls(&message)?.map(|open| Asked {
                index,
                all: open.clone(),
                open,
            });
        }
    }
    if let Some(asked) = asked {
        asked.settled()?;
    }
    Ok(seen)
}

/// The tool calls of one assistant message.
struct Asked {
    index: usize,
    all: Vec<String>,
    open: Vec<String>,
}

impl Asked {
    fn answer(&mut self, message: &Object<'_>, index: usize) -> Result<(), ApiError> {
        let id = message.string("tool_call_id")?;
        if !self.all.iter().any(|known| known == id) {
            return Err(ApiError::invalid(format!(
                "Invalid parameter: 'tool_call_id' of '{id}' not found in 'tool_calls' of previous message."
            ))
            .param(format!("messages.[{index}].tool_call_id")));
        }
        self.open.retain(|open| open != id);
        Ok(())
    }

    fn settled(self) -> Result<(), ApiError> {
        if self.open.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
             'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            self.open.join(", ")
        ))
        .param(format!("messages.[{}].role", self.index)))
    }
}

fn stray(index: usize) -> ApiError {
    ApiError::invalid(
        // The misspelling is the service's own.
        "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
    )
    .param(format!("messages.[{index}].role"))
}

/// Checks one message's fields and adds it to what has been seen.
fn one(message: &Object<'_>, role: &str, seen: &mut Messages) -> Result<(), ApiError> {
    message.only(match role {
        "assistant" => &[
            "role",
            "content",
            "name",
            "refusal",
            "audio",
            "annotations",
            "tool_calls",
            "function_call",
        ],
        "tool" => &["role", "content", "tool_call_id"],
        _ => &["role", "content", "name"],
    })?;
    message.maybe_string("name")?;
    seen.prompt_tokens += TOKENS_PER_MESSAGE;
    if role == "user" {
        seen.attachments = Attachments::default();
    }
    let mut texts = Vec::new();
    match message.get("content") {
        None if role == "assistant" && speaks_otherwise(message) => {}
        None => {
            let path = message.path_of("content");
            return Err(ApiError::invalid(format!(
                "Invalid value for 'content': expected a string, got null. ('{path}')"
            ))
            .param(path));
        }
        Some(Value::String(text)) => texts.push(text.as_str()),
        Some(Value::Array(parts)) => {
            let path = message.path_of("content");
            if parts.is_empty() {
                return Err(empty_array(&path));
            }
            for (index, value) in parts.iter().enumerate() {
                texts.extend(part(value, &format!("{path}[{index}]"), role, seen)?);
            }
        }
        Some(other) => {
            return Err(wrong_type(
                &message.path_of("content"),
                "one of a string or array of objects",
                other,
            ));
        }
    }
    for text in &texts {
        seen.text(text);
    }
    match role {
        "user" => seen.last_user = texts.join(" "),
        "tool" => seen.results.push(texts.join(" ")),
        _ => {}
    }
    if role != "tool" {
        seen.results.clear();
    }
    Ok(())
}

/// An assistant message may leave its content out if it calls a tool, refuses, or spoke aloud.
fn speaks_otherwise(message: &Object<'_>) -> bool {
    ["tool_calls", "function_call", "refusal", "audio"]
        .iter()
        .any(|key| message.get(key).is_some())
}

/// Checks a content part; returns its text, if it has one, and counts it if it has none.
fn part<'a>(value: &'a Value, path: &str, role: &str, seen: &mut Messages) -> Result<Option<&'a str>, ApiError> {
    let part = Object::of(value, path)?;
    let kinds: &[&str] = match role {
        "user" => &["text", "image_url", "input_audio", "file"],
        "assistant" => &["text", "refusal"],
        _ => &["text"],
    };
    let kind = part.choice("type", kinds)?;
    part.only(&["type", kind])?;
    if matches!(kind, "text" | "refusal") {
        // Borrowed from the value, not from `part`, which lives only here.
        part.string(kind)?;
        return Ok(value.get(kind).and_then(Value::as_str));
    }
    let inner_path = part.path_of(kind);
    let inner = Object::of(part.required(kind)?, &inner_path)?;
    match kind {
        "image_url" => {
            inner.only(&["url", "detail"])?;
            let url = inner.string("url")?;
            if !["http://", "https://", "data:image/"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
            {
                return Err(ApiError::invalid(format!(
                    "Invalid '{inner_path}.url'. Expected a valid URL, but got a value with an invalid format."
                ))
                .param(format!("{inner_path}.url"))
                .code("invalid_value"));
            }
            inner.maybe_choice("detail", &["auto", "low", "high"])?;
        }
        "input_audio" => {
            inner.only(&["data", "format"])?;
            inner.string("data")?;
            inner.choice("format", &["wav", "mp3"])?;
        }
        _ => {
            inner.only(&["file_data", "file_id", "filename"])?;
            inner.maybe_string("filename")?;
            if inner.maybe_string("file_data")?.is_none() {
                inner.string("file_id")?;
            }
        }
    }
    seen.prompt_tokens += TOKENS_PER_ATTACHMENT;
    *match kind {
        "image_url" => &mut seen.attachments.images,
        "input_audio" => &mut seen.attachments.sounds,
        _ => &mut seen.attachments.files,
    } += 1;
    Ok(None)
}

/// The ids of an assistant message's tool calls, checked.
fn calls(message: &Object<'_>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(list) = message.maybe_filled_array("tool_calls")? else {
        return Ok(None);
    };
    let mut ids = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("{}[{index}]", message.path_of("tool_calls"));
        let call = Object::of(value, &path)?;
        let kind = call.choice("type", &["function", "custom"])?;
        call.only(&["id", "type", kind])?;
        ids.push(call.string("id")?.to_owned());
        let inner_path = call.path_of(kind);
        let inner = Object::of(call.required(kind)?, &inner_path)?;
        let payload = if kind == "function" { "arguments" } else { "input" };
        inner.only(&["name", payload])?;
        crate::check::name(&inner)?;
        inner.string(payload)?;
    }
    Ok(Some(ids))
}
