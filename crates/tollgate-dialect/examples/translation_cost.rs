//! What translation costs: microseconds of CPU for a request and for each event of an answer, same dialect and crossed.
//!
//! `cargo run --release -p tollgate-dialect --example translation_cost`. One thread that does nothing else, so time is CPU
//! time; medians of 2,000 runs. The request is a conversation of 20 turns with tools, about 9 kB.

use std::time::Instant;

use serde_json::json;
use tollgate_dialect::{Order, Prepared, translate, view};
use tollgate_types::{
    Dialect, Operation,
    provider::{OnUnsupported, Quirks},
};

const RUNS: usize = 2000;
const PROVIDERS: [Dialect; 5] = [
    Dialect::OpenaiChat,
    Dialect::OpenaiResponses,
    Dialect::Anthropic,
    Dialect::Gemini,
    Dialect::Bedrock,
];

fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn request() -> String {
    let parameters =
        json!({ "type": "object", "properties": { "city": { "type": "string" }, "day": { "type": "string" } } });
    let tools: Vec<_> = (0..5)
        .map(|index| json!({ "type": "function", "function": { "name": format!("tool_{index}"), "parameters": parameters } }))
        .collect();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(8);
    let mut messages = vec![json!({ "role": "system", "content": text })];
    for index in 0..5 {
        let call = json!({ "id": format!("call_{index}"), "type": "function",
            "function": { "name": "tool_0", "arguments": "{\"city\":\"Rome\"}" } });
        messages.push(json!({ "role": "user", "content": text }));
        messages.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] }));
        messages.push(json!({ "role": "tool", "tool_call_id": format!("call_{index}"), "content": text }));
        messages.push(json!({ "role": "assistant", "content": text }));
    }
    messages.push(json!({ "role": "user", "content": text }));
    json!({ "model": "m", "stream": true, "messages": messages, "tools": tools }).to_string()
}

/// One event of text, as each provider streams it.
fn event(provider: Dialect) -> &'static [u8] {
    match provider {
        Dialect::OpenaiResponses => {
            br#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"hello","sequence_number":5,"logprobs":[]}"#
        }
        Dialect::Anthropic => {
            br#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}"#
        }
        Dialect::Gemini => {
            br#"{"candidates":[{"content":{"parts":[{"text":"hello"}],"role":"model"},"index":0}],"modelVersion":"m","responseId":"r"}"#
        }
        Dialect::Bedrock => br#"{"contentBlockDelta":{"contentBlockIndex":0,"delta":{"text":"hello"}}}"#,
        _ => {
            br#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hello"},"logprobs":null,"finish_reason":null}]}"#
        }
    }
}

#[allow(
    clippy::print_stdout,
    clippy::panic,
    reason = "a benchmark talks to the one who runs it"
)]
fn main() {
    let body = request();
    let Ok(seen) = view(Dialect::OpenaiChat, Operation::Chat, None, body.as_bytes()) else {
        panic!("the request is valid")
    };
    let order = |provider| Order {
        client: Dialect::OpenaiChat,
        provider,
        view: &seen,
        body: body.as_bytes(),
        model: "claude-sonnet-4-5",
        quirks: Quirks::default(),
        unsupported: OnUnsupported::Refuse,
    };
    println!("a request of {} bytes from OpenAI's client, median µs", body.len());
    let first = median(|| drop(view(Dialect::OpenaiChat, Operation::Chat, None, body.as_bytes())));
    println!("{:<20} {first:>8.1}", "first look (ingress)");
    println!("{:<20} {:>8} {:>10}", "to provider", "request", "per event");
    for provider in PROVIDERS {
        let request = median(|| drop(translate(&order(provider))));
        let Ok(Prepared::Call(call)) = translate(&order(provider)) else {
            panic!("a chat is a call")
        };
        let mut answer = call.answer;
        let per_event = median(|| drop(answer.event(event(provider))));
        println!("{:<20} {request:>8.1} {per_event:>10.2}", provider.as_str());
    }
}
