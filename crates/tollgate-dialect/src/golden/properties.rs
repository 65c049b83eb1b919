//! What must hold of any conversation and any answer.

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_types::{
    Dialect, RequestView, Usage,
    chat::{Answered, ChatEvent, ChatRequest, FinishReason, Part, Role},
    provider::{OnUnsupported, Quirks},
};

use super::{PROVIDERS, answers::view, model};
use crate::{
    side::{Losses, Target},
    translate::{pass_on_reader, read, write, writer},
};

/// The dialects that are both spoken by doors and by providers.
const BOTH: [Dialect; 4] = [
    Dialect::OpenaiChat,
    Dialect::OpenaiResponses,
    Dialect::Anthropic,
    Dialect::Gemini,
];

fn words() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß☃,.{}\"\\\\ ]{0,12}[a-z]"
}

/// Turns as JSON: what is made of prompts cannot be printed, and a failing case must be.
fn user() -> impl Strategy<Value = Vec<Value>> {
    (words(), any::<bool>()).prop_map(|(text, with_image)| {
        let mut content = vec![json!({ "type": "text", "text": text })];
        if with_image {
            let media = json!({ "inline": { "media_type": "image/png", "data": "AAAA" } });
            content.push(json!({ "type": "image", "media": media }));
        }
        vec![json!({ "role": "user", "content": content })]
    })
}

/// A call or two, answered.
fn tools() -> impl Strategy<Value = Vec<Value>> {
    let calls = proptest::collection::vec((words(), words()), 1..3);
    (proptest::option::of(words()), calls).prop_map(|(said, calls)| {
        let said = said.map(|text| json!({ "type": "text", "text": text }));
        let made = calls.iter().enumerate().map(|(index, (city, _))| {
            let arguments = json!({ "city": city }).to_string();
            json!({ "type": "tool_call", "id": format!("call_{index}"), "name": "weather", "arguments": arguments })
        });
        let answered = calls.iter().enumerate().map(|(index, (_, text))| {
            let content = [json!({ "type": "text", "text": text })];
            json!({ "type": "tool_result", "call_id": format!("call_{index}"), "content": content })
        });
        let made: Vec<_> = said.into_iter().chain(made).collect();
        let answered: Vec<_> = answered.collect();
        vec![
            json!({ "role": "assistant", "content": made }),
            json!({ "role": "tool", "content": answered }),
        ]
    })
}

fn chat() -> impl Strategy<Value = Value> {
    let assistant =
        words().prop_map(|text| vec![json!({ "role": "assistant", "content": [{ "type": "text", "text": text }] })]);
    let turn = (user(), prop_oneof![assistant, tools()]);
    let choice = prop_oneof![
        Just(Value::Null),
        Just(json!("auto")),
        Just(json!("required")),
        Just(json!({ "named": "weather" }))
    ];
    let turns = proptest::collection::vec(turn, 0..3);
    (turns, user(), 20_u64..5000, choice, any::<bool>()).prop_map(|(turns, last, limit, choice, stream)| {
        let turns = turns.into_iter().flat_map(|(user, other)| [user, other].concat());
        json!({
            "model": "m",
            "messages": turns.chain(last).collect::<Vec<_>>(),
            "tools": [{ "name": "weather", "parameters": { "type": "object", "properties": {} } }],
            "tool_choice": choice,
            "max_output_tokens": limit,
            "stream": stream,
        })
    })
}

/// A conversation with neighbours of one role together and calls told apart by their place alone: what dialects that
/// merge turns, or know no ids, can keep.
fn essence(request: &ChatRequest) -> Vec<(Role, Vec<String>)> {
    let mut turns: Vec<(Role, Vec<String>)> = Vec::new();
    for message in &request.messages {
        let parts = message.content.iter().map(|part| match part {
            Part::Text { text, .. } => format!("text {text}"),
            Part::Image { media, .. } => format!("image {}", media.to_url().unwrap_or_default()),
            Part::ToolCall { name, arguments, .. } => {
                format!(
                    "call {name} {}",
                    serde_json::from_str::<serde_json::Value>(arguments).unwrap_or_default()
                )
            }
            Part::ToolResult { content, is_error, .. } => {
                let texts = content.iter().map(|part| match part {
                    Part::Text { text, .. } => text.as_str(),
                    _ => "?",
                });
                format!("result {is_error} {}", texts.collect::<String>())
            }
            _ => "?".to_owned(),
        });
        match turns.last_mut().filter(|(role, _)| *role == message.role) {
            Some((_, all)) => all.extend(parts),
            None => turns.push((message.role, parts.collect())),
        }
    }
    turns
}

fn events() -> impl Strategy<Value = Vec<Value>> {
    let text = proptest::collection::vec(words(), 0..4);
    let calls = proptest::collection::vec(words(), 0..3);
    (text, calls, 1_u64..1000, 1_u64..1000).prop_map(|(texts, calls, input, output)| {
        let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
        let mut events = vec![json!({ "type": "start", "id": "id", "model": "m" })];
        events.extend(texts.into_iter().map(|text| json!({ "type": "text", "text": text })));
        for (index, city) in calls.into_iter().enumerate() {
            let id = format!("call_{index}");
            events.push(json!({ "type": "tool_call", "index": index, "id": id, "name": "weather", "arguments": "" }));
            let arguments = json!({ "city": city }).to_string();
            events.push(json!({ "type": "tool_call", "index": index, "arguments": arguments }));
        }
        events.push(json!({ "type": "finish", "reason": reason }));
        events.push(json!({ "type": "usage", "usage": { "input_tokens": input, "output_tokens": output } }));
        events
    })
}

/// Text, names and arguments of calls, end and usage.
type Gist = (String, Vec<(String, String)>, Option<FinishReason>, Option<Usage>);

/// What an answer says, however it was cut into pieces.
fn gist(events: Vec<ChatEvent>) -> Gist {
    let whole = Answered::of(events);
    let calls = whole.content.iter().filter_map(|part| match part {
        Part::ToolCall { name, arguments, .. } => Some((name.clone(), arguments.clone())),
        _ => None,
    });
    (whole.all_text(), calls.collect(), whole.finish, whole.usage)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_chat_written_and_read_back_is_the_same(request in chat()) {
        let request: ChatRequest = serde_json::from_value(request).unwrap();
        for dialect in BOTH {
            let target = Target { model: model(dialect), quirks: Quirks::default() };
            let mut losses = Losses::new(OnUnsupported::Refuse);
            let (body, _) = write(dialect, &request, &target, &mut losses).unwrap();
            let view = RequestView { stream: request.stream, ..view() };
            let back = read(dialect, &body, &view).unwrap();
            prop_assert_eq!(essence(&back), essence(&request), "{}", dialect.as_str());
            prop_assert_eq!(back.max_output_tokens, request.max_output_tokens);
            prop_assert!(back.tool_choice == request.tool_choice && back.tools.len() == 1 && back.beyond.is_empty());
        }
    }

    #[test]
    fn an_answer_written_and_read_back_is_the_same_and_no_truncation_passes_for_it(events in events()) {
        let events: Vec<ChatEvent> = serde_json::from_value(Value::Array(events)).unwrap();
        for dialect in BOTH {
            let request = ChatRequest { model: "m".to_owned(), stream: true, ..ChatRequest::default() };
            let mut writer_side = writer(dialect, &request, &view());
            let mut frames = Vec::new();
            for event in events.clone() {
                frames.extend(writer_side.event(event).unwrap());
            }
            frames.extend(writer_side.end().unwrap());
            let mut reader = pass_on_reader(dialect).unwrap();
            let mut back = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                back.extend(reader.event(frame).unwrap());
                // OpenAI's chunks after the reason bring usage alone.
                let is_last = index + 1 == frames.len() || (dialect == Dialect::OpenaiChat && index + 2 == frames.len());
                prop_assert!(is_last || !reader.is_complete(), "{} complete after {index}", dialect.as_str());
            }
            prop_assert!(reader.is_complete());
            prop_assert_eq!(gist(back), gist(events.clone()), "{}", dialect.as_str());
            let whole = writer(dialect, &ChatRequest { stream: false, ..request }, &view()).whole(events.clone()).unwrap();
            let back = pass_on_reader(dialect).unwrap().whole(&whole).unwrap();
            prop_assert_eq!(gist(back), gist(events.clone()), "{} whole", dialect.as_str());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..300), text in "[\\[\\]{}:,\"a-z0-9 ]{0,80}") {
        for bytes in [data.as_slice(), text.as_bytes()] {
            for client in Dialect::ALL {
                let _ = crate::view(client, tollgate_types::Operation::Chat, Some(("m", true)), bytes);
                let _ = read(client, bytes, &view());
            }
            for provider in PROVIDERS {
                let _ = crate::provider_error(provider, bytes);
                if let Some(mut reader) = pass_on_reader(provider) {
                    let _ = reader.event(bytes);
                    let _ = reader.whole(bytes);
                }
            }
        }
    }
}
