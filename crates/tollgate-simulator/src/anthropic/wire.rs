//! The answer as a message, or as the events of a stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::SIGNATURE;
use crate::{
    answer::{Answer, Block, Finish, Kind, Usage},
    ask::Ask,
    format::{Chunk, Frame, named_event},
};

fn id(frame: &Frame) -> String {
    format!("msg_sim{:016x}", frame.serial)
}

fn call_id(frame: &Frame, index: usize) -> String {
    format!("toolu_sim{:016x}{index:02}", frame.serial)
}

fn usage(usage: &Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.input - usage.cached - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}

fn stop(finish: &Finish) -> (&'static str, Value) {
    match finish {
        Finish::Stop => ("end_turn", Value::Null),
        Finish::StopSequence(met) => ("stop_sequence", met.as_str().into()),
        Finish::Length => ("max_tokens", Value::Null),
        Finish::ToolCalls => ("tool_use", Value::Null),
        Finish::ContentFilter | Finish::Refusal => ("refusal", Value::Null),
    }
}

/// The body of an answer that is not streamed.
pub(super) fn whole(frame: &Frame, ask: &Ask, answer: &Answer) -> Bytes {
    let content: Vec<_> = answer
        .blocks
        .iter()
        .enumerate()
        .map(|(index, block)| whole_block(frame, index, block))
        .collect();
    let (reason, sequence) = stop(&answer.finish);
    json!({
        "id": id(frame),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage(&answer.usage, answer.usage.output),
    })
    .to_string()
    .into()
}

fn whole_block(frame: &Frame, index: usize, block: &Block) -> Value {
    let content = block.content();
    match &block.kind {
        Kind::Reasoning => json!({"type": "thinking", "thinking": content, "signature": SIGNATURE}),
        Kind::Text | Kind::Refusal => json!({"type": "text", "text": content}),
        Kind::Call { name, .. } => {
            let input: Value = serde_json::from_str(&content).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": call_id(frame, index), "name": name, "input": input})
        }
    }
}

/// The events of a stream.
pub(super) fn stream(frame: &Frame, ask: &Ask, answer: &Answer) -> Vec<Chunk> {
    let around = |name: &str, data: Value, tokens| Chunk::around(named_event(name, &data), tokens);
    let message = json!({
        "id": id(frame),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(&answer.usage, 1),
    });
    let mut out = vec![around(
        "message_start",
        json!({"type": "message_start", "message": message}),
        0,
    )];
    for (index, block) in answer.blocks.iter().enumerate() {
        let (start, tokens) = match &block.kind {
            Kind::Reasoning => (json!({"type": "thinking", "thinking": "", "signature": ""}), 0),
            Kind::Text | Kind::Refusal => (json!({"type": "text", "text": ""}), 0),
            Kind::Call { name, tokens, .. } => (
                json!({"type": "tool_use", "id": call_id(frame, index), "name": name, "input": {}}),
                *tokens,
            ),
        };
        let start = json!({"type": "content_block_start", "index": index, "content_block": start});
        out.push(around("content_block_start", start, tokens));
        if index == 0 {
            out.push(around("ping", json!({"type": "ping"}), 0));
        }
        for piece in &block.pieces {
            let delta = match &block.kind {
                Kind::Reasoning => json!({"type": "thinking_delta", "thinking": piece.text}),
                Kind::Text | Kind::Refusal => json!({"type": "text_delta", "text": piece.text}),
                Kind::Call { .. } => json!({"type": "input_json_delta", "partial_json": piece.text}),
            };
            let data = json!({"type": "content_block_delta", "index": index, "delta": delta});
            out.push(Chunk::content(named_event("content_block_delta", &data), piece.tokens));
        }
        if matches!(block.kind, Kind::Reasoning) {
            let delta = json!({"type": "signature_delta", "signature": SIGNATURE});
            let data = json!({"type": "content_block_delta", "index": index, "delta": delta});
            out.push(around("content_block_delta", data, 0));
        }
        out.push(around(
            "content_block_stop",
            json!({"type": "content_block_stop", "index": index}),
            0,
        ));
    }
    let (reason, sequence) = stop(&answer.finish);
    let delta = json!({
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": sequence},
        "usage": usage(&answer.usage, answer.usage.output),
    });
    out.push(around("message_delta", delta, 0));
    out.push(around("message_stop", json!({"type": "message_stop"}), 0));
    out
}
