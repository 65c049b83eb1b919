//! Every provider's report of the usage, with what else decides the price.

use serde_json::{Value, json};
use tollgate_pricing::{Consumption, Tier, Unit};
use tollgate_types::{
    Dialect, Operation,
    provider::{OnUnsupported, Quirks},
};

use crate::{Order, Prepared, translate, view};

/// What the answer says, to a client of Chat Completions.
fn consumption(provider: Dialect, answer: &Value) -> Consumption {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let view = view(Dialect::OpenaiChat, Operation::Chat, None, body.as_bytes()).unwrap();
    let order = Order {
        client: Dialect::OpenaiChat,
        provider,
        view: &view,
        body: body.as_bytes(),
        model: "m",
        quirks: Quirks::default(),
        unsupported: OnUnsupported::Refuse,
    };
    let Prepared::Call(mut call) = translate(&order).unwrap() else {
        panic!("nothing is called");
    };
    call.answer.whole(answer.to_string().as_bytes()).unwrap();
    let used = call.answer.consumption().unwrap();
    // What the ledger has in its columns is the same.
    let usage = call.answer.summary().usage.unwrap();
    let sum = |of: fn(Unit) -> bool| -> u64 {
        let tokens = used.quantities.iter().filter(|(unit, _)| unit.is_token() && of(**unit));
        tokens.map(|(_, count)| count).sum()
    };
    assert_eq!(usage.input_tokens, used.prompt_tokens);
    assert_eq!(usage.input_tokens, sum(|unit| unit < Unit::Output));
    assert_eq!(usage.output_tokens, sum(|unit| unit >= Unit::Output));
    used
}

#[test]
fn each_dialect_tells_what_decides_the_price() {
    let message = json!({ "role": "assistant", "content": "hello" });
    let chat = json!({
        "id": "c", "model": "m", "service_tier": "flex",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "cost": 0.25,
                   "prompt_tokens_details": { "cached_tokens": 4, "image_tokens": 3 } },
    });
    let used = consumption(Dialect::OpenaiChat, &chat);
    assert_eq!((used.tier, used.quantities[&Unit::ImageInput]), (Some(Tier::Flex), 3));
    assert_eq!(used.stated_usd.map(|usd| usd.to_string()).as_deref(), Some("0.25"));

    let text = json!([{ "type": "output_text", "text": "hello", "annotations": [] }]);
    let responses = json!({
        "id": "r", "model": "m", "status": "completed", "service_tier": "priority",
        "output": [{ "type": "file_search_call", "id": "f", "status": "completed", "queries": [] },
                   { "type": "message", "id": "m", "role": "assistant", "status": "completed", "content": text }],
        "usage": { "input_tokens": 10, "output_tokens": 5 },
    });
    let used = consumption(Dialect::OpenaiResponses, &responses);
    assert_eq!(
        (used.tier, used.quantities[&Unit::FileSearch]),
        (Some(Tier::Priority), 1)
    );

    let anthropic = json!({
        "id": "msg", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "hello" }],
        "usage": { "input_tokens": 10, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 0,
                   "cache_creation": { "ephemeral_1h_input_tokens": 6, "ephemeral_5m_input_tokens": 1 },
                   "output_tokens": 5, "service_tier": "batch", "inference_geo": "us" },
    });
    let used = consumption(Dialect::Anthropic, &anthropic);
    assert_eq!(
        (used.tier, used.served.as_slice()),
        (Some(Tier::Batch), &["us".to_owned()][..])
    );
    assert_eq!(used.quantities[&Unit::CacheWrite1h], 6);

    let gemini = json!({
        "modelVersion": "gemini-3-pro",
        "candidates": [{ "content": { "role": "model", "parts": [{ "text": "hello" }] }, "finishReason": "STOP",
                         "groundingMetadata": { "webSearchQueries": ["a secret", "another"] } }],
        "usageMetadata": { "promptTokenCount": 10, "candidatesTokenCount": 5, "trafficType": "ON_DEMAND_FLEX",
                           "promptTokensDetails": [{ "modality": "IMAGE", "tokenCount": 8 }] },
    });
    let used = consumption(Dialect::Gemini, &gemini);
    assert_eq!((used.tier, used.quantities[&Unit::WebSearch]), (Some(Tier::Flex), 2));
    assert_eq!(used.quantities[&Unit::ImageInput], 8);

    let bedrock = json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": "hello" }] } },
        "stopReason": "end_turn", "serviceTier": { "type": "flex" },
        "usage": { "inputTokens": 10, "outputTokens": 5, "totalTokens": 15, "cacheReadInputTokens": 2 },
    });
    let used = consumption(Dialect::Bedrock, &bedrock);
    assert_eq!((used.tier, used.quantities[&Unit::CachedInput]), (Some(Tier::Flex), 2));
}
