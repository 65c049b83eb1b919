use serde_json::{Value, json};
use tollgate_types::{
    ErrorCode,
    chat::{ChatEvent, FinishReason},
};

use super::*;
use crate::{BadAnswer, ProviderError};

/// A reader of answers to a request with a tool whose name was narrowed, and the events with ids that do not change.
pub(super) fn reader() -> Box<dyn Reader> {
    let request = request(json!({ "tools": [{ "name": "get.weather" }], "messages": [] }));
    match written(&request, CLAUDE, &mut Losses::new(OnUnsupported::Refuse)) {
        Ok((_, reader)) => reader,
        Err(error) => panic!("{error}"),
    }
}

/// A reader of answers that are made by a tool.
pub(super) fn form_reader() -> Box<dyn Reader> {
    let request = request(json!({
        "tools": [{ "name": "f" }], "response_format": { "type": "json_object" }, "messages": [] }));
    match written(&request, OLD_CLAUDE, &mut Losses::new(OnUnsupported::Refuse)) {
        Ok((_, reader)) => reader,
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn plain(events: Vec<ChatEvent>) -> Value {
    let mut events = serde_json::to_value(events).unwrap();
    for event in events.as_array_mut().unwrap() {
        if event["type"] == "start" {
            assert!(event["id"].as_str().unwrap().starts_with("msg_"));
            event["id"] = "msg_1".into();
        }
    }
    events
}

pub(super) fn whole(reader: &mut dyn Reader, body: &Value) -> Result<Vec<ChatEvent>, BadAnswer> {
    reader.whole(body.to_string().as_bytes())
}

pub(super) fn rich() -> Value {
    json!({
        "output": { "message": { "role": "assistant", "content": [
            { "reasoningContent": { "reasoningText": { "text": "hm", "signature": "c2ln" } } },
            { "reasoningContent": { "redactedContent": "c2VjcmV0" } },
            { "text": "It is " },
            { "citationsContent": { "content": [{ "text": "sunny" }], "citations": [
                { "title": "Report", "sourceContent": [{ "text": "sun" }, { "text": "shine" }],
                  "location": { "documentChar": { "documentIndex": 0, "start": 3, "end": 11 } } },
                { "source": "https://example.org/s", "title": "S", "location": { "searchResultLocation": { "searchResultIndex": 0 } } },
                { "location": { "web": { "url": "https://example.org", "domain": "example.org" } } } ] } },
            { "image": { "format": "png", "source": { "bytes": "iVBORw==" } } },
            { "toolUse": { "toolUseId": "tooluse_1", "name": "get_weather", "input": { "city": "Rom", "n": 1.10 } } },
            { "toolUse": { "toolUseId": "tooluse_2", "name": "get_weather", "input": {} } } ] } },
        "stopReason": "tool_use",
        "usage": { "inputTokens": 10, "outputTokens": 20, "totalTokens": 37, "cacheReadInputTokens": 4,
                   "cacheWriteInputTokens": 3, "cacheDetails": [{ "ttl": "1h", "inputTokens": 2 }, { "ttl": "5m", "inputTokens": 1 }] },
        "metrics": { "latencyMs": 1 }
    })
}

#[test]
fn a_rich_answer() {
    insta::assert_json_snapshot!(plain(whole(&mut *reader(), &rich()).unwrap()));
}

fn finish(reason: &str, content: Value) -> Result<(FinishReason, Option<String>), BadAnswer> {
    let body = json!({ "output": { "message": { "role": "assistant", "content": content } }, "stopReason": reason,
                       "additionalModelResponseFields": { "stop_sequence": "END" } });
    let events = whole(&mut *reader(), &body)?;
    match events.into_iter().last() {
        Some(ChatEvent::Finish { reason, stop_sequence }) => Ok((reason, stop_sequence)),
        _ => panic!("no finish"),
    }
}

// Trap 29.
#[test]
fn reasons_to_stop() {
    let of = |reason: &str| finish(reason, json!([{ "text": "a" }])).map(|(reason, _)| reason);
    assert_eq!(of("end_turn"), Ok(FinishReason::Stop));
    assert_eq!(of("stop_sequence"), Ok(FinishReason::Stop));
    assert_eq!(of("max_tokens"), Ok(FinishReason::Length));
    assert_eq!(of("model_context_window_exceeded"), Ok(FinishReason::Length));
    assert_eq!(of("guardrail_intervened"), Ok(FinishReason::ContentFilter));
    assert_eq!(of("content_filtered"), Ok(FinishReason::ContentFilter));
    assert_eq!(of("refusal"), Ok(FinishReason::Refusal));
    assert!(matches!(of("malformed_tool_use"), Err(BadAnswer::Reported(_))));
    assert!(matches!(of("something_new"), Err(BadAnswer::Misplaced(_))));
    let call = json!([{ "toolUse": { "toolUseId": "i", "name": "f", "input": null } }]);
    assert_eq!(
        finish("end_turn", call),
        Ok((FinishReason::ToolCalls, Some("END".to_owned())))
    );
}

// Trap 10.
#[test]
fn the_arguments_of_the_answers_tool_are_the_answer() {
    let answer = json!({ "toolUse": { "toolUseId": "i", "name": "answer", "input": { "a": 1.10 } } });
    let body = |content: Value, reason: &str| json!({ "output": { "message": { "role": "assistant", "content": content } }, "stopReason": reason });
    let events = whole(
        &mut *form_reader(),
        &body(json!([{ "text": "Here:" }, answer, { "text": "!" }]), "tool_use"),
    )
    .unwrap();
    assert!(
        matches!(&events[1..], [ChatEvent::Text { text }, ChatEvent::Finish { reason: FinishReason::Stop, .. }]
        if text == r#"{"a":1.1}"#)
    );
    // A real call beside it survives.
    let call = json!({ "toolUse": { "toolUseId": "j", "name": "f", "input": {} } });
    let events = whole(
        &mut *form_reader(),
        &body(json!([{ "text": "First" }, call, answer]), "tool_use"),
    )
    .unwrap();
    assert!(matches!(
        &events[1..],
        [
            ChatEvent::Text { .. },
            ChatEvent::ToolCall { .. },
            ChatEvent::Text { .. },
            ChatEvent::Finish {
                reason: FinishReason::ToolCalls,
                ..
            }
        ]
    ));
    // Nor is a text lost when the tool was not called.
    let events = whole(&mut *form_reader(), &body(json!([{ "text": "No." }]), "end_turn")).unwrap();
    assert!(matches!(&events[1], ChatEvent::Text { text } if text == "No."));
    assert!(whole(&mut *form_reader(), &body(json!([answer, answer]), "tool_use")).is_err());
}

#[test]
fn answers_that_are_none() {
    let of = |body: Value| whole(&mut *reader(), &body).err();
    let message = json!({ "message": { "role": "assistant", "content": [] } });
    assert_eq!(of(json!({})), Some(BadAnswer::Lacks("its output")));
    assert_eq!(of(json!({ "output": {} })), Some(BadAnswer::Lacks("its message")));
    assert_eq!(
        of(json!({ "output": message })),
        Some(BadAnswer::Lacks("why the model stopped"))
    );
    let unknown = json!({ "message": { "role": "assistant", "content": [{ "hologram": {} }] } });
    assert!(matches!(
        of(json!({ "output": unknown, "stopReason": "end_turn" })),
        Some(BadAnswer::Misplaced(_))
    ));
    let server = json!({ "message": { "role": "assistant", "content": [
        { "toolUse": { "toolUseId": "i", "name": "n", "type": "server_tool_use", "input": {} } }] } });
    assert!(matches!(
        of(json!({ "output": server, "stopReason": "end_turn" })),
        Some(BadAnswer::Misplaced(_))
    ));
    assert_eq!(reader().whole(b"{").err(), Some(BadAnswer::NotJson));
    let envelope = json!({ "Output": { "__type": "com.amazon.coral.service#InternalFailure" }, "Version": "1.0" });
    let Some(BadAnswer::Reported(error)) = of(envelope) else {
        panic!("not reported");
    };
    assert_eq!(
        (error.code.as_deref(), error.means),
        (Some("InternalFailure"), Some(ErrorCode::ProviderError))
    );
}

#[test]
fn errors_tell_what_they_mean() {
    let of = |body: &str| provider::error(body.as_bytes());
    let means = |message: &str| of(&json!({ "message": message }).to_string()).means;
    assert_eq!(
        means("Input is too long for requested model."),
        Some(ErrorCode::ContextLength)
    );
    assert_eq!(
        means("The model returned the following errors: prompt is too long: 250000 tokens > 200000 maximum"),
        Some(ErrorCode::ContextLength)
    );
    assert_eq!(
        means("The input exceeds the maximum number of tokens"),
        Some(ErrorCode::ContextLength)
    );
    assert_eq!(
        means("The maximum tokens you requested exceeds the model limit of 4096."),
        None
    );
    assert_eq!(
        means("The output was stopped by our content filter"),
        Some(ErrorCode::ContentPolicy)
    );
    assert_eq!(
        means("The guardrail identifier or version provided in the request does not exist."),
        None
    );
    let error = of(r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no"}"#);
    let expected = ProviderError {
        message: "no".to_owned(),
        code: Some("AccessDeniedException".to_owned()),
        means: Some(ErrorCode::ProviderAuth),
    };
    assert_eq!(error, expected);
    assert_eq!(of("<html>"), ProviderError::unreadable());
    assert_eq!(of("[]").means, None);
}
