//! Clients' requests.

use serde_json::{Value, json};
use tollgate_types::chat::{Message, Part, Role};

use super::{read, refused_at};
use crate::responses::client;

fn rich() -> Value {
    json!({
        "model": "public",
        "instructions": "Be brief.",
        "input": [
            { "role": "system", "content": "In English." },
            { "type": "message", "role": "user", "content": [
                { "type": "input_text", "text": "Look.", "prompt_cache_breakpoint": { "mode": "explicit" } },
                { "type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high" },
                { "type": "input_image", "image_url": "https://h/i.png" },
                { "type": "input_image", "file_id": "file-1", "detail": "auto" },
                { "type": "input_file", "file_data": "data:application/pdf;base64,BBBB", "filename": "a.pdf",
                  "prompt_cache_breakpoint": { "mode": "explicit", "ttl": "12h" } },
                { "type": "input_file", "file_data": "Q0NDQw==", "filename": "a.csv" },
                { "type": "input_file", "file_url": "https://h/b.pdf" },
                { "type": "input_file", "file_id": "file-2" },
                { "type": "input_audio", "input_audio": { "data": "DDDD", "format": "mp3" } } ] },
            { "type": "reasoning", "id": "rs_1", "summary": [
                { "type": "summary_text", "text": "First." }, { "type": "summary_text", "text": "Then." } ],
              "encrypted_content": "gAAA", "status": "completed" },
            { "type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "tollgate.redacted:EEEE" },
            { "type": "reasoning", "summary": [], "encrypted_content": "tollgate.signature:EqQB" },
            { "type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "phase": "commentary",
              "content": [{ "type": "output_text", "text": "I call.", "logprobs": [], "annotations": [
                { "type": "url_citation", "url": "https://h/p", "title": "P", "start_index": 0, "end_index": 1 } ] }] },
            { "type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": "tollgate.call:[\"c1\",\"sig\"]" },
            { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}" },
            { "type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "status": "completed" },
            { "type": "function_call_output", "call_id": "c1", "output": "rain" },
            { "type": "function_call_output", "id": "fco_2", "call_id": "c2", "output": [
                { "type": "input_text", "text": "here" },
                { "type": "input_image", "image_url": "data:image/jpeg;base64,FFFF" },
                { "type": "input_file", "file_data": "data:text/plain;base64,GGGG", "filename": "n.txt" } ] },
            { "role": "assistant", "content": [{ "type": "refusal", "refusal": "No." }] },
            { "role": "user", "content": "Go on." }
        ],
        "tools": [
            { "type": "function", "name": "f", "description": "d", "strict": true,
              "parameters": { "type": "object", "properties": { "a": { "type": "number" } } } },
            { "type": "function", "name": "g", "parameters": null, "strict": null }
        ],
        "tool_choice": { "type": "function", "name": "f" },
        "parallel_tool_calls": false,
        "text": { "format": { "type": "json_schema", "name": "s", "schema": { "type": "object" }, "strict": true },
                  "verbosity": "medium" },
        "reasoning": { "effort": "high", "summary": "detailed" },
        "max_output_tokens": 100, "temperature": 1, "top_p": 0.5, "top_logprobs": 3,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "safety_identifier": "u-1", "store": true, "metadata": { "a": "b" }, "truncation": "disabled",
        "service_tier": "auto", "background": false, "previous_response_id": null, "stream": true,
        "stream_options": { "include_obfuscation": false }, "prompt_cache_key": "k"
    })
}

#[test]
fn everything_that_the_model_can_hold() {
    insta::assert_json_snapshot!(serde_json::to_value(read(&rich())).unwrap());
}

#[test]
fn the_view_says_what_was_asked() {
    let view = client::view(rich().to_string().as_bytes()).unwrap();
    assert_eq!(
        (view.model.as_str(), view.stream, view.include_usage),
        ("public", true, true)
    );
    assert_eq!(view.max_output_tokens, Some(100));
    let view = client::view(br#"{"model":"m","input":"12345678"}"#).unwrap();
    assert_eq!((view.stream, view.max_output_tokens), (false, None));
    assert_eq!(view.estimated_input_tokens, 3);
}

#[test]
fn a_plain_input_is_the_users_turn() {
    let request = read(&json!({ "model": "m", "input": "hi" }));
    assert!(request.messages == [Message::new(Role::User, vec![Part::text("hi")])]);
    assert!(request.beyond.is_empty() && !request.stream && request.reasoning.is_none());
}

#[test]
fn nothing_that_was_kept_elsewhere_can_be_used() {
    for (name, value) in [
        ("previous_response_id", json!("resp_1")),
        ("conversation", json!({ "id": "conv_1" })),
        ("prompt", json!({ "id": "pmpt_1" })),
        ("background", json!(true)),
    ] {
        let mut body = json!({ "model": "m", "input": "hi" });
        body[name] = value;
        let body = body.to_string();
        for error in [
            client::view(body.as_bytes()).unwrap_err(),
            client::read(body.as_bytes()).err().unwrap(),
        ] {
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.starts_with("Tollgate keeps no conversations"));
        }
    }
    let reference = |item: Value| refused_at(&json!({ "model": "m", "input": [item] }));
    assert_eq!(
        reference(json!({ "type": "item_reference", "id": "msg_1" })).as_deref(),
        Some("input[0]")
    );
    assert_eq!(reference(json!({ "id": "msg_1" })).as_deref(), Some("input[0]"));
}

#[test]
fn wrong_views_name_the_field() {
    let param = |body: Value| client::view(body.to_string().as_bytes()).unwrap_err().param;
    let at = |param: &str| Some(param.to_owned());
    assert_eq!(param(json!([])), None);
    assert_eq!(param(json!({ "input": "hi" })), at("model"));
    assert_eq!(param(json!({ "model": "m" })), at("input"));
    assert_eq!(param(json!({ "model": "m", "input": [] })), at("input"));
    assert_eq!(param(json!({ "model": "m", "input": {} })), at("input"));
    assert_eq!(param(json!({ "model": "m", "input": "hi", "stream": 1 })), at("stream"));
    let body = json!({ "model": "m", "input": "hi", "max_output_tokens": -1 });
    assert_eq!(param(body), at("max_output_tokens"));
}

#[test]
fn wrong_items_name_their_place() {
    for (item, at) in [
        (json!("hi"), "input[0]"),
        (json!({}), "input[0].type"),
        (json!({ "role": "tool", "content": "x" }), "input[0].role"),
        (json!({ "role": "user" }), "input[0].content"),
        (json!({ "role": "user", "content": [1] }), "input[0].content[0]"),
        (
            json!({ "role": "user", "content": [{ "type": "input_text" }] }),
            "input[0].content[0].text",
        ),
        (
            json!({ "role": "user", "content": [{ "type": "input_image" }] }),
            "input[0].content[0]",
        ),
        (
            json!({ "role": "user", "content": [{ "type": "input_file", "file_id": "f", "file_url": "https://h" }] }),
            "input[0].content[0]",
        ),
        (
            json!({ "role": "user", "content": [{ "type": "input_image", "image_url": "data:image/svg+xml,<svg/>" }] }),
            "input[0].content[0].image_url",
        ),
        (
            json!({ "role": "user", "content": [{ "type": "refusal", "refusal": "x" }] }),
            "input[0].content",
        ),
        (
            json!({ "type": "function_call", "call_id": "c", "name": "f" }),
            "input[0].arguments",
        ),
        (
            json!({ "type": "function_call_output", "output": "x" }),
            "input[0].call_id",
        ),
        (
            json!({ "type": "function_call_output", "call_id": "c", "output": [{ "type": "refusal", "refusal": "x" }] }),
            "input[0].output",
        ),
        (
            json!({ "type": "reasoning", "summary": [{}] }),
            "input[0].summary[0].text",
        ),
    ] {
        assert_eq!(
            refused_at(&json!({ "model": "m", "input": [item] })).as_deref(),
            Some(at)
        );
    }
    for (field, value, at) in [
        ("tools", json!([{ "type": "function" }]), "tools[0].name"),
        ("tool_choice", json!("any"), "tool_choice"),
        ("reasoning", json!({ "effort": "enormous" }), "reasoning.effort"),
        (
            "text",
            json!({ "format": { "type": "json_schema", "name": "s" } }),
            "text.format.schema",
        ),
        ("temperature", json!("hot"), "temperature"),
        ("include", json!([1]), "include"),
    ] {
        let mut body = json!({ "model": "m", "input": "hi" });
        body[field] = value;
        assert_eq!(refused_at(&body).as_deref(), Some(at));
    }
}

#[test]
fn what_only_this_dialect_has_is_named_and_nothing_else() {
    let request = read(&json!({
        "model": "m",
        "input": [
            { "role": "user", "content": [
                { "type": "input_image", "image_url": "https://h/i", "detail": "original" },
                { "type": "input_file", "file_id": "f", "detail": "high" },
                { "type": "computer_screenshot", "image_url": "https://h/s" } ] },
            { "type": "web_search_call", "id": "ws_1", "status": "completed" },
            { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n", "async": false },
            { "type": "function_call_output", "call_id": "c", "output": "", "caller": { "type": "program", "caller_id": "p" } }
        ],
        "tools": [{ "type": "web_search" }, { "type": "custom", "name": "x" },
            { "type": "function", "name": "f", "parameters": {}, "strict": false, "defer_loading": true,
              "allowed_callers": ["direct"], "output_schema": { "type": "object" } }],
        "tool_choice": { "type": "allowed_tools", "mode": "auto", "tools": [] },
        "text": { "format": { "type": "grammar" }, "verbosity": "low" },
        "reasoning": { "effort": null, "mode": "pro", "context": "auto" },
        "include": ["web_search_call.action.sources", "brand.new"],
        "truncation": "auto", "max_tool_calls": 3, "context_management": [], "moderation": null,
        "prompt_cache_options": { "prewarm": true, "mode": "implicit" }, "x y": 1
    }));
    let mut beyond = request.beyond;
    beyond.sort();
    let expected = [
        "context_management",
        "include: brand.new",
        "input[0].content[0].detail: original",
        "input[0].content[1].detail",
        "input[0].content[2]: type computer_screenshot",
        "input[1]: type web_search_call",
        "input[2].namespace",
        "input[3].caller",
        "max_tool_calls",
        "prompt_cache_options.prewarm",
        "reasoning.mode",
        "text.format: type grammar",
        "text.verbosity",
        "tool_choice: type allowed_tools",
        "tools[0]: type web_search",
        "tools[1]: type custom",
        "tools[2].defer_loading",
        "tools[2].output_schema",
        "truncation",
        "x_y",
    ];
    assert_eq!(beyond, expected);
    assert!(request.tools.len() == 1 && request.tool_choice.is_none() && request.reasoning.is_none());
}
