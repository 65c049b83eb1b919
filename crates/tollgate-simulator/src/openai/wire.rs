//! The answer as bytes on the wire: the whole body, or the chunks of a stream.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    answer::{Answer, Block, Finish, Kind, Usage},
    ask::Ask,
    format::{Chunk, Frame, event},
    script::Behaviour,
    tokens::Piece,
};

const FINGERPRINT: &str = "fp_simulator";

fn id(frame: &Frame) -> String {
    format!("chatcmpl-sim{:016x}", frame.serial)
}

fn call_id(frame: &Frame, index: usize) -> String {
    match index {
        0 => format!("call_sim{:016x}", frame.serial),
        index => format!("call_sim{:016x}_{index}", frame.serial),
    }
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

const fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::Refusal => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter => "content_filter",
    }
}

/// The body of an answer that is not streamed.
pub(super) fn whole(frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes {
    let mut message = json!({"role": "assistant", "content": null, "refusal": null, "annotations": []});
    let (mut calls, mut tokens) = (Vec::new(), Vec::new());
    for block in &answer.blocks {
        let content = block.content();
        match &block.kind {
            Kind::Reasoning => message["reasoning_content"] = content.into(),
            Kind::Text => {
                tokens.extend(block.pieces.iter().map(|piece| logprob(piece, ask.logprobs)));
                message["content"] = content.into();
            }
            Kind::Refusal => message["refusal"] = content.into(),
            Kind::Call { name, function, .. } => {
                calls.push(call_json(&call_id(frame, calls.len()), name, *function, &content, None));
            }
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let logprobs = ask.logprobs.map(|_| json!({"content": tokens, "refusal": null}));
    let choices: Vec<Value> = (0..ask.n)
        .map(|index| {
            json!({
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": finish_reason(&answer.finish),
            })
        })
        .collect();
    let mut body = json!({
        "id": id(frame),
        "object": "chat.completion",
        "created": frame.created,
        "model": ask.model,
        "choices": choices,
        "service_tier": ask.service_tier,
        "system_fingerprint": FINGERPRINT,
    });
    if !behaviour.omit_usage {
        body["usage"] = usage(&answer.usage);
    }
    body.to_string().into()
}

/// The chunks of a stream.
pub(super) fn stream(frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
    let chunks = Chunks::new(frame, ask, !behaviour.omit_usage && ask.include_usage);
    let mut out = Vec::new();
    if !matches!(
        answer.blocks.first(),
        Some(Block {
            kind: Kind::Call { .. },
            ..
        })
    ) {
        let head = r#"{"role":"assistant","content":"","refusal":null}"#;
        out.extend((0..ask.n).map(|index| chunks.around(index, head, 0)));
    }
    let mut calls = 0;
    for block in &answer.blocks {
        let call = matches!(block.kind, Kind::Call { .. }).then_some(calls);
        if let Some(call) = call {
            calls += 1;
            let is_first = out.is_empty();
            out.extend((0..ask.n).map(|index| chunks.head(frame, index, block, call, is_first)));
        }
        for piece in &block.pieces {
            for index in 0..ask.n {
                let delta = delta(block, &piece.text, call);
                let mut chunk = chunks.content(index, &delta, piece, ask.logprobs.filter(|_| call.is_none()));
                chunk.paced = index == 0;
                out.push(chunk);
            }
        }
    }
    let reason = finish_reason(&answer.finish);
    out.extend((0..ask.n).map(|index| chunks.finish(index, reason)));
    if chunks.usage {
        out.push(chunks.chunk("", &usage(&answer.usage).to_string(), 0));
    }
    out.push(Chunk::around(event("[DONE]"), 0));
    out
}

/// A tool call as JSON; `index` only in streams.
fn call_json(id: &str, name: &str, function: bool, arguments: &str, index: Option<usize>) -> Value {
    let mut value = if function {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    } else {
        json!({"id": id, "type": "custom", "custom": {"name": name, "input": arguments}})
    };
    if let Some(index) = index {
        value["index"] = index.into();
    }
    value
}

/// A token with its probability: the first token is sure, later ones less so.
fn logprob(piece: &Piece, top: Option<u64>) -> Value {
    let token = |text: &str, logprob: f64| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let alternatives = (0..top.unwrap_or_default()).map(|rank| match rank {
        0 => token(&piece.text, -0.25),
        rank => token(&format!("alt{rank}"), -1.5 * rank as f64),
    });
    let mut chosen = token(&piece.text, -0.25);
    chosen["top_logprobs"] = alternatives.collect();
    chosen
}

/// A delta with a piece of text, reasoning or arguments.
fn delta(block: &Block, text: &str, call: Option<usize>) -> String {
    let text = Value::from(text);
    match &block.kind {
        Kind::Text => format!(r#"{{"content":{text}}}"#),
        Kind::Refusal => format!(r#"{{"refusal":{text}}}"#),
        Kind::Reasoning => format!(r#"{{"reasoning_content":{text}}}"#),
        Kind::Call { function, .. } => {
            let index = call.unwrap_or_default();
            let (kind, field) = if *function {
                ("function", "arguments")
            } else {
                ("custom", "input")
            };
            format!(r#"{{"tool_calls":[{{"index":{index},"{kind}":{{"{field}":{text}}}}}]}}"#)
        }
    }
}

/// Writes chunks by joining ready-made parts: streams are what load tests of the gateway spend the simulator's CPU on.
struct Chunks {
    /// Everything before the choices.
    head: String,
    /// Whether the stream reports usage: then every chunk but the last says `"usage":null`.
    usage: bool,
}

impl Chunks {
    fn new(frame: &Frame, ask: &Ask, usage: bool) -> Self {
        Self {
            head: format!(
                r#"{{"id":"{}","object":"chat.completion.chunk","created":{},"model":{},"service_tier":"{}","system_fingerprint":"{FINGERPRINT}","choices":["#,
                id(frame),
                frame.created,
                Value::from(ask.model.as_str()),
                ask.service_tier,
            ),
            usage,
        }
    }

    /// The first chunk of a call, and of the answer if that begins with it.
    fn head(&self, frame: &Frame, index: u64, block: &Block, call: usize, is_first: bool) -> Chunk {
        let Kind::Call { name, function, tokens } = &block.kind else {
            return self.around(index, "{}", 0);
        };
        let call = call_json(&call_id(frame, call), name, *function, "", Some(call));
        let mut delta = json!({"tool_calls": [call]});
        if is_first {
            delta = json!({"role": "assistant", "content": null, "tool_calls": delta["tool_calls"], "refusal": null});
        }
        self.around(index, &delta.to_string(), *tokens)
    }

    fn around(&self, index: u64, delta: &str, tokens: u64) -> Chunk {
        let choice = format!(r#"{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":null}}"#);
        self.chunk(&choice, "null", tokens)
    }

    fn content(&self, index: u64, delta: &str, piece: &Piece, logprobs: Option<u64>) -> Chunk {
        let logprobs = match logprobs {
            None => Value::Null,
            top => json!({"content": [logprob(piece, top)], "refusal": null}),
        };
        let choice = format!(r#"{{"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":null}}"#);
        Chunk {
            content: true,
            ..self.chunk(&choice, "null", piece.tokens)
        }
    }

    fn finish(&self, index: u64, reason: &str) -> Chunk {
        let choice = format!(r#"{{"index":{index},"delta":{{}},"logprobs":null,"finish_reason":"{reason}"}}"#);
        self.chunk(&choice, "null", 0)
    }

    fn chunk(&self, choice: &str, usage: &str, tokens: u64) -> Chunk {
        let head = &self.head;
        let data = if self.usage {
            format!(r#"{head}{choice}],"usage":{usage}}}"#)
        } else {
            format!("{head}{choice}]}}")
        };
        Chunk::around(event(&data), tokens)
    }
}
