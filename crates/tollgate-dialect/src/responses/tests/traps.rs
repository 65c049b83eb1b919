//! What is easily got wrong between this dialect and the others.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::provider::{OnUnsupported, Quirks};
use tollgate_types::{
    ErrorCode, Usage,
    chat::{ChatEvent, ChatRequest, Effort, FinishReason, Media, Message, Part, Reasoning, Role, Tool},
};

use super::{follow_values, read, write, write_with};
use crate::{BadAnswer, Refused, responses::provider};

fn user(part: Part) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::new(Role::User, vec![part])],
        ..ChatRequest::default()
    }
}

fn cannot(request: &ChatRequest, quirks: Quirks) -> String {
    match write_with(request, quirks, OnUnsupported::Refuse) {
        Err(Refused::Unsupported(feature)) => feature,
        _ => String::new(),
    }
}

#[test]
fn what_the_dialect_has_no_field_for_is_refused_by_name_or_dropped() {
    let request = ChatRequest {
        stop: vec!["x".to_owned()],
        seed: Some(1),
        top_k: Some(2),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        messages: vec![Message {
            name: Some("ann".to_owned()),
            ..Message::new(
                Role::User,
                vec![Part::Audio {
                    media: Media::Uploaded { id: "f".to_owned() },
                    cache: None,
                }],
            )
        }],
        ..ChatRequest::default()
    };
    assert_eq!(cannot(&request, Quirks::default()), "stop");
    let (_, _, dropped) = write_with(&request, Quirks::default(), OnUnsupported::Drop).unwrap();
    let names = ["stop", "seed", "top_k", "presence_penalty", "frequency_penalty"];
    assert_eq!(dropped[..5], names);
    assert_eq!(dropped[5..], ["messages[0]: a name", "messages[0]: a sound"]);
    let neutral = ChatRequest {
        presence_penalty: Some(0.0),
        ..user(Part::text("a"))
    };
    assert!(write(&neutral).get("presence_penalty").is_none());
}

#[test]
fn functions_are_strict_only_when_they_say_so_and_always_have_parameters() {
    let tool = |strict| Tool {
        name: "f".to_owned(),
        strict,
        ..Tool::default()
    };
    let request = ChatRequest {
        tools: vec![tool(None), tool(Some(true))],
        ..user(Part::text("a"))
    };
    let sent = write(&request);
    assert_eq!(
        (&sent["tools"][0]["strict"], &sent["tools"][1]["strict"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(
        sent["tools"][0]["parameters"],
        json!({ "type": "object", "properties": {} })
    );
}

#[test]
fn long_names_and_ids_are_cut_alike_everywhere_and_names_come_back() {
    let (long, id) = ("n".repeat(80), "i".repeat(80));
    let other = "n".repeat(70);
    let call = |id: &str, name: &str| Part::ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: "{}".to_owned(),
        signature: Some("gemini's".to_owned()),
        cache: None,
    };
    let result = Part::ToolResult {
        call_id: id.clone(),
        content: Vec::new(),
        is_error: true,
        cache: None,
    };
    let request = ChatRequest {
        messages: vec![
            Message::new(Role::Assistant, vec![call(&id, &long), call("b", &other)]),
            Message::new(Role::Tool, vec![result]),
        ],
        tools: vec![Tool {
            name: long.clone(),
            ..Tool::default()
        }],
        ..ChatRequest::default()
    };
    let (sent, mut reader, _) = write_with(&request, Quirks::default(), OnUnsupported::Refuse).unwrap();
    let name = sent["tools"][0]["name"].as_str().unwrap();
    assert_eq!((name.len(), sent["input"][0]["name"].as_str()), (64, Some(name)));
    assert_ne!(sent["input"][1]["name"].as_str(), Some(name));
    assert_eq!(sent["input"][0]["call_id"].as_str().unwrap().len(), 64);
    assert_eq!(sent["input"][0]["call_id"], sent["input"][2]["call_id"]);
    assert_eq!(sent["input"][2]["output"], "");
    let item = json!({ "type": "function_call", "call_id": "c", "name": name, "arguments": "{}" });
    let body = json!({ "id": "resp_1", "model": "m", "status": "completed", "output": [item] });
    let events = reader.whole(body.to_string().as_bytes()).unwrap();
    assert!(matches!(&events[1], ChatEvent::ToolCall { name: Some(back), .. } if *back == long));
}

#[test]
fn reasoning_goes_back_only_where_it_was_sealed_and_never_last() {
    let reasoning = |signature: Option<&str>| Part::Reasoning {
        text: "t".to_owned(),
        signature: signature.map(str::to_owned),
    };
    let with = |parts: Vec<Part>| {
        let sent = write(&ChatRequest {
            messages: vec![
                Message::new(Role::Assistant, parts),
                Message::new(Role::User, vec![Part::text("u")]),
            ],
            ..ChatRequest::default()
        });
        (sent["input"][0].clone(), sent.get("include").cloned())
    };
    let own = || reasoning(Some("responses:rs_1:gAAA"));
    let expected = json!({ "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "t" }],
        "encrypted_content": "gAAA" });
    assert_eq!(
        with(vec![own(), Part::text("a")]),
        (expected, Some(json!(["reasoning.encrypted_content"])))
    );
    for parts in [
        vec![reasoning(Some("EqQB")), Part::text("a")],
        vec![reasoning(None), Part::text("a")],
        vec![Part::text("a"), own()],
    ] {
        let (first, include) = with(parts);
        assert_eq!(
            (&first["role"], &first["content"][0]["text"]),
            (&json!("assistant"), &json!("a"))
        );
        assert_eq!(include, None);
    }
}

#[test]
fn effort_summary_and_sealed_reasoning_are_asked_for_as_they_should_be() {
    let asked = |effort, budget_tokens, shown| {
        let sent = write(&ChatRequest {
            reasoning: Some(Reasoning {
                effort,
                budget_tokens,
                shown,
            }),
            ..user(Part::text("a"))
        });
        (sent.get("reasoning").cloned(), sent.get("include").is_some())
    };
    assert_eq!(asked(None, Some(5000), None), (Some(json!({ "effort": "high" })), true));
    assert_eq!(
        asked(Some(Effort::None), None, Some(true)),
        (Some(json!({ "effort": "none" })), false)
    );
    assert_eq!(
        asked(None, None, Some(true)),
        (Some(json!({ "summary": "auto" })), true)
    );
    assert_eq!(asked(None, None, Some(false)), (None, true));
    let plain = write(&user(Part::text("a")));
    assert!(plain.get("reasoning").is_none() && plain.get("include").is_none());
    assert_eq!(plain["store"], json!(false));
}

#[test]
fn only_data_has_a_name() {
    let file = |media| {
        let part = Part::File {
            media,
            filename: None,
            cache: None,
        };
        write(&user(part))["input"][0]["content"][0].clone()
    };
    let data = file(Media::Inline {
        media_type: "text/plain".to_owned(),
        data: "AA==".to_owned(),
    });
    let expected = json!({ "type": "input_file", "file_data": "data:text/plain;base64,AA==", "filename": "file.txt" });
    assert_eq!(data, expected);
    let address = Media::Url {
        url: "https://h/a".to_owned(),
        media_type: Some("application/pdf".to_owned()),
    };
    assert_eq!(
        file(address),
        json!({ "type": "input_file", "file_url": "https://h/a" })
    );
}

#[test]
fn servers_that_know_less_are_asked_for_less() {
    let quirks = Quirks {
        no_developer: true,
        no_json_schema: true,
        ..Quirks::default()
    };
    let developer = ChatRequest {
        messages: vec![Message::new(Role::Developer, vec![Part::text("a")])],
        ..ChatRequest::default()
    };
    let (sent, ..) = write_with(&developer, quirks, OnUnsupported::Refuse).unwrap();
    assert_eq!(sent["input"][0]["role"], "system");
    let schema = read(&json!({ "model": "m", "input": "a",
        "text": { "format": { "type": "json_schema", "name": "s", "schema": {} } } }));
    assert_eq!(cannot(&schema, quirks), "a JSON schema of the answer");
}

#[test]
fn a_request_that_goes_through_changes_its_model_and_nothing_else() {
    let body = br#"{"store":true, "model":"public","x":1.10,"input":[ {"type":"web_search_call","id":"ws_\u0041"} ]}"#;
    let sent = provider::readdress(body, "real").unwrap();
    let expected = r#"{"store":true,"model":"real","x":1.10,"input":[ {"type":"web_search_call","id":"ws_\u0041"} ]}"#;
    assert_eq!(std::str::from_utf8(&sent).unwrap(), expected);
    assert!(provider::readdress(b"[]", "m").is_err());
}

/// A stream as OpenAI sends it, reasoning first.
fn openai_stream() -> Vec<Value> {
    let response = |status: &str, output: Value, usage: Value| {
        json!({ "id": "resp_1", "object": "response", "model": "gpt-x-1", "status": status, "error": null,
            "incomplete_details": null, "output": output, "usage": usage })
    };
    let reasoning = json!({ "id": "rs_1", "type": "reasoning", "encrypted_content": "gAAA", "summary": [
        { "type": "summary_text", "text": "One." }, { "type": "summary_text", "text": "Two." } ] });
    let annotation =
        json!({ "type": "url_citation", "url": "https://h", "title": "T", "start_index": 0, "end_index": 2 });
    let part = json!({ "type": "output_text", "text": "Hello.", "annotations": [annotation], "logprobs": [] });
    let message =
        json!({ "id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part] });
    let call =
        json!({ "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{\"a\":1}" });
    let bare = json!({ "id": "fc_2", "type": "function_call", "call_id": "call_2", "name": "g", "arguments": "{}" });
    let usage = json!({ "input_tokens": 10, "input_tokens_details": { "cached_tokens": 4, "cache_write_tokens": 2 },
        "output_tokens": 7, "output_tokens_details": { "reasoning_tokens": 3 }, "total_tokens": 17 });
    let output = json!([reasoning, message, call, bare]);
    vec![
        json!({ "type": "response.created", "response": response("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.in_progress", "response": response("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.output_item.added", "output_index": 0,
            "item": { "id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gA" } }),
        json!({ "type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "One." }),
        json!({ "type": "response.reasoning_summary_text.done", "output_index": 0, "summary_index": 0, "text": "One." }),
        json!({ "type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "T" }),
        json!({ "type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "wo." }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": reasoning }),
        json!({ "type": "response.output_item.added", "output_index": 1,
            "item": { "id": "msg_1", "type": "message", "role": "assistant", "content": [] } }),
        json!({ "type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hel",
            "logprobs": [{ "token": "Hel", "logprob": -0.1, "top_logprobs": [{ "token": "Hel", "logprob": -0.1 }] }],
            "obfuscation": "abc" }),
        json!({ "type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "lo." }),
        json!({ "type": "response.output_text.annotation.added", "output_index": 1, "content_index": 0,
            "annotation_index": 0, "annotation": annotation }),
        json!({ "type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "Hello." }),
        json!({ "type": "response.content_part.done", "output_index": 1, "content_index": 0, "part": part }),
        json!({ "type": "response.output_item.done", "output_index": 1, "item": message }),
        json!({ "type": "response.output_item.added", "output_index": 2, "item":
            { "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "" } }),
        json!({ "type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{\"a\"" }),
        json!({ "type": "response.function_call_arguments.delta", "output_index": 2, "delta": ":1}" }),
        json!({ "type": "response.function_call_arguments.done", "output_index": 2, "arguments": "{\"a\":1}" }),
        json!({ "type": "response.output_item.done", "output_index": 2, "item": call }),
        json!({ "type": "response.output_item.done", "output_index": 3, "item": bare }),
        json!({ "type": "response.completed", "response": response("completed", output, usage) }),
    ]
}

#[test]
fn a_stream_is_read_once_however_often_it_repeats_itself() {
    let frames = openai_stream();
    insta::assert_json_snapshot!(follow_values(&frames));
    let whole = frames.last().unwrap()["response"].to_string();
    let at_once = provider::reader().whole(whole.as_bytes()).unwrap();
    let streamed = super::merged(follow_values(&frames));
    let told = |events: Vec<ChatEvent>| {
        let mut kept: Vec<_> = super::merged(events)
            .into_iter()
            .filter(|event| !matches!(event, ChatEvent::Logprobs { .. }))
            .collect();
        kept = super::merged(kept);
        serde_json::to_value(kept).unwrap()
    };
    assert_eq!(told(at_once), told(streamed));
}

#[test]
fn what_comes_only_at_the_end_is_not_lost() {
    let frames = openai_stream();
    let last = frames.last().unwrap().clone();
    let without_items = super::merged(follow_values(&[frames[0].clone(), last.clone()]));
    let only_last = super::merged(follow_values(&[last]));
    assert!(without_items == only_last && only_last.len() > 6);
}

#[test]
fn how_the_provider_ended_is_read() {
    let reason = |response: Value| {
        let body = response.to_string();
        let events = provider::reader().whole(body.as_bytes())?;
        events
            .into_iter()
            .find_map(|event| match event {
                ChatEvent::Finish { reason, .. } => Some(reason),
                _ => None,
            })
            .ok_or(BadAnswer::Lacks("a finish"))
    };
    let with = |status: &str, why: Value, output: Value| {
        reason(json!({ "id": "resp_1", "model": "m", "status": status, "incomplete_details": why, "output": output }))
    };
    let refusal = json!([{ "type": "message", "content": [{ "type": "refusal", "refusal": "No." }] }]);
    assert_eq!(with("completed", Value::Null, json!([])), Ok(FinishReason::Stop));
    assert_eq!(with("completed", Value::Null, refusal), Ok(FinishReason::Refusal));
    assert_eq!(
        with("incomplete", json!({ "reason": "max_output_tokens" }), json!([])),
        Ok(FinishReason::Length)
    );
    assert_eq!(
        with("incomplete", json!({ "reason": "content_filter" }), json!([])),
        Ok(FinishReason::ContentFilter)
    );
    assert_eq!(
        with("queued", Value::Null, json!([])),
        Err(BadAnswer::Misplaced("an end before the end"))
    );
    assert!(matches!(
        with("failed", Value::Null, json!([])),
        Err(BadAnswer::Reported(_))
    ));
    assert_eq!(
        reason(json!({ "id": "resp_1", "model": "m" })),
        Err(BadAnswer::Lacks("output"))
    );
}

#[test]
fn errors_within_a_stream_are_errors_and_what_was_used_is_known() {
    let means = |frame: Value| {
        let mut reader = provider::reader();
        reader.event(openai_stream()[0].to_string().as_bytes()).unwrap();
        let error = reader.event(frame.to_string().as_bytes());
        assert!(!reader.is_complete());
        match error {
            Err(BadAnswer::Reported(error)) => (error.means, reader.partial_usage()),
            _ => panic!("an error that is reported"),
        }
    };
    let failed = json!({ "type": "response.failed", "response": { "status": "failed",
        "error": { "code": "server_error", "message": "oops" }, "usage": { "input_tokens": 5 } } });
    let used = Usage {
        input_tokens: 5,
        ..Usage::default()
    };
    assert_eq!(means(failed), (Some(ErrorCode::ProviderError), Some(used)));
    let flat = json!({ "type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": null });
    assert_eq!(means(flat).0, Some(ErrorCode::ProviderRateLimited));
    let nested = json!({ "type": "error", "error": { "type": "invalid_request_error",
        "code": "context_length_exceeded", "message": "long" } });
    assert_eq!(means(nested).0, Some(ErrorCode::ContextLength));
    assert_eq!(means(json!({ "error": { "message": "x" } })).0, None);
}

#[test]
fn error_bodies_say_what_they_mean() {
    let means = |error: Value| provider::error(json!({ "error": error }).to_string().as_bytes()).means;
    for (code, expected) in [
        ("context_length_exceeded", ErrorCode::ContextLength),
        ("content_policy_violation", ErrorCode::ContentPolicy),
        ("content_filter", ErrorCode::ContentPolicy),
        ("insufficient_quota", ErrorCode::ProviderRateLimited),
        ("rate_limit_exceeded", ErrorCode::ProviderRateLimited),
        ("server_error", ErrorCode::ProviderError),
        ("invalid_api_key", ErrorCode::ProviderAuth),
    ] {
        let error = json!({ "message": "m", "type": "some_error", "param": null, "code": code });
        assert_eq!(means(error), Some(expected));
        assert_eq!(
            means(json!({ "message": "m", "type": code, "code": null })),
            Some(expected)
        );
    }
    let vllm = json!({ "message": "This model's maximum context length is 10 tokens.", "type": "BadRequestError" });
    assert_eq!(means(vllm), Some(ErrorCode::ContextLength));
    assert_eq!(provider::error(b"<html>").code, None);
    let error = provider::error(br#"{"error":{"message":"bad","type":"invalid_request_error","code":null}}"#);
    assert_eq!(
        (error.message.as_str(), error.code.as_deref()),
        ("bad", Some("invalid_request_error"))
    );
}

#[test]
fn the_providers_own_tools_pass_through_and_count_their_searches() {
    let search = |kind: &str| json!({ "type": "web_search_call", "id": kind, "action": { "type": kind } });
    let custom = json!({ "type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "n", "input": "x" });
    let body = |items: Value| {
        json!({ "id": "resp_1", "model": "m", "status": "completed", "output": items, "usage": { "input_tokens": 1 } })
            .to_string()
    };
    let events = provider::reader()
        .whole(body(json!([search("search"), search("open_page"), custom])).as_bytes())
        .unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, ChatEvent::Usage { usage } if usage.web_searches == 1))
    );
    let (_, mut translated, _) = write_with(&user(Part::text("a")), Quirks::default(), OnUnsupported::Refuse).unwrap();
    assert!(translated.whole(body(json!([custom])).as_bytes()).is_err());
    let (_, mut translated, _) = write_with(&user(Part::text("a")), Quirks::default(), OnUnsupported::Refuse).unwrap();
    assert!(translated.whole(body(json!([search("search")])).as_bytes()).is_ok());
}

#[test]
fn unknown_events_and_the_older_end_of_streams_are_passed_over() {
    let mut reader = provider::reader();
    for data in [
        r#"{"type":"response.web_search_call.searching","output_index":0}"#,
        r#"{"type":"keepalive"}"#,
        "[DONE]",
    ] {
        assert!(reader.event(&Bytes::from(data)).unwrap().is_empty());
    }
    assert!(!reader.is_complete());
    assert!(reader.event(b"{}").is_err() && reader.event(b"x").is_err());
    let early = json!({ "type": "response.output_text.delta", "delta": "x" }).to_string();
    assert_eq!(
        reader.event(early.as_bytes()).err(),
        Some(BadAnswer::Misplaced("content before the start"))
    );
}
