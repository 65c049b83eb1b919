//! The answer as one response, or as the responses of a stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::SIGNATURE;
use crate::{
    answer::{Answer, Block, Finish, Kind, Usage},
    ask::Ask,
    format::{Chunk, Frame, event},
    script::Behaviour,
    tokens::Piece,
};

fn usage(usage: &Usage) -> Value {
    let mut object = json!({
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    });
    if usage.cached > 0 {
        object["cachedContentTokenCount"] = usage.cached.into();
    }
    if usage.reasoning > 0 {
        object["thoughtsTokenCount"] = usage.reasoning.into();
    }
    object
}

const fn reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::ContentFilter | Finish::Refusal => "SAFETY",
    }
}

fn response(frame: &Frame, ask: &Ask, parts: Vec<Value>, finish: Option<&Finish>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = reason(finish).into();
    }
    json!({
        "candidates": [candidate],
        "modelVersion": ask.model,
        "responseId": format!("sim{:016x}", frame.serial),
    })
}

/// The first call of an answer is signed, as the newest models do it.
fn call(name: &str, arguments: &str, is_first: bool) -> Value {
    let args: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
    let mut part = json!({"functionCall": {"name": name, "args": args}});
    if is_first {
        part["thoughtSignature"] = SIGNATURE.into();
    }
    part
}

fn whole_part(block: &Block, is_first_call: bool) -> Value {
    let content = block.content();
    match &block.kind {
        Kind::Reasoning => json!({"text": content, "thought": true}),
        Kind::Text | Kind::Refusal => json!({"text": content}),
        Kind::Call { name, .. } => call(name, &content, is_first_call),
    }
}

fn logprobs(pieces: &[Piece], top: u64) -> Value {
    let chosen = |piece: &Piece| json!({"token": piece.text, "logProbability": -0.25, "tokenId": 1});
    let tops = |piece: &Piece| {
        let candidates: Vec<_> = (0..top)
            .map(|rank| match rank {
                0 => chosen(piece),
                rank => json!({"token": format!("alt{rank}"), "logProbability": -1.5 * rank as f64, "tokenId": 1}),
            })
            .collect();
        json!({"candidates": candidates})
    };
    json!({
        "chosenCandidates": pieces.iter().map(chosen).collect::<Vec<_>>(),
        "topCandidates": pieces.iter().map(tops).collect::<Vec<_>>(),
    })
}

/// The body of an answer that is not streamed.
pub(super) fn whole(frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes {
    let is_call = |block: &Block| matches!(block.kind, Kind::Call { .. });
    let first = answer.blocks.iter().position(is_call);
    let parts = answer.blocks.iter().enumerate();
    let parts = parts
        .map(|(index, block)| whole_part(block, first == Some(index)))
        .collect();
    let mut body = response(frame, ask, parts, Some(&answer.finish));
    if let Some(top) = ask.logprobs {
        let text = answer.blocks.iter().filter(|block| matches!(block.kind, Kind::Text));
        let pieces: Vec<_> = text.flat_map(|block| block.pieces.clone()).collect();
        body["candidates"][0]["logprobsResult"] = logprobs(&pieces, top);
    }
    if !behaviour.omit_usage {
        body["usageMetadata"] = usage(&answer.usage);
    }
    body.to_string().into()
}

/// The responses of a stream: calls come whole, and the last response has no parts but the reason and the usage.
pub(super) fn stream(frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
    let mut out = Vec::new();
    let mut calls = 0;
    for block in &answer.blocks {
        if let Kind::Call { name, tokens, .. } = &block.kind {
            let part = call(name, &block.content(), calls == 0);
            calls += 1;
            let tokens = tokens + block.pieces.iter().map(|piece| piece.tokens).sum::<u64>();
            let body = response(frame, ask, vec![part], None);
            out.push(Chunk::content(event(&body.to_string()), tokens));
            continue;
        }
        for piece in &block.pieces {
            let part = match block.kind {
                Kind::Reasoning => json!({"text": piece.text, "thought": true}),
                _ => json!({"text": piece.text}),
            };
            let mut body = response(frame, ask, vec![part], None);
            if let (Some(top), Kind::Text) = (ask.logprobs, &block.kind) {
                body["candidates"][0]["logprobsResult"] = logprobs(std::slice::from_ref(piece), top);
            }
            out.push(Chunk::content(event(&body.to_string()), piece.tokens));
        }
    }
    let mut last = response(frame, ask, vec![json!({"text": ""})], Some(&answer.finish));
    if !behaviour.omit_usage {
        last["usageMetadata"] = usage(&answer.usage);
    }
    out.push(Chunk::around(event(&last.to_string()), 0));
    out
}
