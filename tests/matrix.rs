//! Every door with every provider behind it, feature by feature: what holds is written to `docs/matrix.md`.
//!
//! A cell is what a request of that dialect came to: the feature was seen to work, or the request was refused by name. A
//! request that was answered without the feature fails the test: nothing may be dropped in silence.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

use crate::harness::{KEY, MODELS, Options, Stack, events, read};

const PROVIDERS: [&str; 5] = ["OpenAI Chat", "OpenAI Responses", "Anthropic", "Gemini", "Bedrock"];
/// One pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const PDF: &str = "JVBERi0xLjQK";
const WAV: &str = "UklGRiQAAABXQVZF";

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Door {
    Chat,
    Responses,
    Anthropic,
    Gemini,
}

pub(crate) const DOORS: [(Door, &str); 4] = [
    (Door::Chat, "OpenAI Chat"),
    (Door::Responses, "OpenAI Responses"),
    (Door::Anthropic, "Anthropic"),
    (Door::Gemini, "Gemini"),
];

#[derive(Clone, Copy, PartialEq)]
enum Feature {
    Text,
    System,
    Image,
    Pdf,
    Audio,
    ParallelCalls,
    ForcedCall,
    ToolResults,
    Schema,
    Json,
    Reasoning,
    Stop,
    Limit,
    Temperature,
    TopK,
    Seed,
    Penalties,
    Logprobs,
}

const FEATURES: [(Feature, &str); 18] = [
    (Feature::Text, "text"),
    (Feature::System, "system prompt"),
    (Feature::Image, "image"),
    (Feature::Pdf, "PDF"),
    (Feature::Audio, "audio"),
    (Feature::ParallelCalls, "parallel tool calls"),
    (Feature::ForcedCall, "forced tool call"),
    (Feature::ToolResults, "tool results"),
    (Feature::Schema, "JSON by schema"),
    (Feature::Json, "JSON of any shape"),
    (Feature::Reasoning, "reasoning"),
    (Feature::Stop, "stop sequence"),
    (Feature::Limit, "limit of the answer"),
    (Feature::Temperature, "temperature"),
    (Feature::TopK, "top_k"),
    (Feature::Seed, "seed"),
    (Feature::Penalties, "penalties"),
    (Feature::Logprobs, "log-probabilities"),
];

fn schema() -> Value {
    json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"], "additionalProperties": false })
}

fn merged(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

/// What is asked, in the door's dialect. None where the dialect itself has no way to ask.
fn request(door: Door, feature: Feature, model: &str) -> Option<Value> {
    match door {
        Door::Chat => chat(feature, model),
        Door::Responses => responses(feature, model),
        Door::Anthropic => anthropic(feature, model),
        Door::Gemini => gemini(feature),
    }
}

fn words(feature: Feature) -> &'static str {
    match feature {
        Feature::ParallelCalls | Feature::ToolResults => "hello #sim:calls=2",
        Feature::Limit => "hello #sim:words=60",
        Feature::Stop => "hello END more",
        Feature::Json => "hello json",
        _ => "hello",
    }
}

fn chat(feature: Feature, model: &str) -> Option<Value> {
    let user = |content: Value| json!([{ "role": "user", "content": content }]);
    let with = |part: Value| user(json!([{ "type": "text", "text": "hello" }, part]));
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": schema() } }]);
    let base = json!({ "model": model, "messages": user(words(feature).into()) });
    let more = match feature {
        Feature::Text => json!({}),
        Feature::System => {
            json!({ "messages": [{ "role": "system", "content": "brief" }, { "role": "user", "content": "hello" }] })
        }
        Feature::Image => {
            let url = format!("data:image/png;base64,{PNG}");
            json!({ "messages": with(json!({ "type": "image_url", "image_url": { "url": url } })) })
        }
        Feature::Pdf => {
            let data = format!("data:application/pdf;base64,{PDF}");
            json!({ "messages": with(json!({ "type": "file", "file": { "filename": "a.pdf", "file_data": data } })) })
        }
        Feature::Audio => {
            json!({ "messages": with(json!({ "type": "input_audio", "input_audio": { "data": WAV, "format": "wav" } })) })
        }
        Feature::ParallelCalls => json!({ "tools": tools }),
        Feature::ForcedCall => json!({ "tools": tools, "tool_choice": "required" }),
        Feature::ToolResults => {
            let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "weather", "arguments": "{}" } });
            json!({ "tools": tools, "messages": [
                { "role": "user", "content": words(feature) },
                { "role": "assistant", "content": null, "tool_calls": [call("a"), call("b")] },
                { "role": "tool", "tool_call_id": "a", "content": "one" },
                { "role": "tool", "tool_call_id": "b", "content": "two" } ] })
        }
        Feature::Schema => {
            json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "w", "strict": true, "schema": schema() } } })
        }
        Feature::Json => json!({ "response_format": { "type": "json_object" } }),
        Feature::Reasoning => json!({ "reasoning_effort": "low", "max_completion_tokens": 4000 }),
        Feature::Stop => json!({ "stop": ["END"] }),
        Feature::Limit => json!({ "max_completion_tokens": 20 }),
        Feature::Temperature => json!({ "temperature": 0.5 }),
        Feature::TopK => json!({ "top_k": 5 }),
        Feature::Seed => json!({ "seed": 7 }),
        Feature::Penalties => json!({ "presence_penalty": 0.5, "frequency_penalty": 0.5 }),
        Feature::Logprobs => json!({ "logprobs": true, "top_logprobs": 2 }),
    };
    Some(merged(base, more))
}

fn responses(feature: Feature, model: &str) -> Option<Value> {
    let with = |part: Value| json!([{ "role": "user", "content": [{ "type": "input_text", "text": "hello" }, part] }]);
    let tools = json!([{ "type": "function", "name": "weather", "parameters": schema(), "strict": true }]);
    let base = json!({ "model": model, "input": words(feature) });
    let more = match feature {
        Feature::Text => json!({}),
        Feature::System => json!({ "instructions": "brief" }),
        Feature::Image => {
            let url = format!("data:image/png;base64,{PNG}");
            json!({ "input": with(json!({ "type": "input_image", "image_url": url })) })
        }
        Feature::Pdf => {
            let data = format!("data:application/pdf;base64,{PDF}");
            json!({ "input": with(json!({ "type": "input_file", "filename": "a.pdf", "file_data": data })) })
        }
        Feature::Audio => {
            json!({ "input": with(json!({ "type": "input_audio", "input_audio": { "data": WAV, "format": "wav" } })) })
        }
        Feature::ParallelCalls => json!({ "tools": tools }),
        Feature::ForcedCall => json!({ "tools": tools, "tool_choice": "required" }),
        Feature::ToolResults => {
            let call =
                |id: &str| json!({ "type": "function_call", "call_id": id, "name": "weather", "arguments": "{}" });
            let output =
                |id: &str, text: &str| json!({ "type": "function_call_output", "call_id": id, "output": text });
            json!({ "tools": tools, "input": [
                { "role": "user", "content": words(feature) },
                call("a"), call("b"), output("a", "one"), output("b", "two") ] })
        }
        Feature::Schema => {
            json!({ "text": { "format": { "type": "json_schema", "name": "w", "strict": true, "schema": schema() } } })
        }
        Feature::Json => json!({ "text": { "format": { "type": "json_object" } } }),
        Feature::Reasoning => json!({ "reasoning": { "effort": "low", "summary": "auto" } }),
        Feature::Limit => json!({ "max_output_tokens": 20 }),
        Feature::Temperature => json!({ "temperature": 0.5 }),
        Feature::Logprobs => json!({ "top_logprobs": 2, "include": ["message.output_text.logprobs"] }),
        Feature::Stop | Feature::TopK | Feature::Seed | Feature::Penalties => return None,
    };
    Some(merged(base, more))
}

fn anthropic(feature: Feature, model: &str) -> Option<Value> {
    let user = |content: Value| json!([{ "role": "user", "content": content }]);
    let with = |block: Value| user(json!([block, { "type": "text", "text": "hello" }]));
    let source = |kind: &str, data: &str| json!({ "type": "base64", "media_type": kind, "data": data });
    let tools = json!([{ "name": "weather", "input_schema": schema() }]);
    let base = json!({ "model": model, "max_tokens": 4000, "messages": user(words(feature).into()) });
    let more = match feature {
        Feature::Text => json!({}),
        Feature::System => json!({ "system": "brief" }),
        Feature::Image => json!({ "messages": with(json!({ "type": "image", "source": source("image/png", PNG) })) }),
        Feature::Pdf => {
            json!({ "messages": with(json!({ "type": "document", "title": "a", "source": source("application/pdf", PDF) })) })
        }
        Feature::ParallelCalls => json!({ "tools": tools }),
        Feature::ForcedCall => json!({ "tools": tools, "tool_choice": { "type": "any" } }),
        Feature::ToolResults => {
            let call = |id: &str| json!({ "type": "tool_use", "id": id, "name": "weather", "input": {} });
            let result = |id: &str, text: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": text });
            json!({ "tools": tools, "messages": [
                { "role": "user", "content": words(feature) },
                { "role": "assistant", "content": [call("a"), call("b")] },
                { "role": "user", "content": [result("a", "one"), result("b", "two")] } ] })
        }
        Feature::Schema => json!({ "output_config": { "format": { "type": "json_schema", "schema": schema() } } }),
        Feature::Reasoning => json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
        Feature::Stop => json!({ "stop_sequences": ["END"] }),
        Feature::Limit => json!({ "max_tokens": 20 }),
        Feature::Temperature => json!({ "temperature": 0.5 }),
        Feature::TopK => json!({ "top_k": 5 }),
        Feature::Audio | Feature::Json | Feature::Seed | Feature::Penalties | Feature::Logprobs => return None,
    };
    Some(merged(base, more))
}

fn gemini(feature: Feature) -> Option<Value> {
    let user = |parts: Value| json!([{ "role": "user", "parts": parts }]);
    let with = |kind: &str, data: &str| {
        user(json!([{ "text": "hello" }, { "inlineData": { "mimeType": kind, "data": data } }]))
    };
    let config = |config: Value| json!({ "generationConfig": config });
    let tools = json!([{ "functionDeclarations": [{ "name": "weather", "parametersJsonSchema": schema() }] }]);
    let base = json!({ "contents": user(json!([{ "text": words(feature) }])) });
    let more = match feature {
        Feature::Text => json!({}),
        Feature::System => json!({ "systemInstruction": { "parts": [{ "text": "brief" }] } }),
        Feature::Image => json!({ "contents": with("image/png", PNG) }),
        Feature::Pdf => json!({ "contents": with("application/pdf", PDF) }),
        Feature::Audio => json!({ "contents": with("audio/wav", WAV) }),
        Feature::ParallelCalls => json!({ "tools": tools }),
        Feature::ForcedCall => json!({ "tools": tools, "toolConfig": { "functionCallingConfig": { "mode": "ANY" } } }),
        Feature::ToolResults => {
            let call = json!({ "functionCall": { "name": "weather", "args": {} } });
            let result =
                |text: &str| json!({ "functionResponse": { "name": "weather", "response": { "content": text } } });
            json!({ "tools": tools, "contents": [
                { "role": "user", "parts": [{ "text": words(feature) }] },
                { "role": "model", "parts": [call, call] },
                { "role": "user", "parts": [result("one"), result("two")] } ] })
        }
        Feature::Schema => config(json!({ "responseMimeType": "application/json", "responseJsonSchema": schema() })),
        Feature::Json => config(json!({ "responseMimeType": "application/json" })),
        Feature::Reasoning => config(
            json!({ "maxOutputTokens": 4000, "thinkingConfig": { "thinkingBudget": 1024, "includeThoughts": true } }),
        ),
        Feature::Stop => config(json!({ "stopSequences": ["END"] })),
        Feature::Limit => config(json!({ "maxOutputTokens": 20 })),
        Feature::Temperature => config(json!({ "temperature": 0.5 })),
        Feature::TopK => config(json!({ "topK": 5 })),
        Feature::Seed => config(json!({ "seed": 7 })),
        Feature::Penalties => config(json!({ "presencePenalty": 0.5, "frequencyPenalty": 0.5 })),
        Feature::Logprobs => config(json!({ "responseLogprobs": true, "logprobs": 2 })),
    };
    Some(merged(base, more))
}

/// An answer, reduced to what features show in.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) text: String,
    reasoning: String,
    calls: usize,
    finish: String,
    tokens: usize,
}

fn texts<'a>(list: &'a Value, kind: &'a str, field: &'a str) -> String {
    let items = list.as_array().into_iter().flatten();
    items
        .filter(|item| item["type"] == kind)
        .filter_map(|item| item[field].as_str())
        .collect()
}

fn count(list: &Value, kind: &str) -> usize {
    list.as_array()
        .into_iter()
        .flatten()
        .filter(|item| item["type"] == kind)
        .count()
}

pub(crate) fn seen(door: Door, body: &Value) -> Seen {
    let length = |value: &Value| value.as_array().map_or(0, Vec::len);
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match door {
        Door::Chat => {
            let choice = &body["choices"][0];
            Seen {
                text: string(&choice["message"]["content"]),
                reasoning: string(&choice["message"]["reasoning_content"]),
                calls: length(&choice["message"]["tool_calls"]),
                finish: string(&choice["finish_reason"]),
                tokens: length(&choice["logprobs"]["content"]),
            }
        }
        Door::Responses => {
            let output = body["output"].as_array().cloned().unwrap_or_default();
            let of = |kind: &str| {
                output
                    .iter()
                    .filter(|item| item["type"] == kind)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let part = |item: &Value| item["content"][0]["text"].as_str().unwrap_or_default().to_owned();
            Seen {
                text: of("message").iter().map(part).collect(),
                reasoning: of("reasoning")
                    .iter()
                    .map(|item| texts(&item["summary"], "summary_text", "text"))
                    .collect(),
                calls: of("function_call").len(),
                finish: string(&body["incomplete_details"]["reason"]),
                tokens: of("message")
                    .iter()
                    .map(|item| length(&item["content"][0]["logprobs"]))
                    .sum(),
            }
        }
        Door::Anthropic => Seen {
            text: texts(&body["content"], "text", "text"),
            reasoning: texts(&body["content"], "thinking", "thinking"),
            calls: count(&body["content"], "tool_use"),
            finish: string(&body["stop_reason"]),
            tokens: 0,
        },
        Door::Gemini => {
            let parts = body["candidates"][0]["content"]["parts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let text = |thought: bool| {
                let fits = |part: &&Value| part["thought"].as_bool().unwrap_or_default() == thought;
                parts
                    .iter()
                    .filter(fits)
                    .filter_map(|part| part["text"].as_str())
                    .collect()
            };
            Seen {
                text: text(false),
                reasoning: text(true),
                calls: parts.iter().filter(|part| part["functionCall"].is_object()).count(),
                finish: string(&body["candidates"][0]["finishReason"]),
                tokens: length(&body["candidates"][0]["logprobsResult"]["chosenCandidates"]),
            }
        }
    }
}

/// Whether the answer shows the feature. Some can only be seen in what the provider took, which is strict.
fn shows(feature: Feature, seen: &Seen) -> bool {
    let cut = ["length", "max_tokens", "max_output_tokens", "MAX_TOKENS"].contains(&seen.finish.as_str());
    let is_json = || serde_json::from_str::<Value>(&seen.text).is_ok_and(|value| value.is_object());
    match feature {
        Feature::Image => seen.text.contains("[1 image]"),
        Feature::Pdf => seen.text.contains("[1 file]"),
        Feature::Audio => seen.text.contains("[1 sound]"),
        Feature::ParallelCalls => seen.calls == 2,
        Feature::ForcedCall => seen.calls == 1,
        Feature::ToolResults => seen.text == "The tools said: one, two",
        Feature::Schema => is_json() && seen.text.contains("city"),
        Feature::Json => is_json(),
        Feature::Reasoning => !seen.reasoning.is_empty() && seen.text.starts_with("You said: hello"),
        Feature::Stop => seen.text.starts_with("You said: hello") && !seen.text.contains("END"),
        Feature::Limit => cut,
        Feature::Logprobs => seen.tokens > 2,
        Feature::Text | Feature::System | Feature::Temperature | Feature::TopK | Feature::Seed | Feature::Penalties => {
            seen.text.starts_with("You said: hello")
        }
    }
}

fn path(door: Door, model: &str, stream: bool) -> String {
    match door {
        Door::Chat => "/v1/chat/completions".to_owned(),
        Door::Responses => "/v1/responses".to_owned(),
        Door::Anthropic => "/v1/messages".to_owned(),
        Door::Gemini if stream => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
        Door::Gemini => format!("/v1beta/models/{model}:generateContent"),
    }
}

/// The code of the error that `body` is, or that a stream ended with.
pub(crate) fn error_code(body: &str) -> Option<String> {
    let last = body.lines().rev().find_map(|line| line.strip_prefix("data: "));
    [Some(body), last].into_iter().flatten().find_map(|text| {
        let error = serde_json::from_str::<Value>(text).ok()?["error"].take();
        let code = error["code"].as_str().or(error["details"][0]["reason"].as_str())?;
        Some(code.to_owned())
    })
}

/// A request that says `text` and no more.
pub(crate) fn plain(door: Door, model: &str, text: &str, stream: bool) -> (String, Value) {
    let said = json!([{ "role": "user", "content": text }]);
    let body = match door {
        Door::Chat => json!({ "model": model, "messages": said, "stream": stream }),
        Door::Responses => json!({ "model": model, "input": text, "stream": stream }),
        Door::Anthropic => json!({ "model": model, "max_tokens": 1000, "messages": said, "stream": stream }),
        Door::Gemini => json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }] }),
    };
    (path(door, model, stream), body)
}

async fn cell(stack: &Stack, door: Door, feature: Feature, model: &str) -> String {
    let Some(body) = request(door, feature, model) else {
        return "—".to_owned();
    };
    let whole_path = path(door, model, false);
    let sent = |path: String, body: Value| {
        let post = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
        post.header("content-type", "application/json")
            .body(body.to_string())
            .send()
    };
    let response = sent(whole_path.clone(), body.clone()).await.unwrap();
    let (status, whole) = read(response).await;
    if status != 200 {
        let told = whole["error"]["message"].as_str().unwrap_or_default().to_owned();
        let by_name = told.strip_prefix("this provider cannot be asked for ");
        return match by_name {
            Some(what) => format!("refused: {what}"),
            // OpenAI's own refusal of what it has no name for.
            None if status == 400 && told.starts_with("Unrecognized request argument") => {
                "refused by the provider".to_owned()
            }
            None => panic!("{whole_path} {model} {body}: {status} {whole}"),
        };
    }
    let whole = seen(door, &whole);
    assert!(shows(feature, &whole), "{whole_path} {model} {body}: {whole:?}");
    // Streamed, the same text comes.
    let body = match door {
        Door::Gemini => body,
        _ => merged(body, json!({ "stream": true })),
    };
    let stream_path = path(door, model, true);
    let stream = sent(stream_path.clone(), body).await.unwrap().text().await.unwrap();
    assert_eq!(streamed_text(door, &stream), whole.text, "{stream_path}: {stream}");
    "yes".to_owned()
}

pub(crate) fn streamed_text(door: Door, body: &str) -> String {
    let bare = body
        .lines()
        .filter(|line| !line.starts_with("event:"))
        .collect::<Vec<_>>()
        .join("\n");
    let all = events(&bare)
        .into_iter()
        .filter_map(|event| serde_json::from_str::<Value>(event.trim()).ok())
        .collect::<Vec<_>>();
    let piece = |event: &Value| -> Option<String> {
        let text = match door {
            Door::Chat => event["choices"][0]["delta"]["content"].as_str()?,
            Door::Responses if event["type"] == "response.output_text.delta" => event["delta"].as_str()?,
            Door::Anthropic if event["delta"]["type"] == "text_delta" => event["delta"]["text"].as_str()?,
            Door::Gemini => {
                let parts = event["candidates"][0]["content"]["parts"].as_array()?;
                let said = parts.iter().filter(|part| part["thought"] != true);
                return Some(said.filter_map(|part| part["text"].as_str()).collect());
            }
            _ => return None,
        };
        Some(text.to_owned())
    };
    all.iter().filter_map(piece).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_feature_works_or_is_refused_by_name() {
    let stack = Stack::start(Options::with_dialects()).await;
    let mut page = String::from(
        "# What each door can ask of each provider\n\n\
         Written by `tests/matrix.rs`, which sends every cell's request whole and streamed and looks for the feature in \
         the answer. `yes`: seen to work. `refused`: a 400 that names what the provider's dialect cannot say (set \
         `unsupported: drop` on the provider to have it left out). `—`: the door's own dialect has no way to ask.\n\n\
         The gRPC door has the whole chat model, and `tests/clients` walk through it, as the official clients do.\n",
    );
    for (door, name) in DOORS {
        writeln!(page, "\n## {name} door\n\n| feature | {} |", PROVIDERS.join(" | ")).unwrap();
        writeln!(page, "|---|{}", "---|".repeat(PROVIDERS.len())).unwrap();
        for (feature, name) in FEATURES {
            write!(page, "| {name} |").unwrap();
            for model in MODELS {
                write!(page, " {} |", cell(&stack, door, feature, model).await).unwrap();
            }
            page.push('\n');
        }
    }
    stack.stop().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/matrix.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        known == page,
        "docs/matrix.md is not what holds; UPDATE_DOCS=1 writes it anew:\n{page}"
    );
}
