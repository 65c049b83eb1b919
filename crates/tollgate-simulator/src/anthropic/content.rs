//! The conversation: whose turn it is, what blocks a turn may hold, and that calls and results belong together.

use serde_json::Value;

use super::SIGNATURE;
use crate::{
    ask::{Attachments, TOKENS_PER_ATTACHMENT},
    check::{Object, wrong_type},
    error::ApiError,
    tokens,
};

const TOKENS_PER_TURN: u64 = 4;
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// What has been read so far.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) prompt: String,
    pub(super) input_tokens: u64,
    pub(super) attachments: Attachments,
    pub(super) results: Vec<String>,
    /// Whether any turn holds a call or a result.
    pub(super) has_tools: bool,
    /// Calls of the last assistant turn.
    calls: Vec<String>,
    markers: usize,
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message)
}

impl Conversation {
    pub(super) fn system(&mut self, system: Option<&Value>) -> Result<(), ApiError> {
        match system {
            None => Ok(()),
            Some(Value::String(text)) => {
                self.input_tokens += tokens::count(text);
                Ok(())
            }
            Some(Value::Array(blocks)) => {
                for (index, block) in blocks.iter().enumerate() {
                    let path = format!("system.{index}");
                    let block = Object::of(block, &path)?;
                    block.choice("type", &["text"])?;
                    self.text(&block)?;
                }
                Ok(())
            }
            Some(other) => Err(wrong_type("system", "a valid string or list", other)),
        }
    }

    pub(super) fn turns(&mut self, turns: &[Value], thinking: bool) -> Result<(), ApiError> {
        if turns.is_empty() {
            return Err(refuse("messages: at least one message is required"));
        }
        let mut last = String::new();
        for (index, turn) in turns.iter().enumerate() {
            let path = format!("messages.{index}");
            let turn = Object::of(turn, &path)?;
            turn.only(&["role", "content"])?;
            let role = turn.choice("role", &["user", "assistant"])?.to_owned();
            if role == last {
                let message = "messages: roles must alternate between \"user\" and \"assistant\", but found multiple ";
                return Err(refuse(format!("{message}\"{role}\" roles in a row")));
            }
            if index == 0 && role != "user" {
                return Err(refuse("messages: first message must use the \"user\" role"));
            }
            last.clone_from(&role);
            self.input_tokens += TOKENS_PER_TURN;
            let is_final = index + 1 == turns.len();
            let content = turn.required("content")?;
            if role == "user" {
                self.user(content, &path)?;
            } else {
                self.assistant(content, &path, is_final, thinking && index + 2 == turns.len())?;
            }
        }
        if !self.calls.is_empty() {
            return Err(self.unanswered());
        }
        Ok(())
    }

    fn unanswered(&self) -> ApiError {
        refuse(format!(
            "messages: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
             block must have a corresponding `tool_result` block in the next message.",
            self.calls.join(", ")
        ))
    }

    fn user(&mut self, content: &Value, path: &str) -> Result<(), ApiError> {
        self.results.clear();
        self.attachments = Attachments::default();
        let mut words = Vec::new();
        let mut answered = Vec::new();
        match content {
            Value::String(text) if text.is_empty() => {
                return Err(refuse(format!("{path}: user messages must have non-empty content")));
            }
            Value::String(text) => {
                self.input_tokens += tokens::count(text);
                words.push(text.clone());
            }
            Value::Array(blocks) if blocks.is_empty() => {
                return Err(refuse(format!("{path}: user messages must have non-empty content")));
            }
            Value::Array(blocks) => {
                for (index, block) in blocks.iter().enumerate() {
                    let path = format!("{path}.content.{index}");
                    let block = Object::of(block, &path)?;
                    match block.choice("type", &["text", "image", "document", "tool_result"])? {
                        "text" => words.push(self.text(&block)?),
                        "tool_result" => {
                            if !words.is_empty() {
                                return Err(refuse(format!("{path}: tool_result blocks must come first")));
                            }
                            answered.push(self.result(&block, &path)?);
                        }
                        kind => self.media(&block, kind)?,
                    }
                }
            }
            other => return Err(wrong_type(&format!("{path}.content"), "a valid string or list", other)),
        }
        for id in &answered {
            let Some(place) = self.calls.iter().position(|call| call == id) else {
                let message = format!("{path}: unexpected `tool_use_id` found in `tool_result` blocks: {id}.");
                return Err(refuse(message));
            };
            self.calls.remove(place);
        }
        if !self.calls.is_empty() {
            return Err(self.unanswered());
        }
        if !words.is_empty() {
            self.prompt = words.join(" ");
            self.results.clear();
        }
        Ok(())
    }

    fn assistant(&mut self, content: &Value, path: &str, is_final: bool, must_think: bool) -> Result<(), ApiError> {
        if !self.calls.is_empty() {
            return Err(self.unanswered());
        }
        let blocks = match content {
            Value::String(text) => {
                self.input_tokens += tokens::count(text);
                if is_final && text.ends_with(char::is_whitespace) {
                    return Err(refuse(
                        "messages: final assistant content cannot end with trailing whitespace",
                    ));
                }
                return if text.is_empty() {
                    Err(refuse(format!("{path}: all messages must have non-empty content")))
                } else {
                    Ok(())
                };
            }
            Value::Array(blocks) => blocks,
            other => return Err(wrong_type(&format!("{path}.content"), "a valid string or list", other)),
        };
        let (mut calls, mut words) = (false, false);
        for (index, block) in blocks.iter().enumerate() {
            let path = format!("{path}.content.{index}");
            let block = Object::of(block, &path)?;
            match block.choice("type", &["text", "thinking", "redacted_thinking", "tool_use"])? {
                "text" => {
                    words = true;
                    let text = self.text(&block)?;
                    if is_final && index + 1 == blocks.len() && text.ends_with(char::is_whitespace) {
                        return Err(refuse(
                            "messages: final assistant content cannot end with trailing whitespace",
                        ));
                    }
                }
                "thinking" => {
                    block.only(&["type", "thinking", "signature"])?;
                    block.string("thinking")?;
                    if block.string("signature")? != SIGNATURE {
                        return Err(refuse(format!("{path}: Invalid `signature` in `thinking` block")));
                    }
                    if calls || words {
                        return Err(refuse(format!("{path}: thinking must come before text and tool_use")));
                    }
                }
                "redacted_thinking" => {
                    block.only(&["type", "data"])?;
                    block.string("data")?;
                }
                _ => {
                    calls = true;
                    self.call(&block, &path)?;
                }
            }
        }
        let first = blocks
            .first()
            .and_then(|block| block.get("type"))
            .and_then(Value::as_str);
        if must_think && calls && !matches!(first, Some("thinking" | "redacted_thinking")) {
            return Err(refuse(format!(
                "{path}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
            )));
        }
        Ok(())
    }

    fn call(&mut self, block: &Object<'_>, path: &str) -> Result<(), ApiError> {
        block.only(&["type", "id", "name", "input", "cache_control"])?;
        self.marker(block)?;
        let id = block.string("id")?;
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return Err(refuse(format!(
                "{path}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            )));
        }
        if self.calls.iter().any(|known| known == id) {
            return Err(refuse("messages: `tool_use` ids must be unique"));
        }
        block.string("name")?;
        let input = block.required("input")?;
        Object::of(input, &format!("{path}.input"))?;
        self.input_tokens += tokens::count(&input.to_string());
        self.has_tools = true;
        self.calls.push(id.to_owned());
        Ok(())
    }

    fn result(&mut self, block: &Object<'_>, path: &str) -> Result<String, ApiError> {
        block.only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
        self.marker(block)?;
        block.maybe_bool("is_error")?;
        self.has_tools = true;
        let mut words = Vec::new();
        match block.get("content") {
            None => {}
            Some(Value::String(text)) => {
                self.input_tokens += tokens::count(text);
                words.push(text.clone());
            }
            Some(Value::Array(blocks)) => {
                for (index, block) in blocks.iter().enumerate() {
                    let path = format!("{path}.content.{index}");
                    let block = Object::of(block, &path)?;
                    match block.choice("type", &["text", "image", "document"])? {
                        "text" => words.push(self.text(&block)?),
                        kind => {
                            self.media(&block, kind)?;
                            words.push(format!("[{kind}]"));
                        }
                    }
                }
            }
            Some(other) => return Err(wrong_type(&format!("{path}.content"), "a valid string or list", other)),
        }
        self.results.push(words.join(" "));
        Ok(block.string("tool_use_id")?.to_owned())
    }

    fn text(&mut self, block: &Object<'_>) -> Result<String, ApiError> {
        block.only(&["type", "text", "cache_control", "citations"])?;
        self.marker(block)?;
        let text = block.string("text")?;
        if text.is_empty() {
            return Err(refuse("messages: text content blocks must be non-empty"));
        }
        self.input_tokens += tokens::count(text);
        Ok(text.to_owned())
    }

    fn media(&mut self, block: &Object<'_>, kind: &str) -> Result<(), ApiError> {
        block.only(&["type", "source", "title", "context", "citations", "cache_control"])?;
        self.marker(block)?;
        let path = block.path_of("source");
        let source = Object::of(block.required("source")?, &path)?;
        match source.choice("type", &["base64", "url", "text", "file"])? {
            "base64" => {
                source.only(&["type", "media_type", "data"])?;
                let known: &[&str] = if kind == "image" { &IMAGES } else { &["application/pdf"] };
                source.choice("media_type", known)?;
                let data = source.string("data")?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
                if data.is_empty() || data.len() % 4 != 0 || !data.bytes().all(plain) {
                    return Err(refuse(format!("{path}.data: invalid base64 data")));
                }
            }
            "url" => {
                source.only(&["type", "url"])?;
                if !source.string("url")?.starts_with("https://") {
                    return Err(refuse("Only HTTPS URLs are supported."));
                }
            }
            "text" if kind == "document" => {
                source.only(&["type", "media_type", "data"])?;
                source.choice("media_type", &["text/plain"])?;
                source.string("data")?;
            }
            "file" => {
                source.only(&["type", "file_id"])?;
                source.string("file_id")?;
            }
            _ => return Err(refuse(format!("{path}.type: invalid source"))),
        }
        self.input_tokens += TOKENS_PER_ATTACHMENT;
        *if kind == "image" {
            &mut self.attachments.images
        } else {
            &mut self.attachments.files
        } += 1;
        Ok(())
    }

    /// At most four markers in a request.
    fn marker(&mut self, block: &Object<'_>) -> Result<(), ApiError> {
        let Some(value) = block.get("cache_control") else {
            return Ok(());
        };
        let path = block.path_of("cache_control");
        let marker = Object::of(value, &path)?;
        marker.only(&["type", "ttl"])?;
        marker.choice("type", &["ephemeral"])?;
        marker.maybe_choice("ttl", &["5m", "1h"])?;
        self.markers += 1;
        if self.markers > 4 {
            return Err(refuse("A maximum of 4 blocks with cache_control may be provided."));
        }
        Ok(())
    }
}
