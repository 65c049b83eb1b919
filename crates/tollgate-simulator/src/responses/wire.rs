//! The answer as a response object, or as the events of a stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::ENCRYPTED;
use crate::{
    answer::{Answer, Block, Finish, Kind, Usage},
    ask::Ask,
    format::{Chunk, Frame, named_event},
    script::Behaviour,
    tokens::Piece,
};

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    })
}

fn response(frame: &Frame, ask: &Ask, output: &[Value], end: Option<(&Answer, &Behaviour)>) -> Value {
    let mut body = json!({
        "id": format!("resp_sim{:016x}", frame.serial),
        "object": "response",
        "created_at": frame.created,
        "status": "in_progress",
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": ask.limit,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": null,
        "user": null,
        "metadata": {},
    });
    if let Some((answer, behaviour)) = end {
        let incomplete = match answer.finish {
            Finish::Length => Some("max_output_tokens"),
            Finish::ContentFilter => Some("content_filter"),
            _ => None,
        };
        body["status"] = if incomplete.is_some() {
            "incomplete"
        } else {
            "completed"
        }
        .into();
        body["incomplete_details"] = incomplete.map_or(Value::Null, |reason| json!({"reason": reason}));
        if !behaviour.omit_usage {
            body["usage"] = usage(&answer.usage);
        }
    }
    body
}

fn logprob(piece: &Piece, top: u64) -> Value {
    let token = |text: &str, logprob: f64| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let mut chosen = token(&piece.text, -0.25);
    chosen["top_logprobs"] = (0..top)
        .map(|rank| match rank {
            0 => token(&piece.text, -0.25),
            rank => token(&format!("alt{rank}"), -1.5 * rank as f64),
        })
        .collect();
    chosen
}

/// An item of the output: whole, or as it begins.
fn item(frame: &Frame, ask: &Ask, index: usize, block: &Block, whole: bool) -> Value {
    let content = if whole { block.content() } else { String::new() };
    let id = |prefix: &str| format!("{prefix}_sim{:016x}{index:02}", frame.serial);
    let status = if whole { "completed" } else { "in_progress" };
    match &block.kind {
        Kind::Reasoning => {
            let summary = if whole {
                json!([{"type": "summary_text", "text": content}])
            } else {
                json!([])
            };
            let mut item = json!({"id": id("rs"), "type": "reasoning", "summary": summary});
            if whole {
                item["encrypted_content"] = ENCRYPTED.into();
            }
            item
        }
        Kind::Call { name, .. } => json!({
            "id": id("fc"),
            "type": "function_call",
            "status": status,
            "call_id": format!("call_sim{:016x}{index:02}", frame.serial),
            "name": name,
            "arguments": content,
        }),
        Kind::Text | Kind::Refusal => {
            let content = if whole {
                json!([part(ask, block, true)])
            } else {
                json!([])
            };
            json!({"id": id("msg"), "type": "message", "status": status, "role": "assistant", "content": content})
        }
    }
}

fn part(ask: &Ask, block: &Block, whole: bool) -> Value {
    let content = if whole { block.content() } else { String::new() };
    if matches!(block.kind, Kind::Refusal) {
        return json!({"type": "refusal", "refusal": content});
    }
    let tokens: Vec<_> = match ask.logprobs.filter(|_| whole) {
        Some(top) => block.pieces.iter().map(|piece| logprob(piece, top)).collect(),
        None => Vec::new(),
    };
    json!({"type": "output_text", "text": content, "annotations": [], "logprobs": tokens})
}

/// The body of an answer that is not streamed.
pub(super) fn whole(frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes {
    let output: Vec<_> = answer
        .blocks
        .iter()
        .enumerate()
        .map(|(index, block)| item(frame, ask, index, block, true))
        .collect();
    response(frame, ask, &output, Some((answer, behaviour)))
        .to_string()
        .into()
}

/// Writes events with their numbers.
struct Events {
    number: u64,
    out: Vec<Chunk>,
}

impl Events {
    fn add(&mut self, mut data: Value, tokens: u64, content: bool) {
        data["sequence_number"] = self.number.into();
        self.number += 1;
        let name = data["type"].as_str().unwrap_or_default().to_owned();
        let bytes = named_event(&name, &data);
        self.out.push(if content {
            Chunk::content(bytes, tokens)
        } else {
            Chunk::around(bytes, tokens)
        });
    }
}

/// The events of a stream.
pub(super) fn stream(frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
    let mut events = Events {
        number: 0,
        out: Vec::new(),
    };
    for kind in ["response.created", "response.in_progress"] {
        events.add(
            json!({"type": kind, "response": response(frame, ask, &[], None)}),
            0,
            false,
        );
    }
    let mut output = Vec::new();
    for (index, block) in answer.blocks.iter().enumerate() {
        let done = item(frame, ask, index, block, true);
        let begun = item(frame, ask, index, block, false);
        let head = match &block.kind {
            Kind::Call { tokens, .. } => *tokens,
            _ => 0,
        };
        events.add(
            json!({"type": "response.output_item.added", "output_index": index, "item": begun}),
            head,
            false,
        );
        contents(&mut events, ask, index, &done["id"], block);
        events.add(
            json!({"type": "response.output_item.done", "output_index": index, "item": done}),
            0,
            false,
        );
        output.push(done);
    }
    let end = response(frame, ask, &output, Some((answer, behaviour)));
    let kind = format!("response.{}", end["status"].as_str().unwrap_or("completed"));
    events.add(json!({"type": kind, "response": end}), 0, false);
    events.out
}

fn contents(events: &mut Events, ask: &Ask, index: usize, id: &Value, block: &Block) {
    let at = |kind: &str| json!({"type": kind, "item_id": id, "output_index": index});
    let with = |mut data: Value, more: Value| {
        if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
            data.extend(more);
        }
        data
    };
    let content = block.content();
    match &block.kind {
        Kind::Reasoning => {
            let empty = json!({"summary_index": 0, "part": {"type": "summary_text", "text": ""}});
            events.add(with(at("response.reasoning_summary_part.added"), empty), 0, false);
            for piece in &block.pieces {
                let data = at("response.reasoning_summary_text.delta");
                events.add(
                    with(data, json!({"summary_index": 0, "delta": piece.text})),
                    piece.tokens,
                    true,
                );
            }
            let done = json!({"summary_index": 0, "text": content});
            events.add(with(at("response.reasoning_summary_text.done"), done), 0, false);
            let part = json!({"summary_index": 0, "part": {"type": "summary_text", "text": content}});
            events.add(with(at("response.reasoning_summary_part.done"), part), 0, false);
        }
        Kind::Call { .. } => {
            for piece in &block.pieces {
                let data = at("response.function_call_arguments.delta");
                events.add(with(data, json!({"delta": piece.text})), piece.tokens, true);
            }
            let done = at("response.function_call_arguments.done");
            events.add(with(done, json!({"arguments": content})), 0, false);
        }
        Kind::Text | Kind::Refusal => {
            let (name, field) = match block.kind {
                Kind::Refusal => ("refusal", "refusal"),
                _ => ("output_text", "text"),
            };
            let begun = json!({"content_index": 0, "part": part(ask, block, false)});
            events.add(with(at("response.content_part.added"), begun), 0, false);
            for piece in &block.pieces {
                let tokens: Vec<_> = ask.logprobs.map(|top| logprob(piece, top)).into_iter().collect();
                let delta = json!({"content_index": 0, "delta": piece.text, "logprobs": tokens});
                events.add(with(at(&format!("response.{name}.delta")), delta), piece.tokens, true);
            }
            let mut done = json!({"content_index": 0, "logprobs": []});
            done[field] = content.into();
            events.add(with(at(&format!("response.{name}.done")), done), 0, false);
            let whole = json!({"content_index": 0, "part": part(ask, block, true)});
            events.add(with(at("response.content_part.done"), whole), 0, false);
        }
    }
}
