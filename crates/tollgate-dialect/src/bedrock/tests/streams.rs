use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_types::{
    ErrorCode, Usage,
    chat::{ChatEvent, FinishReason},
};

use super::{
    super::event_stream::tests::{all, event},
    answers::{form_reader, plain, reader, rich, whole},
    *,
};
use crate::BadAnswer;

fn read(reader: &mut dyn Reader, events: &[Value]) -> Result<Vec<ChatEvent>, BadAnswer> {
    let mut read = Vec::new();
    for event in events {
        read.extend(reader.event(event.to_string().as_bytes())?);
    }
    Ok(read)
}

fn delta(index: u64, delta: Value) -> Value {
    json!({ "contentBlockDelta": { "contentBlockIndex": index, "delta": delta, "p": "abc" } })
}

fn tool(index: u64, id: &str, name: &str) -> Value {
    json!({ "contentBlockStart": { "contentBlockIndex": index, "start": { "toolUse": { "toolUseId": id, "name": name } } } })
}

fn stop(index: u64) -> Value {
    json!({ "contentBlockStop": { "contentBlockIndex": index } })
}

fn begin() -> Value {
    json!({ "messageStart": { "role": "assistant" } })
}

fn end(reason: &str) -> Value {
    json!({ "messageStop": { "stopReason": reason } })
}

fn metadata() -> Value {
    json!({ "metadata": { "usage": { "inputTokens": 1, "outputTokens": 2, "totalTokens": 3 }, "metrics": { "latencyMs": 1 },
                          "trace": { "guardrail": {} } } })
}

fn rich_stream() -> Vec<Value> {
    vec![
        json!({ "initial-response": {} }),
        begin(),
        delta(0, json!({ "reasoningContent": { "text": "h" } })),
        delta(0, json!({ "reasoningContent": { "text": "m" } })),
        delta(0, json!({ "reasoningContent": { "signature": "c2ln" } })),
        stop(0),
        // Two pieces of base64, each on its own.
        delta(1, json!({ "reasoningContent": { "redactedContent": "c2U=" } })),
        delta(1, json!({ "reasoningContent": { "redactedContent": "Y3JldA==" } })),
        stop(1),
        delta(2, json!({ "text": "It is " })),
        delta(2, json!({ "text": "" })),
        delta(2, json!({ "text": "sunny" })),
        delta(
            2,
            json!({ "citation": { "title": "Report", "sourceContent": [{ "text": "sun" }],
            "location": { "documentPage": { "documentIndex": 1, "start": 2, "end": 3 } } } }),
        ),
        stop(2),
        tool(3, "tooluse_1", "get_weather"),
        delta(3, json!({ "toolUse": { "input": "{\"city\"" } })),
        delta(3, json!({ "toolUse": { "input": ":\"Rom\"}" } })),
        stop(3),
        tool(4, "tooluse_2", "get_weather"),
        delta(4, json!({ "toolUse": { "input": "" } })),
        stop(4),
        json!({ "contentBlockStart": { "contentBlockIndex": 5, "start": { "image": { "format": "webp" } } } }),
        delta(5, json!({ "image": { "source": { "bytes": "UklG" } } })),
        stop(5),
        json!({ "messageStop": { "stopReason": "tool_use", "additionalModelResponseFields": { "stop_sequence": null } } }),
        metadata(),
    ]
}

#[test]
fn a_rich_stream() {
    insta::assert_json_snapshot!(plain(read(&mut *reader(), &rich_stream()).unwrap()));
}

// Trap 29.
#[test]
fn the_stop_makes_it_complete_and_the_metadata_ends_it() {
    let mut reader = reader();
    let mut states = Vec::new();
    for event in [
        begin(),
        delta(0, json!({ "text": "a" })),
        stop(0),
        end("end_turn"),
        metadata(),
    ] {
        reader.event(event.to_string().as_bytes()).unwrap();
        states.push((reader.is_complete(), reader.is_done()));
    }
    let (no, complete, done) = ((false, false), (true, false), (true, true));
    assert_eq!(states, [no, no, no, complete, done]);
}

#[test]
fn an_error_within_the_stream_is_one() {
    let means = |kind: &str, message: &str| {
        let mut events = vec![begin(), delta(0, json!({ "text": "a" }))];
        events.push(json!({ kind: { "message": message } }));
        match read(&mut *reader(), &events) {
            Err(BadAnswer::Reported(error)) => (error.code, error.means),
            _ => panic!("not reported"),
        }
    };
    let code = |code: &str| Some(code.to_owned());
    let limited = Some(ErrorCode::ProviderRateLimited);
    assert_eq!(
        means("throttlingException", "slow"),
        (code("throttlingException"), limited)
    );
    for kind in [
        "modelStreamErrorException",
        "internalServerException",
        "serviceUnavailableException",
    ] {
        assert_eq!(means(kind, "x"), (code(kind), Some(ErrorCode::ProviderError)));
    }
    assert_eq!(
        means("validationException", "Input is too long").1,
        Some(ErrorCode::ContextLength)
    );
    assert_eq!(means("validationException", "x").1, None);
    let error = json!({ "error": { "code": "ThrottlingException", "message": "m" } });
    assert!(matches!(read(&mut *reader(), &[begin(), error]),
        Err(BadAnswer::Reported(error)) if error.means == limited && error.message == "m"));
}

#[test]
fn events_that_are_out_of_order_are_refused() {
    let text = || delta(0, json!({ "text": "a" }));
    for events in [
        vec![text()],
        vec![begin(), begin()],
        vec![stop(0)],
        vec![end("end_turn")],
        vec![metadata()],
        vec![begin(), delta(0, json!({ "toolUse": { "input": "{}" } }))],
        vec![begin(), tool(0, "i", "f"), delta(0, json!({ "text": "a" }))],
        vec![begin(), delta(0, json!({ "hologram": "a" }))],
        vec![
            begin(),
            json!({ "contentBlockStart": { "contentBlockIndex": 0, "start": { "hologram": {} } } }),
        ],
        vec![begin(), end("end_turn"), text()],
        vec![begin(), end("end_turn"), end("end_turn")],
        vec![begin(), metadata(), metadata()],
        vec![json!({ "messageStart": {}, "messageStop": {} })],
        vec![json!([])],
    ] {
        assert!(read(&mut *reader(), &events).is_err(), "{events:?}");
    }
}

// Trap 10.
#[test]
fn the_arguments_of_the_answers_tool_stream_as_text() {
    let events = [
        begin(),
        delta(0, json!({ "text": "Well," })),
        stop(0),
        tool(1, "i", "answer"),
        delta(1, json!({ "toolUse": { "input": "{\"a\"" } })),
        delta(1, json!({ "toolUse": { "input": ":1}" } })),
        stop(1),
        end("tool_use"),
    ];
    let events = read(&mut *form_reader(), &events).unwrap();
    let texts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            ChatEvent::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["{\"a\"", ":1}"]);
    assert!(matches!(
        events.last(),
        Some(ChatEvent::Finish {
            reason: FinishReason::Stop,
            ..
        })
    ));
}

/// One block of an answer.
#[derive(Clone, Debug)]
enum Piece {
    Text(Vec<String>),
    Reasoning(Vec<String>, Option<String>),
    Redacted(String),
    Call(String, Vec<String>),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let texts = || prop::collection::vec("[a-zé\"\\\\]{1,4}", 1..4);
    let piece = prop_oneof![
        texts().prop_map(Piece::Text),
        (texts(), prop::option::of("[a-z]{1,4}")).prop_map(|(texts, signature)| Piece::Reasoning(texts, signature)),
        "([A-Z]{4}){1,2}".prop_map(Piece::Redacted),
        ("[a-z]{1,4}", texts()).prop_map(|(id, arguments)| Piece::Call(id, arguments)),
    ];
    prop::collection::vec(piece, 0..6)
}

/// The events that an answer of these blocks is, and Bedrock's messages for it.
fn answer(pieces: &[Piece]) -> (Vec<ChatEvent>, Vec<Vec<u8>>) {
    let mut events = Vec::new();
    let mut messages = vec![begin()];
    let mut calls = 0;
    for (index, piece) in (0..).zip(pieces) {
        match piece {
            Piece::Text(texts) => {
                for text in texts {
                    events.push(ChatEvent::Text { text: text.clone() });
                    messages.push(delta(index, json!({ "text": text })));
                }
            }
            Piece::Reasoning(texts, signature) => {
                for text in texts {
                    events.push(ChatEvent::Reasoning { text: text.clone() });
                    messages.push(delta(index, json!({ "reasoningContent": { "text": text } })));
                }
                if let Some(signature) = signature.clone() {
                    messages.push(delta(index, json!({ "reasoningContent": { "signature": signature } })));
                    events.push(ChatEvent::ReasoningSignature { signature });
                }
            }
            Piece::Redacted(data) => {
                events.push(ChatEvent::RedactedReasoning { data: data.clone() });
                messages.push(delta(index, json!({ "reasoningContent": { "redactedContent": data } })));
            }
            Piece::Call(id, arguments) => {
                let call = |id, name, arguments: &str| ChatEvent::ToolCall {
                    index: calls,
                    id,
                    name,
                    arguments: arguments.to_owned(),
                    signature: None,
                };
                events.push(call(Some(id.clone()), Some("get.weather".to_owned()), ""));
                messages.push(tool(index, id, "get_weather"));
                for text in arguments {
                    events.push(call(None, None, text));
                    messages.push(delta(index, json!({ "toolUse": { "input": text } })));
                }
                calls += 1;
            }
        }
        messages.push(stop(index));
    }
    let reason = if calls > 0 {
        FinishReason::ToolCalls
    } else {
        FinishReason::Stop
    };
    events.push(ChatEvent::Finish {
        reason,
        stop_sequence: None,
    });
    let usage = Usage {
        input_tokens: 1,
        output_tokens: 2,
        ..Usage::default()
    };
    events.push(ChatEvent::Usage { usage });
    messages.extend([end(if calls > 0 { "tool_use" } else { "end_turn" }), metadata()]);
    let bytes = messages.iter().map(|message| {
        let (kind, payload) = message.as_object().unwrap().iter().next().unwrap();
        event(kind, payload.to_string().as_bytes())
    });
    (events, bytes.collect())
}

proptest! {
    #[test]
    fn answers_come_back_from_the_binary_stream(pieces in pieces(), mut cuts in prop::collection::vec(0..4000_usize, 0..20)) {
        cuts.sort_unstable();
        let (expected, messages) = answer(&pieces);
        let (frames, error) = all(&messages.concat(), &cuts);
        prop_assert_eq!(error, None);
        let mut reader = reader();
        let mut read = Vec::new();
        for frame in frames {
            read.extend(reader.event(&frame).unwrap());
        }
        let starts = matches!(read.first(), Some(ChatEvent::Start { .. }));
        prop_assert!(starts && reader.is_done());
        prop_assert!(read[1..] == expected[..]);
    }

    #[test]
    fn a_broken_stream_is_not_complete(pieces in pieces(), cut in 0..4000_usize) {
        let (_, mut messages) = answer(&pieces);
        // All but the usage, which a complete answer may lack.
        messages.pop();
        let stream = messages.concat();
        let mut reader = reader();
        for frame in all(&stream[..cut.min(stream.len() - 1)], &[]).0 {
            reader.event(&frame).unwrap();
        }
        prop_assert!(!reader.is_complete() && !reader.is_done());
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let _ = reader().whole(&bytes);
        let _ = reader().event(&bytes);
        let _ = provider::error(&bytes);
        let mut body = rich().to_string().into_bytes();
        let place_in_body = place.index(body.len());
        body[place_in_body] = byte;
        let _ = reader().whole(&body);
        let _ = provider::error(&body);
        let mut reader = form_reader();
        for event in rich_stream() {
            let mut event = event.to_string().into_bytes();
            let place = place.index(event.len());
            event[place] = byte;
            let _ = reader.event(&event);
        }
    }
}

#[test]
fn whole_and_streamed_answers_agree() {
    let streamed = [
        begin(),
        delta(0, json!({ "text": "a" })),
        stop(0),
        tool(1, "i", "get_weather"),
        stop(1),
        end("tool_use"),
        metadata(),
    ];
    let mut streamed = read(&mut *reader(), &streamed).unwrap();
    // The arguments come with the call in a whole answer.
    let ChatEvent::ToolCall { arguments, .. } = streamed.remove(3) else {
        panic!("no arguments");
    };
    if let ChatEvent::ToolCall { arguments: first, .. } = &mut streamed[2] {
        *first = arguments;
    }
    let body = json!({
        "output": { "message": { "role": "assistant", "content": [
            { "text": "a" }, { "toolUse": { "toolUseId": "i", "name": "get_weather", "input": {} } } ] } },
        "stopReason": "tool_use", "usage": { "inputTokens": 1, "outputTokens": 2 }
    });
    assert_eq!(plain(streamed), plain(whole(&mut *reader(), &body).unwrap()));
}
