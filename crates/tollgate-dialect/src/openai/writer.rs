//! Answers for a client: chunks of a stream, or a whole completion.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatEvent, ChatRequest, Citation, FinishReason, TokenLogprob},
};

use crate::{BadAnswer, names::fresh, side::Writer};

/// Makes the one choice of an answer.
pub(super) struct ChatWriter {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
    usage: Option<Usage>,
    /// Reasoning since its block began, which its signature completes.
    reasoning: String,
    /// Whether the first chunk, which has the role, is still to come.
    fresh: bool,
}

impl ChatWriter {
    pub(super) fn new(request: &ChatRequest, include_usage: bool) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: fresh("chatcmpl-"),
            created: since.as_secs(),
            model: request.model.clone(),
            include_usage,
            usage: None,
            reasoning: String::new(),
            fresh: true,
        }
    }

    fn start(&mut self, id: String, model: String) {
        if !id.is_empty() {
            self.id = id;
        }
        if !model.is_empty() {
            self.model = model;
        }
    }

    fn chunk(&mut self, mut delta: Value, finish: Option<&str>, logprobs: Value) -> Bytes {
        if std::mem::take(&mut self.fresh) {
            let mut first = Map::from_iter([("role".to_owned(), "assistant".into())]);
            if delta.get("tool_calls").is_none() && delta.get("content").is_none() {
                first.insert("content".to_owned(), "".into());
            }
            first.extend(delta.as_object().cloned().unwrap_or_default());
            delta = first.into();
        }
        let choice = json!({ "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish });
        self.envelope(vec![choice], Value::Null)
    }

    fn envelope(&self, choices: Vec<Value>, usage: Value) -> Bytes {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = usage;
        }
        chunk.to_string().into()
    }

    /// What a piece adds to the message. None for what is no content.
    fn delta(&mut self, event: ChatEvent) -> Result<Option<Value>, BadAnswer> {
        Ok(Some(match event {
            ChatEvent::Text { text } => json!({ "content": text }),
            ChatEvent::Refusal { text } => json!({ "refusal": text }),
            ChatEvent::Reasoning { text } => {
                self.reasoning.push_str(&text);
                json!({ "reasoning_content": text })
            }
            ChatEvent::ReasoningSignature { signature } => {
                let thinking = std::mem::take(&mut self.reasoning);
                json!({ "thinking_blocks": [{ "type": "thinking", "thinking": thinking, "signature": signature }] })
            }
            ChatEvent::RedactedReasoning { data } => {
                json!({ "thinking_blocks": [{ "type": "redacted_thinking", "data": data }] })
            }
            ChatEvent::ToolCall {
                index,
                id,
                name,
                arguments,
                signature,
            } => json!({ "tool_calls": [tool_call(index, id, name, arguments, signature)] }),
            ChatEvent::Citation { citation } => json!({ "annotations": [annotation(&citation)] }),
            ChatEvent::Media { media_type, data } if media_type.starts_with("image/") => {
                let url = format!("data:{media_type};base64,{data}");
                json!({ "images": [{ "type": "image_url", "image_url": { "url": url } }] })
            }
            ChatEvent::Media { .. } => return Err(BadAnswer::Inexpressible("sound")),
            ChatEvent::Start { .. }
            | ChatEvent::Logprobs { .. }
            | ChatEvent::Finish { .. }
            | ChatEvent::Usage { .. } => return Ok(None),
        }))
    }
}

impl Writer for ChatWriter {
    fn event(&mut self, event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer> {
        Ok(vec![match event {
            ChatEvent::Start { id, model } => {
                self.start(id, model);
                self.chunk(json!({}), None, Value::Null)
            }
            ChatEvent::Logprobs { tokens } => self.chunk(json!({}), None, logprobs(&tokens)),
            ChatEvent::Finish { reason, .. } => self.chunk(json!({}), Some(finish(reason)), Value::Null),
            ChatEvent::Usage { usage } => {
                self.usage = Some(usage);
                return Ok(Vec::new());
            }
            other => match self.delta(other)? {
                Some(delta) => self.chunk(delta, None, Value::Null),
                None => return Ok(Vec::new()),
            },
        }])
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        Ok(match self.usage.filter(|_| self.include_usage) {
            Some(usage) => vec![self.envelope(Vec::new(), usage_object(&usage))],
            None => Vec::new(),
        })
    }

    fn whole(&mut self, events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer> {
        let mut message = Map::from_iter([
            ("role".to_owned(), "assistant".into()),
            ("content".to_owned(), Value::Null),
            ("refusal".to_owned(), Value::Null),
        ]);
        let (mut reason, mut tokens, mut usage) = ("stop", Vec::new(), None);
        for event in events {
            match event {
                ChatEvent::Start { id, model } => self.start(id, model),
                ChatEvent::Finish { reason: why, .. } => reason = finish(why),
                ChatEvent::Usage { usage: used } => usage = Some(used),
                ChatEvent::Logprobs { tokens: more } => tokens.extend(more),
                content => {
                    if let Some(Value::Object(delta)) = self.delta(content)? {
                        delta
                            .into_iter()
                            .for_each(|(name, value)| add(&mut message, name, value));
                    }
                }
            }
        }
        let logprobs = if tokens.is_empty() {
            Value::Null
        } else {
            logprobs(&tokens)
        };
        let choice = json!({ "index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason });
        let mut body = json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
        });
        if let Some(usage) = usage {
            body["usage"] = usage_object(&usage);
        }
        Ok(body.to_string().into())
    }
}

/// Adds a delta's field to the message: texts grow, lists too, and pieces of one call come together.
fn add(message: &mut Map<String, Value>, name: String, value: Value) {
    match (message.get_mut(&name), value) {
        (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
        (known, Value::Array(calls)) if name == "tool_calls" => {
            let mut all = match known.map(Value::take) {
                Some(Value::Array(all)) => all,
                _ => Vec::new(),
            };
            calls.into_iter().for_each(|call| add_call(&mut all, call));
            message.insert(name, all.into());
        }
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
        (_, value) => {
            message.insert(name, value);
        }
    }
}

fn add_call(all: &mut Vec<Value>, mut call: Value) {
    let index = call.as_object_mut().and_then(|call| call.shift_remove("index"));
    let place = index.and_then(|index| usize::try_from(index.as_u64()?).ok());
    match place.and_then(|place| all.get_mut(place)) {
        Some(known) => {
            let more = call
                .pointer("/function/arguments")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if let Some(Value::String(arguments)) = known.pointer_mut("/function/arguments") {
                arguments.push_str(more);
            }
        }
        None => all.push(call),
    }
}

fn tool_call(
    index: u32,
    id: Option<String>,
    name: Option<String>,
    arguments: String,
    signature: Option<String>,
) -> Value {
    let mut function = Map::new();
    if let Some(name) = name {
        function.insert("name".to_owned(), name.into());
    }
    function.insert("arguments".to_owned(), arguments.into());
    let mut call = json!({ "index": index });
    if let Some(id) = id {
        call["id"] = id.into();
        call["type"] = "function".into();
    }
    call["function"] = function.into();
    if let Some(signature) = signature {
        call["extra_content"] = json!({ "google": { "thought_signature": signature } });
    }
    call
}

/// OpenAI's own form for a page on the web; documents of the prompt, which it has no form for, in one of the same build.
fn annotation(citation: &Citation) -> Value {
    let Citation {
        url,
        title,
        quote,
        answer,
        document,
        source,
    } = citation;
    let span = answer.map(|span| (span.start, span.end));
    match url {
        Some(url) => json!({ "type": "url_citation", "url_citation": {
            "url": url,
            "title": title.as_deref().unwrap_or_default(),
            "start_index": span.map_or(0, |span| span.0),
            "end_index": span.map_or(0, |span| span.1),
        } }),
        None => json!({ "type": "document_citation", "document_citation": {
            "document_index": document,
            "title": title,
            "content": quote,
            "source": source,
        } }),
    }
}

fn logprobs(tokens: &[TokenLogprob]) -> Value {
    let token = |token: &TokenLogprob| json!({ "token": token.token, "logprob": token.logprob, "bytes": token.bytes });
    let content: Vec<_> = tokens
        .iter()
        .map(|chosen| {
            let mut entry = token(chosen);
            entry["top_logprobs"] = chosen.alternatives.iter().map(token).collect();
            entry
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

const fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter | FinishReason::Refusal => "content_filter",
    }
}

/// With the names under which clients look for what Anthropic bills apart.
fn usage_object(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_input_tokens,
    })
}
