//! Validation of a request as the real service does it.

use serde_json::Value;

use super::SIGNATURE;
use crate::{
    ask::{Ask, Attachments, Form, TOKENS_PER_ATTACHMENT, Tool},
    check::Object,
    error::ApiError,
    tokens,
};

const FIELDS: [&str; 13] = [
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "promptVariables",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
    "modelId",
];

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message)
}

/// Checks a parsed body.
pub(super) fn converse(body: &Value) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    request.only(&FIELDS)?;
    let mut reader = Reader::default();
    for block in request.maybe_array("system")?.into_iter().flatten() {
        let block = Object::of(block, "system")?;
        block.only(&["text", "cachePoint", "guardContent"])?;
        reader.tokens += tokens::count(block.maybe_string("text")?.unwrap_or_default());
    }
    for (index, turn) in request
        .maybe_filled_array("messages")?
        .into_iter()
        .flatten()
        .enumerate()
    {
        reader.turn(turn, &format!("messages.{index}"))?;
    }
    if reader.last_role != "user" {
        return Err(refuse("A conversation must end with a user message. Try again."));
    }
    let mut ask = Ask {
        include_usage: true,
        prompt: reader.prompt,
        input_tokens: reader.tokens,
        n: 1,
        attachments: reader.attachments,
        results: reader.results,
        ..Ask::default()
    };
    tools(&request, &mut ask)?;
    if reader.has_tools && ask.tools.is_empty() {
        return Err(refuse(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        ));
    }
    config(&request, &mut ask)?;
    Ok(ask)
}

#[derive(Default)]
struct Reader {
    last_role: String,
    prompt: String,
    tokens: u64,
    attachments: Attachments,
    results: Vec<String>,
    calls: Vec<String>,
    names: Vec<String>,
    has_tools: bool,
}

impl Reader {
    fn turn(&mut self, turn: &Value, path: &str) -> Result<(), ApiError> {
        let turn = Object::of(turn, path)?;
        turn.only(&["role", "content"])?;
        let role = turn.choice("role", &["user", "assistant"])?.to_owned();
        if role == self.last_role {
            return Err(refuse(
                "A conversation must alternate between user and assistant roles.",
            ));
        }
        if self.last_role.is_empty() && role != "user" {
            return Err(refuse("A conversation must start with a user message."));
        }
        self.last_role.clone_from(&role);
        let blocks = turn.maybe_filled_array("content")?;
        let blocks =
            blocks.ok_or_else(|| refuse(format!("The content field in the Message object at {path} is empty.")))?;
        if role == "user" {
            self.attachments = Attachments::default();
            self.results.clear();
        } else if !self.calls.is_empty() {
            return Err(self.unanswered());
        }
        let mut words = Vec::new();
        for block in blocks {
            self.block(&Object::of(block, path)?, &role, &mut words)?;
        }
        if role == "user" {
            if !self.calls.is_empty() {
                return Err(self.unanswered());
            }
            if !words.is_empty() {
                self.prompt = words.join(" ");
                self.results.clear();
            }
        }
        Ok(())
    }

    fn unanswered(&self) -> ApiError {
        refuse(format!(
            "Expected toolResult blocks for the following Ids: {}",
            self.calls.join(", ")
        ))
    }

    fn block(&mut self, block: &Object<'_>, role: &str, words: &mut Vec<String>) -> Result<(), ApiError> {
        let known = [
            "text",
            "image",
            "document",
            "toolUse",
            "toolResult",
            "reasoningContent",
            "cachePoint",
            "audio",
        ];
        block.only(&known)?;
        if block.map.len() != 1 {
            return Err(refuse("A ContentBlock must have exactly one member set."));
        }
        let misplaced = |what: &str| Err(refuse(format!("{what} is not allowed in a message with role {role}.")));
        let (kind, inner) = block
            .map
            .iter()
            .next()
            .map_or(("", &Value::Null), |(kind, inner)| (kind.as_str(), inner));
        match (kind, role) {
            ("text", _) => {
                let text = block.string("text")?;
                if text.trim().is_empty() {
                    return Err(refuse("The text field in the ContentBlock object is blank."));
                }
                self.tokens += tokens::count(text);
                words.push(text.to_owned());
            }
            ("cachePoint", _) => {
                let point = Object::of(inner, "cachePoint")?;
                point.only(&["type", "ttl"])?;
                point.choice("type", &["default"])?;
            }
            ("toolUse", "assistant") => self.call(inner)?,
            ("toolResult", "user") => self.result(inner)?,
            ("reasoningContent", "assistant") => {
                let reasoning = Object::of(inner, "reasoningContent")?;
                reasoning.only(&["reasoningText", "redactedContent"])?;
                if let Some(text) = reasoning.get("reasoningText")
                    && text.get("signature").and_then(Value::as_str) != Some(SIGNATURE)
                {
                    return Err(refuse("The signature of a reasoning block is invalid."));
                }
            }
            ("image" | "document" | "audio", "user") => {
                self.media(kind, inner)?;
                *match kind {
                    "image" => &mut self.attachments.images,
                    "audio" => &mut self.attachments.sounds,
                    _ => &mut self.attachments.files,
                } += 1;
            }
            _ => return misplaced(kind),
        }
        Ok(())
    }

    fn call(&mut self, value: &Value) -> Result<(), ApiError> {
        let call = Object::of(value, "toolUse")?;
        call.only(&["toolUseId", "name", "input", "type"])?;
        let id = call.string("toolUseId")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            return Err(refuse(
                "toolUseId must satisfy regular expression pattern: [a-zA-Z0-9_.:-]+",
            ));
        }
        call.string("name")?;
        let input = call.required("input")?;
        Object::of(input, "toolUse.input")?;
        self.tokens += tokens::count(&input.to_string());
        self.calls.push(id.to_owned());
        self.has_tools = true;
        Ok(())
    }

    fn result(&mut self, value: &Value) -> Result<(), ApiError> {
        let result = Object::of(value, "toolResult")?;
        result.only(&["toolUseId", "content", "status", "type"])?;
        result.maybe_choice("status", &["success", "error"])?;
        let id = result.string("toolUseId")?;
        let Some(place) = self.calls.iter().position(|call| call == id) else {
            return Err(refuse(
                "The number of toolResult blocks exceeds the number of toolUse blocks of previous turn.",
            ));
        };
        self.calls.remove(place);
        self.has_tools = true;
        let mut words = Vec::new();
        for block in result.maybe_array("content")?.into_iter().flatten() {
            let block = Object::of(block, "toolResult.content")?;
            block.only(&["text", "json", "image", "document"])?;
            if let Some(text) = block.maybe_string("text")? {
                words.push(text.to_owned());
            } else if let Some(json) = block.get("json") {
                words.push(json.to_string());
            } else if let Some(image) = block.get("image") {
                self.media("image", image)?;
                words.push("[image]".to_owned());
            } else if let Some(document) = block.get("document") {
                self.media("document", document)?;
                words.push("[document]".to_owned());
            }
        }
        let text = words.join(" ");
        self.tokens += tokens::count(&text);
        self.results.push(text);
        Ok(())
    }

    fn media(&mut self, kind: &str, value: &Value) -> Result<(), ApiError> {
        let media = Object::of(value, kind)?;
        media.only(&["format", "source", "name", "context", "citations"])?;
        let formats: &[&str] = match kind {
            "image" => &["png", "jpeg", "gif", "webp"],
            "audio" => &["mp3", "wav", "opus", "aac", "flac", "mp4", "ogg", "mkv", "webm", "m4a"],
            _ => &["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"],
        };
        media.choice("format", formats)?;
        if kind == "document" {
            let name = media.string("name")?.to_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || " -()[]".contains(c);
            if !name.chars().all(plain) || name.contains("  ") || self.names.contains(&name) {
                return Err(refuse(
                    "The document file name can only contain alphanumeric characters, whitespace \
                     characters, hyphens, parentheses, and square brackets, and must be unique.",
                ));
            }
            self.names.push(name);
        }
        let source = Object::of(media.required("source")?, "source")?;
        source.only(&["bytes", "s3Location", "text", "content"])?;
        if source.get("s3Location").is_none() && source.get("text").is_none() && source.string("bytes")?.is_empty() {
            return Err(refuse("The source of an image or document is empty."));
        }
        self.tokens += TOKENS_PER_ATTACHMENT;
        Ok(())
    }
}

fn tools(request: &Object<'_>, ask: &mut Ask) -> Result<(), ApiError> {
    let Some(config) = request.get("toolConfig") else {
        return Ok(());
    };
    let config = Object::of(config, "toolConfig")?;
    config.only(&["tools", "toolChoice"])?;
    for tool in config.maybe_filled_array("tools")?.into_iter().flatten() {
        let tool = Object::of(tool, "toolConfig.tools")?;
        tool.only(&["toolSpec", "cachePoint"])?;
        let Some(spec) = tool.get("toolSpec") else {
            continue;
        };
        let spec = Object::of(spec, "toolSpec")?;
        spec.only(&["name", "description", "inputSchema", "strict"])?;
        let name = spec.string("name")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(refuse(
                "Tool name must satisfy regular expression pattern: [a-zA-Z0-9_-]+",
            ));
        }
        if spec.maybe_string("description")? == Some("") {
            return Err(refuse("The description of a tool must not be empty."));
        }
        let schema = spec.required("inputSchema")?.get("json");
        let schema = schema.ok_or_else(|| refuse("inputSchema.json is required."))?;
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(refuse(
                "The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be object.",
            ));
        }
        ask.tools.push(Tool {
            name: name.to_owned(),
            parameters: Some(schema.clone()),
        });
    }
    let Some(choice) = config.get("toolChoice") else {
        return Ok(());
    };
    let choice = Object::of(choice, "toolChoice")?;
    choice.only(&["auto", "any", "tool"])?;
    if choice.get("any").is_some() {
        ask.forced = ask.tools.first().cloned();
    } else if let Some(tool) = choice.get("tool") {
        let name = Object::of(tool, "toolChoice.tool")?.string("name")?;
        let found = ask.tools.iter().find(|tool| tool.name == name).cloned();
        ask.forced = Some(found.ok_or_else(|| refuse("The tool of toolChoice is not defined."))?);
    }
    Ok(())
}

fn config(request: &Object<'_>, ask: &mut Ask) -> Result<(), ApiError> {
    if let Some(config) = request.get("inferenceConfig") {
        let config = Object::of(config, "inferenceConfig")?;
        config.only(&["maxTokens", "temperature", "topP", "stopSequences"])?;
        ask.limit = config.maybe_integer("maxTokens", 1, 1_000_000)?.map(i64::unsigned_abs);
        config.maybe_decimal("temperature", 0.0, 1.0)?;
        config.maybe_decimal("topP", 0.0, 1.0)?;
        let stops = config.maybe_array("stopSequences")?.into_iter().flatten();
        ask.stop = stops.filter_map(Value::as_str).map(str::to_owned).collect();
    }
    if let Some(config) = request.get("outputConfig") {
        let schema = config
            .pointer("/textFormat/structure/jsonSchema/schema")
            .and_then(Value::as_str);
        let schema =
            schema.ok_or_else(|| refuse("outputConfig.textFormat.structure.jsonSchema.schema is required."))?;
        let schema = serde_json::from_str(schema).map_err(|_| refuse("The JSON schema is not valid JSON."))?;
        ask.format = Form::Schema(schema);
    }
    if let Some(fields) = request.get("additionalModelRequestFields") {
        let fields = Object::of(fields, "additionalModelRequestFields")?;
        fields.only(&[
            "thinking",
            "top_k",
            "output_config",
            "reasoning_config",
            "inferenceConfig",
            "tool_choice",
            "anthropic_beta",
        ])?;
        let kind = fields
            .get("thinking")
            .and_then(|thinking| thinking.get("type"))
            .and_then(Value::as_str);
        ask.reasoning = matches!(kind, Some("enabled" | "adaptive"));
    }
    Ok(())
}
