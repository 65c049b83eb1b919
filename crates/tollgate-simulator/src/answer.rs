//! What the simulator says: an echo of the prompt, tool calls, or JSON of the wanted shape. The same request under the
//! same script always gets the same answer, whole or streamed.

use serde_json::{Map, Value, json};

use crate::{
    ask::{Ask, Form, Tool},
    script::Behaviour,
    tokens::{self, Piece},
};

/// Longest echo of a prompt; what is beyond it is not repeated.
const ECHO_BYTES: usize = 64 * 1024;
/// How deep sample JSON follows a schema, which may be recursive.
const SAMPLE_DEPTH: usize = 8;
/// Words of reasoning when a request turns it on and no directive says how many.
const REASONING_WORDS: u32 = 6;
const REFUSAL: &str = "I cannot help with that.";

/// One answer, the same in each of the request's choices.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) blocks: Vec<Block>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

/// A part of an answer.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) kind: Kind,
    /// The text, the reasoning, or the arguments.
    pub(crate) pieces: Vec<Piece>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Reasoning,
    Text,
    Refusal,
    Call {
        name: String,
        /// A function with JSON arguments, or a custom tool with text input.
        function: bool,
        /// Tokens of the name.
        tokens: u64,
    },
}

/// Why the answer ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finish {
    Stop,
    /// This stop sequence was met.
    StopSequence(String),
    Length,
    ToolCalls,
    ContentFilter,
    Refusal,
}

/// What the provider counts and bills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// All of the prompt.
    pub(crate) input: u64,
    /// Over all choices, reasoning included.
    pub(crate) output: u64,
    pub(crate) cached: u64,
    pub(crate) cache_write: u64,
    pub(crate) reasoning: u64,
}

impl Block {
    /// All pieces together.
    pub(crate) fn content(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    fn tokens(&self) -> u64 {
        let head = match &self.kind {
            Kind::Call { tokens, .. } => *tokens,
            _ => 0,
        };
        head + self.pieces.iter().map(|piece| piece.tokens).sum::<u64>()
    }
}

/// Composes the answer to a valid request.
pub(crate) fn compose(ask: &Ask, behaviour: &Behaviour) -> Answer {
    let mut composer = Composer {
        limit: ask.limit,
        per_piece: behaviour.chunk_tokens,
        blocks: Vec::new(),
        cut: false,
    };
    let words = behaviour.think_words.or(ask.reasoning.then_some(REASONING_WORDS));
    if let Some(words) = words {
        composer.add(Kind::Reasoning, &fit("Thinking about it:", words + 3));
    }
    let finish = say(ask, behaviour, &mut composer);
    let Composer { blocks, cut, .. } = composer;
    let reasoning = |block: &&Block| matches!(block.kind, Kind::Reasoning);
    let cached = behaviour.cached_tokens.min(ask.input_tokens);
    Answer {
        finish: if cut { Finish::Length } else { finish },
        usage: Usage {
            input: ask.input_tokens,
            output: blocks.iter().map(Block::tokens).sum::<u64>() * ask.n.max(1),
            cached,
            cache_write: behaviour.cache_write_tokens.min(ask.input_tokens - cached),
            reasoning: blocks.iter().filter(reasoning).map(Block::tokens).sum::<u64>() * ask.n.max(1),
        },
        blocks,
    }
}

/// Puts blocks together under one limit.
struct Composer {
    limit: Option<u64>,
    per_piece: u32,
    blocks: Vec<Block>,
    cut: bool,
}

impl Composer {
    fn add(&mut self, kind: Kind, text: &str) {
        if self.cut {
            return;
        }
        let head = match &kind {
            Kind::Call { tokens, .. } => *tokens,
            _ => 0,
        };
        let limit = self.limit.map(|limit| limit.saturating_sub(head));
        let (pieces, cut) = tokens::pieces(text, self.per_piece, limit);
        let block = Block { kind, pieces };
        self.limit = self.limit.map(|limit| limit.saturating_sub(block.tokens()));
        self.cut = cut;
        self.blocks.push(block);
    }

    fn call(&mut self, tool: &Tool, prompt: &str) {
        let tokens = tokens::count(&tool.name);
        let kind = Kind::Call {
            name: tool.name.clone(),
            function: tool.parameters.is_some(),
            tokens: self.limit.map_or(tokens, |limit| limit.min(tokens)),
        };
        let arguments = match &tool.parameters {
            Some(schema) => object_sample(schema, prompt).to_string(),
            None => prompt.to_owned(),
        };
        self.add(kind, &arguments);
    }
}

fn say(ask: &Ask, behaviour: &Behaviour, composer: &mut Composer) -> Finish {
    if behaviour.refuse {
        composer.add(Kind::Refusal, REFUSAL);
        return Finish::Refusal;
    }
    if let Some(tool) = &ask.forced {
        composer.call(tool, &ask.prompt);
        return Finish::ToolCalls;
    }
    if let Some(calls) = behaviour.calls
        && ask.results.is_empty()
        && !ask.no_tools
        && !ask.tools.is_empty()
    {
        let tools = ask.tools.iter().cycle().take(calls as usize);
        tools.for_each(|tool| composer.call(tool, &ask.prompt));
        return Finish::ToolCalls;
    }
    let (text, met) = text(ask, behaviour);
    composer.add(Kind::Text, &text);
    match met {
        _ if behaviour.filter => Finish::ContentFilter,
        Some(stop) => Finish::StopSequence(stop),
        None => Finish::Stop,
    }
}

/// The text, and the stop sequence that ended it.
fn text(ask: &Ask, behaviour: &Behaviour) -> (String, Option<String>) {
    let echo = |text: &str| text[..text.floor_char_boundary(ECHO_BYTES)].to_owned();
    let said = if ask.results.is_empty() {
        format!("You said: {}{}", echo(&ask.prompt), ask.attachments.note())
    } else {
        format!("The tools said: {}", echo(&ask.results.join(", ")))
    };
    let said = behaviour.output_words.map_or(said.clone(), |words| fit(&said, words));
    let text = match &ask.format {
        Form::Text => said,
        Form::Object => json!({"said": said}).to_string(),
        Form::Schema(schema) => object_sample(schema, &said).to_string(),
    };
    let met = ask
        .stop
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| Some((text.find(stop.as_str())?, stop)))
        .min_by_key(|(place, _)| *place);
    match met {
        Some((place, stop)) => (text[..place].to_owned(), Some(stop.clone())),
        None => (text, None),
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
    match kind.map(str::to_ascii_lowercase).as_deref() {
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
