//! The answer as one body, or as messages of AWS's event stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::SIGNATURE;
use crate::{
    answer::{Answer, Block, Finish, Kind, Usage},
    format::{Chunk, Frame},
    script::Behaviour,
};

fn call_id(frame: &Frame, index: usize) -> String {
    format!("tooluse_sim{:016x}{index:02}", frame.serial)
}

fn usage(usage: &Usage) -> Value {
    let input = usage.input - usage.cached - usage.cache_write;
    json!({
        "inputTokens": input,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cacheReadInputTokens": usage.cached,
        "cacheWriteInputTokens": usage.cache_write,
    })
}

const fn stop(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::StopSequence(_) => "stop_sequence",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter | Finish::Refusal => "content_filtered",
    }
}

/// The body of an answer that is not streamed.
pub(super) fn whole(frame: &Frame, answer: &Answer, behaviour: &Behaviour) -> Bytes {
    let content: Vec<_> = answer
        .blocks
        .iter()
        .enumerate()
        .map(|(index, block)| whole_block(frame, index, block))
        .collect();
    let mut body = json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop(&answer.finish),
        "metrics": {"latencyMs": 1},
    });
    if !behaviour.omit_usage {
        body["usage"] = usage(&answer.usage);
    }
    body.to_string().into()
}

fn whole_block(frame: &Frame, index: usize, block: &Block) -> Value {
    let content = block.content();
    match &block.kind {
        Kind::Reasoning => {
            json!({"reasoningContent": {"reasoningText": {"text": content, "signature": SIGNATURE}}})
        }
        Kind::Text | Kind::Refusal => json!({"text": content}),
        Kind::Call { name, .. } => {
            let input: Value = serde_json::from_str(&content).unwrap_or_else(|_| json!({}));
            json!({"toolUse": {"toolUseId": call_id(frame, index), "name": name, "input": input}})
        }
    }
}

/// The messages of a stream: the usage comes after the stop.
pub(super) fn stream(frame: &Frame, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
    let around = |kind: &str, payload: Value, tokens| Chunk::around(event(kind, &payload), tokens);
    let mut out = vec![around("messageStart", json!({"role": "assistant"}), 0)];
    for (index, block) in answer.blocks.iter().enumerate() {
        if let Kind::Call { name, tokens, .. } = &block.kind {
            let start = json!({"toolUse": {"toolUseId": call_id(frame, index), "name": name}});
            let payload = json!({"contentBlockIndex": index, "start": start});
            out.push(around("contentBlockStart", payload, *tokens));
        }
        for piece in &block.pieces {
            let delta = match &block.kind {
                Kind::Reasoning => json!({"reasoningContent": {"text": piece.text}}),
                Kind::Text | Kind::Refusal => json!({"text": piece.text}),
                Kind::Call { .. } => json!({"toolUse": {"input": piece.text}}),
            };
            let payload = json!({"contentBlockIndex": index, "delta": delta});
            out.push(Chunk::content(event("contentBlockDelta", &payload), piece.tokens));
        }
        if matches!(block.kind, Kind::Reasoning) {
            let delta = json!({"reasoningContent": {"signature": SIGNATURE}});
            let payload = json!({"contentBlockIndex": index, "delta": delta});
            out.push(around("contentBlockDelta", payload, 0));
        }
        out.push(around("contentBlockStop", json!({"contentBlockIndex": index}), 0));
    }
    out.push(around("messageStop", json!({"stopReason": stop(&answer.finish)}), 0));
    if !behaviour.omit_usage {
        let payload = json!({"usage": usage(&answer.usage), "metrics": {"latencyMs": 1}});
        out.push(around("metadata", payload, 0));
    }
    out
}

/// An event as a message of the stream.
fn event(kind: &str, payload: &Value) -> Bytes {
    message(
        &[
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload,
    )
}

/// An exception as a message of the stream.
pub(super) fn exception(kind: &str, payload: &Value) -> Bytes {
    let headers = [
        (":exception-type", kind),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    message(&headers, payload)
}

/// `application/vnd.amazon.eventstream`: total length, length of the headers, their checksum, headers, payload, checksum
/// of all.
fn message(headers: &[(&str, &str)], payload: &Value) -> Bytes {
    const STRING: u8 = 7;
    let mut heads = Vec::new();
    for (name, value) in headers {
        heads.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        heads.extend(name.as_bytes());
        heads.push(STRING);
        heads.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        heads.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = Vec::new();
    out.extend(length(12 + heads.len() + payload.len() + 4));
    out.extend(length(heads.len()));
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(heads);
    out.extend(payload.as_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.into()
}
