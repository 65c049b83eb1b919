//! One rich answer for each client, whole and streamed.

use serde_json::{Value, json};
use tollgate_types::{
    Dialect, RequestView, Usage,
    chat::{ChatEvent, ChatRequest, Citation, FinishReason, Span, SpanUnit},
};

use crate::translate::writer;

const CLIENTS: [Dialect; 5] = [
    Dialect::OpenaiChat,
    Dialect::OpenaiResponses,
    Dialect::Anthropic,
    Dialect::Gemini,
    Dialect::Native,
];

pub(super) fn view() -> RequestView {
    RequestView {
        operation: tollgate_types::Operation::Chat,
        model: "public".to_owned(),
        stream: true,
        include_usage: true,
        estimated_input_tokens: 0,
        max_output_tokens: None,
        answers: 1,
    }
}

fn rich() -> Vec<ChatEvent> {
    let text = |text: &str| ChatEvent::Text { text: text.to_owned() };
    let call = |index, id: Option<&str>, arguments: &str| ChatEvent::ToolCall {
        index,
        id: id.map(str::to_owned),
        name: id.map(|_| "weather".to_owned()),
        arguments: arguments.to_owned(),
        signature: id.filter(|_| index == 0).map(|_| "c2ln".to_owned()),
    };
    let citation = Citation {
        url: Some("https://h.example/p".to_owned()),
        title: Some("p".to_owned()),
        quote: Some("q".to_owned()),
        answer: Some(Span {
            unit: SpanUnit::Character,
            start: 0,
            end: 5,
        }),
        ..Citation::default()
    };
    vec![
        ChatEvent::Start {
            id: "msg_1".to_owned(),
            model: "m-1".to_owned(),
        },
        ChatEvent::Reasoning { text: "hmm".to_owned() },
        ChatEvent::ReasoningSignature {
            signature: "c2ln".to_owned(),
        },
        text("Hello"),
        text(" there"),
        ChatEvent::Citation { citation },
        call(0, Some("call_1"), ""),
        call(0, None, "{\"city\":"),
        call(0, None, "\"Rome\"}"),
        call(1, Some("call_2"), "{}"),
        ChatEvent::Finish {
            reason: FinishReason::ToolCalls,
            stop_sequence: None,
        },
        ChatEvent::Usage {
            usage: Usage {
                input_tokens: 100,
                cached_input_tokens: 40,
                cache_write_input_tokens: 10,
                output_tokens: 30,
                reasoning_tokens: 5,
                ..Usage::default()
            },
        },
    ]
}

/// Without what differs from run to run.
fn settled(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(fields) => {
                for (name, field) in fields {
                    match name.as_str() {
                        "created" | "created_at" | "completed_at" if field.is_number() => *field = 0.into(),
                        "id" | "item_id" if field.as_str().is_some_and(|id| id.len() > 30) => *field = "[id]".into(),
                        _ => walk(field),
                    }
                }
            }
            _ => {}
        }
    }
    walk(&mut value);
    value
}

#[test]
fn each_client_gets_the_whole_of_a_rich_answer() {
    for client in CLIENTS {
        let request = ChatRequest {
            model: "public".to_owned(),
            ..ChatRequest::default()
        };
        let whole = writer(client, &request, &view()).whole(rich()).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        let mut streaming = writer(
            client,
            &ChatRequest {
                stream: true,
                ..request
            },
            &view(),
        );
        let mut frames = Vec::new();
        for event in rich() {
            frames.extend(streaming.event(event).unwrap());
        }
        frames.extend(streaming.end().unwrap());
        let frames: Vec<Value> = frames
            .iter()
            .map(|frame| serde_json::from_slice(frame).unwrap())
            .collect();
        let both = settled(json!({ "whole": whole, "stream": frames }));
        insta::with_settings!({ prepend_module_to_snapshot => false }, {
            insta::assert_json_snapshot!(format!("answer_for_{}", client.as_str()), both);
        });
    }
}
