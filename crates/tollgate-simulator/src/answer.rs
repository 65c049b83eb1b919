//! What the simulator says: an echo of the prompt, a tool call, or JSON of the wanted shape. The same request under
//! the same script always gets the same answer, whole or streamed.

use serde_json::{Map, Value, json};

use crate::{
    request::{Format, Request, Tool},
    script::Behaviour,
    tokens::{self, Piece},
};

/// Longest echo of a prompt; what is beyond it is not repeated.
const ECHO_BYTES: usize = 64 * 1024;
/// How deep sample JSON follows a schema, which may be recursive.
const SAMPLE_DEPTH: usize = 8;

/// One answer, the same in each of the request's choices.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The text, or the tool's arguments.
    pub(crate) pieces: Vec<Piece>,
    /// The tool called, if the answer is a call.
    pub(crate) call: Option<ToolCall>,
    pub(crate) finish_reason: &'static str,
    pub(crate) usage: Usage,
}

/// A call's head; its arguments are the answer's pieces.
#[derive(Debug)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    /// A function with JSON arguments, or a custom tool with text input.
    pub(crate) function: bool,
    /// Tokens of the name.
    pub(crate) tokens: u64,
}

/// What the provider counts and bills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) prompt: u64,
    /// Over all choices.
    pub(crate) completion: u64,
    pub(crate) cached: u64,
}

impl Usage {
    pub(crate) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
    }
}

impl Answer {
    /// The text or the arguments in one piece.
    pub(crate) fn content(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }
}

/// Composes the answer to a valid request.
pub(crate) fn compose(request: &Request, behaviour: &Behaviour) -> Answer {
    let (text, call) = match &request.tool {
        Some(tool) => call(request, tool),
        None => (text(request, behaviour), None),
    };
    let head = call.as_ref().map_or(0, |call| call.tokens);
    let limit = request.limit.map(|limit| limit.saturating_sub(head));
    let (pieces, cut) = tokens::pieces(&text, behaviour.chunk_tokens, limit);
    let one: u64 = head + pieces.iter().map(|piece| piece.tokens).sum::<u64>();
    Answer {
        finish_reason: match &call {
            _ if cut => "length",
            Some(_) => "tool_calls",
            None => "stop",
        },
        pieces,
        call,
        usage: Usage {
            prompt: request.prompt_tokens,
            completion: one * request.n,
            cached: behaviour.cached_tokens.min(request.prompt_tokens),
        },
    }
}

fn call(request: &Request, tool: &Tool) -> (String, Option<ToolCall>) {
    let name_tokens = tokens::count(&tool.name);
    let head = ToolCall {
        name: tool.name.clone(),
        function: tool.parameters.is_some(),
        tokens: request.limit.map_or(name_tokens, |limit| limit.min(name_tokens)),
    };
    let arguments = match &tool.parameters {
        Some(schema) => object_sample(schema, &request.prompt).to_string(),
        None => request.prompt.clone(),
    };
    (arguments, Some(head))
}

fn text(request: &Request, behaviour: &Behaviour) -> String {
    let echo = &request.prompt[..request.prompt.floor_char_boundary(ECHO_BYTES)];
    let said = format!("You said: {echo}");
    let said = behaviour.output_words.map_or(said.clone(), |words| fit(&said, words));
    let text = match &request.format {
        Format::Text => said,
        Format::Object => json!({"said": said}).to_string(),
        Format::Schema(schema) => object_sample(schema, &said).to_string(),
    };
    let end = request
        .stop
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.find(stop.as_str()));
    match end.min() {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Cuts a text to so many words, or pads it with numbered ones.
fn fit(text: &str, words: u32) -> String {
    let wanted = words as usize;
    let mut list: Vec<String> = text.split_whitespace().take(wanted).map(str::to_owned).collect();
    list.extend((list.len() + 1..=wanted).map(|number| format!("word{number}")));
    list.join(" ")
}

/// An object that fits a schema's properties; strings carry the given text.
fn object_sample(schema: &Value, text: &str) -> Value {
    match sample(schema, text, SAMPLE_DEPTH) {
        Value::Object(map) => Value::Object(map),
        _ => Value::Object(Map::new()),
    }
}

/// A value for the everyday part of JSON schema; null where it asks for more.
fn sample(schema: &Value, text: &str, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema.get("enum").and_then(|list| list.get(0)) {
        return first.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(kind) => kind.as_str(),
        None if schema.get("properties").is_some() => Some("object"),
        None => None,
    };
    match kind {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let fields = properties.into_iter().flatten();
            Value::Object(
                fields
                    .map(|(key, schema)| (key.clone(), sample(schema, text, depth - 1)))
                    .collect(),
            )
        }
        Some("array") => match schema.get("items") {
            Some(items) => json!([sample(items, text, depth - 1)]),
            None => json!([]),
        },
        Some("string") => json!(text),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        _ => Value::Null,
    }
}
