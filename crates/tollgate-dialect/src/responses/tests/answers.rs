//! Answers: to clients, from providers, and from one to the other.

use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatEvent, ChatRequest, Citation, FinishReason, Reasoning, Span, SpanUnit, TokenLogprob, Tool, ToolChoice},
};

use super::{follow, merged, steady, stream, values};
use crate::{
    BadAnswer,
    responses::{client, provider},
};

fn start() -> ChatEvent {
    ChatEvent::Start {
        id: "resp_1".to_owned(),
        model: "real-1".to_owned(),
    }
}

fn text(text: &str) -> ChatEvent {
    ChatEvent::Text { text: text.to_owned() }
}

fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish {
        reason,
        stop_sequence: None,
    }
}

fn call(index: u32, first: Option<(&str, &str)>, arguments: &str) -> ChatEvent {
    ChatEvent::ToolCall {
        index,
        id: first.map(|(id, _)| id.to_owned()),
        name: first.map(|(_, name)| name.to_owned()),
        arguments: arguments.to_owned(),
        signature: None,
    }
}

fn usage() -> ChatEvent {
    ChatEvent::Usage {
        usage: Usage {
            input_tokens: 100,
            cached_input_tokens: 60,
            cache_write_input_tokens: 10,
            output_tokens: 50,
            reasoning_tokens: 20,
            ..Usage::default()
        },
    }
}

fn citation() -> ChatEvent {
    ChatEvent::Citation {
        citation: Citation {
            url: Some("https://h/p".to_owned()),
            title: Some("P".to_owned()),
            answer: Some(Span {
                unit: SpanUnit::Character,
                start: 0,
                end: 2,
            }),
            ..Citation::default()
        },
    }
}

fn logprobs() -> ChatEvent {
    let token = |token: &str, logprob| TokenLogprob {
        token: token.to_owned(),
        logprob,
        bytes: None,
        alternatives: Vec::new(),
    };
    ChatEvent::Logprobs {
        tokens: vec![TokenLogprob {
            alternatives: vec![token("Hi", -0.5), token("Ho", -1.5)],
            ..token("Hi", -0.5)
        }],
    }
}

fn rich() -> Vec<ChatEvent> {
    let signed = |text: &str| ChatEvent::ReasoningSignature {
        signature: text.to_owned(),
    };
    vec![
        start(),
        ChatEvent::Reasoning {
            text: "Let me ".to_owned(),
        },
        ChatEvent::Reasoning {
            text: "see.".to_owned(),
        },
        signed("EqQB"),
        ChatEvent::RedactedReasoning {
            data: "EEEE".to_owned(),
        },
        text("Hi"),
        logprobs(),
        text(" there."),
        citation(),
        ChatEvent::Refusal {
            text: "Not that.".to_owned(),
        },
        call(0, Some(("c1", "f")), ""),
        call(0, None, r#"{"a""#),
        call(0, None, ":1}"),
        call(1, Some(("c2", "g")), ""),
        finish(FinishReason::ToolCalls),
        usage(),
    ]
}

fn request() -> ChatRequest {
    ChatRequest {
        model: "public".to_owned(),
        messages: vec![tollgate_types::chat::Message::new(
            tollgate_types::chat::Role::Developer,
            vec![tollgate_types::chat::Part::text("Be brief.")],
        )],
        tools: vec![Tool {
            name: "f".to_owned(),
            ..Tool::default()
        }],
        tool_choice: Some(ToolChoice::Required),
        parallel_tool_calls: Some(true),
        max_output_tokens: Some(64),
        temperature: Some(0.5),
        reasoning: Some(Reasoning {
            shown: Some(true),
            ..Reasoning::default()
        }),
        logprobs: Some(2),
        ..ChatRequest::default()
    }
}

#[test]
fn everything_that_can_be_answered_at_once() {
    let body = client::writer(&request()).whole(rich()).unwrap();
    insta::assert_json_snapshot!(steady(&serde_json::from_slice(&body).unwrap()));
}

#[test]
fn everything_that_can_be_answered_in_a_stream() {
    let frames = values(&stream(&request(), &rich()).unwrap());
    for (number, frame) in (0_u64..).zip(&frames) {
        assert_eq!(frame["sequence_number"], json!(number));
    }
    // The objects around the answer are in the other snapshot.
    let mut shown: Vec<Value> = steady(&frames.into()).as_array().unwrap().clone();
    for frame in &mut shown {
        if let Some(response) = frame.get_mut("response") {
            *response = json!({ "id": response["id"], "status": response["status"], "output": response["output"] });
        }
    }
    insta::assert_json_snapshot!(shown);
}

#[test]
fn the_last_event_of_a_stream_is_the_answer_at_once() {
    let frames = values(&stream(&request(), &rich()).unwrap());
    let whole = client::writer(&request()).whole(rich()).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    let last = frames.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(steady(&last["response"]), steady(&whole));
}

#[test]
fn what_a_stream_says_piece_by_piece_is_what_it_says_in_the_end() {
    let frames = values(&stream(&request(), &rich()).unwrap());
    let output = &frames.last().unwrap()["response"]["output"];
    for frame in &frames {
        let index = frame["output_index"].as_u64().unwrap_or_default() as usize;
        match frame["type"].as_str().unwrap() {
            "response.output_item.done" => assert_eq!(frame["item"], output[index]),
            "response.output_item.added" => assert_eq!(frame["item"]["id"], output[index]["id"]),
            "response.created" | "response.in_progress" | "response.completed" => {}
            _ => assert_eq!(frame["item_id"], output[index]["id"]),
        }
    }
}

#[test]
fn how_an_answer_ended_is_said() {
    let status = |events: &[ChatEvent]| {
        let frames = values(&stream(&ChatRequest::default(), events).unwrap());
        let last = frames.last().unwrap();
        assert_eq!(
            last["type"],
            json!(format!("response.{}", last["response"]["status"].as_str().unwrap()))
        );
        (
            last["response"]["incomplete_details"]["reason"].clone(),
            last["response"]["output"][0]["status"].clone(),
        )
    };
    let length = [start(), text("a"), finish(FinishReason::Length)];
    assert_eq!(status(&length), (json!("max_output_tokens"), json!("incomplete")));
    let filter = [start(), text("a"), finish(FinishReason::ContentFilter)];
    assert_eq!(status(&filter), (json!("content_filter"), json!("incomplete")));
    let declined = [start(), finish(FinishReason::Refusal)];
    assert_eq!(status(&declined), (json!("content_filter"), Value::Null));
    let words = ChatEvent::Refusal { text: "No.".to_owned() };
    assert_eq!(
        status(&[start(), words, finish(FinishReason::Refusal)]),
        (Value::Null, json!("completed"))
    );
}

#[test]
fn a_call_that_is_cut_short_has_no_made_up_arguments() {
    let events = [start(), call(0, Some(("c", "f")), ""), finish(FinishReason::Length)];
    let whole = client::writer(&ChatRequest::default()).whole(events.to_vec()).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(
        (&whole["output"][0]["arguments"], &whole["usage"]),
        (&json!(""), &Value::Null)
    );
}

#[test]
fn a_late_citation_finds_its_text() {
    let events = [
        start(),
        text("Hi."),
        call(0, Some(("c", "f")), "{}"),
        citation(),
        finish(FinishReason::Stop),
    ];
    let frames = values(&stream(&ChatRequest::default(), &events).unwrap());
    let output = &frames.last().unwrap()["response"]["output"];
    assert_eq!(output[0]["content"][0]["annotations"][0]["url"], "https://h/p");
    let added = frames
        .iter()
        .find(|frame| frame["type"] == "response.output_text.annotation.added")
        .unwrap();
    assert_eq!(
        (&added["output_index"], &added["item_id"], &added["annotation_index"]),
        (&json!(0), &output[0]["id"], &json!(0))
    );
}

#[test]
fn a_signature_that_comes_after_its_call_still_comes() {
    let late = ChatEvent::ToolCall {
        index: 0,
        id: None,
        name: None,
        arguments: String::new(),
        signature: Some("sig".to_owned()),
    };
    let events = vec![
        start(),
        call(0, Some(("c", "f")), "{}"),
        late,
        finish(FinishReason::ToolCalls),
    ];
    let whole = client::writer(&ChatRequest::default()).whole(events).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["output"][1]["encrypted_content"], r#"tollgate.call:["c","sig"]"#);
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let media = ChatEvent::Media {
        media_type: "image/png".to_owned(),
        data: "AAAA".to_owned(),
    };
    let answer = |events: &[ChatEvent]| stream(&ChatRequest::default(), events).err();
    assert!(matches!(answer(&[start(), media]), Some(BadAnswer::Inexpressible(_))));
    assert!(matches!(answer(&[text("a")]), Some(BadAnswer::Misplaced(_))));
    assert!(matches!(answer(&[start(), text("a")]), Some(BadAnswer::Lacks(_))));
    let twice = [
        start(),
        call(0, Some(("c", "f")), "{}"),
        call(1, Some(("d", "f")), "{}"),
        call(0, None, "x"),
    ];
    assert!(matches!(answer(&twice), Some(BadAnswer::Misplaced(_))));
    assert!(matches!(
        answer(&[start(), call(0, None, "x")]),
        Some(BadAnswer::Lacks(_))
    ));
}

fn words() -> impl Strategy<Value = String> {
    "[a-zA-Z é\"]{1,10}"
}

/// The events themselves show nothing of what they hold; their JSON does.
fn shown(events: &[ChatEvent]) -> Value {
    serde_json::to_value(events).unwrap()
}

/// Blocks of an answer, each in one or more pieces. Reasoning is signed, so that one block does not run into the next.
fn block() -> impl Strategy<Value = Value> {
    prop_oneof![
        (vec(words(), 1..3), any::<bool>(), any::<bool>()).prop_map(|(pieces, tokens, cited)| {
            let mut events: Vec<_> = pieces.iter().map(|piece| text(piece)).collect();
            events.extend(tokens.then(logprobs));
            events.extend(cited.then(citation));
            shown(&events)
        }),
        words().prop_map(|text| shown(&[ChatEvent::Refusal { text }])),
        (option::of(vec(words(), 1..3)), "[A-Za-z:.=]{1,9}").prop_map(|(pieces, signature)| {
            let pieces = pieces.into_iter().flatten();
            let mut events: Vec<_> = pieces.map(|text| ChatEvent::Reasoning { text }).collect();
            events.push(ChatEvent::ReasoningSignature { signature });
            shown(&events)
        }),
        words().prop_map(|data| shown(&[ChatEvent::RedactedReasoning { data }])),
        (vec(words(), 1..3), option::of(words())).prop_map(|(pieces, signature)| {
            let mut events = vec![ChatEvent::ToolCall {
                index: 0,
                id: Some(String::new()),
                name: Some("f".to_owned()),
                arguments: String::new(),
                signature,
            }];
            events.extend(pieces.iter().map(|piece| call(0, None, piece)));
            shown(&events)
        }),
    ]
}

fn answer() -> impl Strategy<Value = Value> {
    (vec(block(), 0..5), option::of(any::<bool>())).prop_map(|(blocks, incomplete)| {
        let mut calls = 0;
        let mut events = vec![start()];
        for block in blocks {
            for mut event in serde_json::from_value::<Vec<ChatEvent>>(block).unwrap() {
                if let ChatEvent::ToolCall { index, id, .. } = &mut event {
                    calls += u32::from(id.is_some());
                    *index = calls - 1;
                    id.iter_mut().for_each(|id| *id = format!("c{calls}"));
                }
                events.push(event);
            }
        }
        let refused = events.iter().any(|event| matches!(event, ChatEvent::Refusal { .. }));
        let reason = match incomplete {
            Some(true) => FinishReason::Length,
            Some(false) => FinishReason::ContentFilter,
            None if calls > 0 => FinishReason::ToolCalls,
            None if refused => FinishReason::Refusal,
            None => FinishReason::Stop,
        };
        events.extend([finish(reason), usage()]);
        shown(&events)
    })
}

fn events_of(answer: Value) -> Vec<ChatEvent> {
    serde_json::from_value(answer).unwrap()
}

fn same(left: Vec<ChatEvent>, right: Vec<ChatEvent>) -> Result<(), TestCaseError> {
    prop_assert_eq!(shown(&merged(left)), shown(&merged(right)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_streamed_answer_comes_back(answer in answer(), waits in any::<bool>()) {
        let events = events_of(answer);
        let request = ChatRequest { logprobs: waits.then_some(0), ..ChatRequest::default() };
        let frames = stream(&request, &events).unwrap();
        let mut reader = provider::reader();
        for frame in &frames[..frames.len() - 1] {
            reader.event(frame).unwrap();
            prop_assert!(!reader.is_complete() && !reader.is_done());
        }
        let mut reader = provider::reader();
        let back = follow(&mut *reader, &frames).unwrap();
        prop_assert!(reader.is_complete() && reader.is_done());
        same(back, events)?;
    }

    #[test]
    fn only_what_is_done_is_as_good_as_all_of_it(answer in answer()) {
        let events = events_of(answer);
        let frames = stream(&ChatRequest::default(), &events).unwrap();
        let texts = |kept: &[&str]| {
            let kept = values(&frames).into_iter().filter(|frame| {
                let kind = frame["type"].as_str().unwrap();
                kept.iter().any(|kept| kind.starts_with(kept))
            });
            let events = super::follow_values(&kept.collect::<Vec<_>>());
            let telling = events.into_iter().filter(|event| !matches!(event, ChatEvent::Logprobs { .. }));
            merged(telling.collect())
        };
        let created = "response.created";
        let items = texts(&[created, "response.output_item.done", "response.completed", "response.incomplete"]);
        let end = texts(&[created, "response.completed", "response.incomplete"]);
        prop_assert!(items == end);
    }

    #[test]
    fn a_whole_answer_comes_back(answer in answer()) {
        let events = events_of(answer);
        let body = client::writer(&ChatRequest::default()).whole(events.clone()).unwrap();
        let mut reader = provider::reader();
        let back = reader.whole(&body).unwrap();
        prop_assert!(reader.is_complete());
        // Tokens of a whole text are in one list, with their bytes.
        let telling = |events: Vec<ChatEvent>| {
            let kept = events.into_iter().filter(|event| !matches!(event, ChatEvent::Logprobs { .. } | ChatEvent::Citation { .. }));
            kept.collect()
        };
        same(telling(back), telling(events))?;
    }

    #[test]
    fn broken_answers_are_errors(answer in answer(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let events = events_of(answer);
        let body = client::writer(&ChatRequest::default()).whole(events.clone()).unwrap();
        let at = at.index(body.len());
        let mut broken = body.to_vec();
        broken[at] = byte;
        let _ = provider::reader().whole(&broken);
        prop_assert!(provider::reader().whole(&body[..at]).is_err());
        let mut reader = provider::reader();
        for frame in stream(&ChatRequest::default(), &events).unwrap() {
            let mut frame = frame.to_vec();
            let at = at % frame.len();
            frame[at] = byte;
            let _ = reader.event(&frame);
        }
    }
}
