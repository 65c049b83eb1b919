//! Golden requests and answers: what each client dialect becomes for each provider, reviewed as snapshots, and what must
//! hold of any conversation.

mod answers;
mod consumption;
mod properties;

use serde_json::{Value, json};
use tollgate_types::{
    Dialect, Operation,
    provider::{OnUnsupported, Quirks},
};

use crate::{Order, Prepared, translate, view};

const PROVIDERS: [Dialect; 5] = [
    Dialect::OpenaiChat,
    Dialect::OpenaiResponses,
    Dialect::Anthropic,
    Dialect::Gemini,
    Dialect::Bedrock,
];

const fn model(provider: Dialect) -> &'static str {
    match provider {
        Dialect::Anthropic => "claude-sonnet-4-5",
        Dialect::Gemini => "gemini-3-pro",
        Dialect::Bedrock => "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        _ => "gpt-5",
    }
}

/// What `provider` is sent for a client's request, and what was left out by the client's leave.
fn sent(client: Dialect, provider: Dialect, body: &Value, path: Option<(&str, bool)>) -> Value {
    let body = body.to_string();
    let view = view(client, Operation::Chat, path, body.as_bytes()).unwrap();
    let order = Order {
        client,
        provider,
        view: &view,
        body: body.as_bytes(),
        model: model(provider),
        quirks: Quirks::default(),
        unsupported: OnUnsupported::Drop,
    };
    let Prepared::Call(call) = translate(&order).unwrap() else {
        panic!("a chat is a call")
    };
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    json!({ "path": call.path, "dropped": call.dropped, "body": body })
}

fn check(name: &str, client: Dialect, body: &Value, path: Option<(&str, bool)>) {
    for provider in PROVIDERS {
        let sent = sent(client, provider, body, path);
        insta::with_settings!({ prepend_module_to_snapshot => false }, {
            insta::assert_json_snapshot!(format!("{name}_to_{}", provider.as_str()), sent);
        });
    }
}

#[test]
fn openai_chat_requests() {
    let tool = json!({ "type": "function", "function": { "name": "get.weather", "description": "d",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } }, "strict": true },
        "cache_control": { "type": "ephemeral", "ttl": "1h" } });
    let call = |id: &str, city: &str| {
        let arguments = json!({ "city": city }).to_string();
        json!({ "id": id, "type": "function", "function": { "name": "get.weather", "arguments": arguments } })
    };
    let body = json!({
        "model": "public", "stream": true, "max_completion_tokens": 9000, "temperature": 1, "top_p": 0.9, "stop": "END",
        "seed": 7, "presence_penalty": 0.5, "logprobs": true, "top_logprobs": 2, "user": "u-1", "reasoning_effort": "high",
        "parallel_tool_calls": false, "tool_choice": "auto", "tools": [tool], "metadata": { "a": "b" },
        "logit_bias": { "50256": -100 },
        "messages": [
            { "role": "developer", "content": [{ "type": "text", "text": "rules", "cache_control": { "type": "ephemeral" } }] },
            { "role": "system", "content": "more rules" },
            { "role": "user", "content": [
                { "type": "text", "text": "look" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA", "detail": "low" } },
                { "type": "image_url", "image_url": { "url": "https://h.example/i.jpg" } },
                { "type": "input_audio", "input_audio": { "data": "AAAA", "format": "mp3" } },
                { "type": "file", "file": { "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA" } } ] },
            { "role": "assistant", "content": "let me see", "thinking_blocks": [
                { "type": "thinking", "thinking": "hmm", "signature": "c2ln" }, { "type": "redacted_thinking", "data": "ZGF0YQ==" } ],
              "tool_calls": [call("call_1", "Rome"), call("call:2", "Oslo")] },
            { "role": "tool", "tool_call_id": "call_1", "content": "{\"t\":20}" },
            { "role": "tool", "tool_call_id": "call:2", "content": [{ "type": "text", "text": "cold" }] },
            { "role": "system", "content": "be quick" },
            { "role": "user", "name": "ann", "content": "and now?" } ] });
    check("openai_chat", Dialect::OpenaiChat, &body, None);
}

#[test]
fn anthropic_requests() {
    let body = json!({
        "model": "public", "max_tokens": 9000, "stream": true, "top_k": 5, "stop_sequences": ["END"],
        "system": [{ "type": "text", "text": "rules", "cache_control": { "type": "ephemeral", "ttl": "1h" } }],
        "metadata": { "user_id": "u-1" }, "tool_choice": { "type": "tool", "name": "weather", "disable_parallel_tool_use": true },
        "tools": [{ "name": "weather", "input_schema": { "type": "object", "properties": { "city": { "type": "string" } } } }],
        "output_config": { "format": { "type": "json_schema", "schema": { "type": "object",
            "properties": { "a": { "type": "string" } }, "required": ["a"], "additionalProperties": false } } },
        "messages": [
            { "role": "user", "content": [
                { "type": "document", "title": "a.pdf", "source": { "type": "base64", "media_type": "application/pdf", "data": "AAAA" } },
                { "type": "image", "source": { "type": "url", "url": "https://h.example/i.png" } },
                { "type": "text", "text": "look", "cache_control": { "type": "ephemeral" } } ] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hmm", "signature": "c2ln" },
                { "type": "text", "text": "cited", "citations": [{ "type": "page_location", "cited_text": "q", "document_index": 0,
                    "document_title": "a.pdf", "start_page_number": 1, "end_page_number": 2 }] },
                { "type": "tool_use", "id": "toolu_1", "name": "weather", "input": { "city": "Rome" } },
                { "type": "tool_use", "id": "toolu_2", "name": "weather", "input": {} } ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "toolu_1", "content": [{ "type": "text", "text": "sunny" },
                    { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } }] },
                { "type": "tool_result", "tool_use_id": "toolu_2", "is_error": true, "content": "no such city" },
                { "type": "text", "text": "and now?" } ] } ] });
    check("anthropic", Dialect::Anthropic, &body, None);
}

#[test]
fn gemini_requests() {
    let body = json!({
        "system_instruction": { "parts": [{ "text": "rules" }] },
        "generationConfig": { "temperature": 0.5, "topK": 5, "seed": 7, "stopSequences": ["END"], "maxOutputTokens": 9000,
            "responseMimeType": "application/json", "responseSchema": { "type": "OBJECT", "properties": { "a": { "type": "STRING",
                "nullable": true } }, "propertyOrdering": ["a"] },
            "thinkingConfig": { "thinkingLevel": "low", "includeThoughts": true } },
        "tools": [{ "functionDeclarations": [{ "name": "weather", "parameters": { "type": "OBJECT",
            "properties": { "city": { "type": "STRING" } } } }] }],
        "toolConfig": { "functionCallingConfig": { "mode": "ANY", "allowedFunctionNames": ["weather"] } },
        "contents": [
            { "role": "user", "parts": [{ "text": "look" }, { "inlineData": { "mimeType": "audio/wav", "data": "AA_-" } },
                { "fileData": { "mimeType": "application/pdf", "fileUri": "https://h.example/a.pdf" } }] },
            { "role": "model", "parts": [{ "text": "hmm", "thought": true },
                { "functionCall": { "name": "weather", "args": { "city": "Rome" } }, "thoughtSignature": "c2ln" },
                { "functionCall": { "name": "weather", "args": { "city": "Oslo" } } }] },
            { "role": "user", "parts": [{ "functionResponse": { "name": "weather", "response": { "t": 20 } } },
                { "functionResponse": { "name": "weather", "response": { "error": "no such city" } } }] } ] });
    check("gemini", Dialect::Gemini, &body, Some(("public", true)));
}

#[test]
fn responses_requests() {
    let body = json!({
        "model": "public", "stream": true, "instructions": "rules", "max_output_tokens": 9000, "temperature": 0.5,
        "reasoning": { "effort": "medium", "summary": "auto" }, "parallel_tool_calls": true, "tool_choice": "required",
        "include": ["reasoning.encrypted_content"], "store": false,
        "text": { "format": { "type": "json_schema", "name": "w", "strict": true, "schema": { "type": "object",
            "properties": { "a": { "type": "string" } }, "required": ["a"], "additionalProperties": false } } },
        "tools": [{ "type": "function", "name": "weather", "parameters": { "type": "object", "properties": {} }, "strict": false }],
        "input": [
            { "role": "user", "content": [{ "type": "input_text", "text": "look" },
                { "type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high" },
                { "type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA" }] },
            { "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "hmm" }], "encrypted_content": "c2ln" },
            { "type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "call_1", "output": "sunny" } ] });
    check("openai_responses", Dialect::OpenaiResponses, &body, None);
}
