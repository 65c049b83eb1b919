//! Requests to a provider, and their way back.

use proptest::{collection::vec, option, prelude::*};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tollgate_types::chat::{
    Cache, ChatRequest, Citation, Effort, Media, Message, Part, Reasoning, ResponseFormat, Role, Span, SpanUnit, Tool,
    ToolChoice,
};

use super::{read, write};
use crate::responses::{client, provider};

fn inline(media_type: &str) -> Media {
    Media::Inline {
        media_type: media_type.to_owned(),
        data: "AAAA".to_owned(),
    }
}

fn cached(text: &str) -> Part {
    Part::Text {
        text: text.to_owned(),
        cache: Some(Cache::default()),
        citations: Vec::new(),
    }
}

fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        signature: None,
        cache: None,
    }
}

fn result(call_id: &str, content: Vec<Part>) -> Part {
    Part::ToolResult {
        call_id: call_id.to_owned(),
        content,
        is_error: false,
        cache: None,
    }
}

fn reasoning(text: &str, signature: Option<&str>) -> Part {
    Part::Reasoning {
        text: text.to_owned(),
        signature: signature.map(str::to_owned),
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn rich_messages() -> Vec<Message> {
    let image = |media, detail: Option<&str>| Part::Image {
        media,
        detail: detail.map(str::to_owned),
        cache: None,
    };
    let cited = Part::Text {
        text: "They ask.".to_owned(),
        cache: None,
        citations: vec![Citation {
            url: Some("https://h/p".to_owned()),
            title: Some("P".to_owned()),
            answer: Some(Span {
                unit: SpanUnit::Character,
                start: 0,
                end: 4,
            }),
            ..Citation::default()
        }],
    };
    vec![
        Message::new(Role::System, vec![cached("Be brief.")]),
        Message::new(Role::Developer, vec![Part::text("Use tools.")]),
        Message::new(
            Role::User,
            vec![
                Part::text("Look."),
                image(inline("image/png"), Some("low")),
                image(
                    Media::Url {
                        url: "https://h/i.png".to_owned(),
                        media_type: None,
                    },
                    None,
                ),
                Part::File {
                    media: inline("application/pdf"),
                    filename: Some("a.pdf".to_owned()),
                    cache: None,
                },
                Part::File {
                    media: Media::Uploaded {
                        id: "file-1".to_owned(),
                    },
                    filename: None,
                    cache: None,
                },
            ],
        ),
        Message::new(
            Role::Assistant,
            vec![
                reasoning("They want both.", Some("responses:rs_1:gAAA")),
                Part::RedactedReasoning { data: "x".to_owned() },
                reasoning("not ours", Some("EqQB")),
                cited,
                call("c1", "get weather!", r#"{"city": "Oslo"}"#),
                call("c2", "look", "{}"),
            ],
        ),
        Message::new(
            Role::Tool,
            vec![
                result("c1", vec![Part::text("rain")]),
                result("c2", vec![Part::text("here"), image(inline("image/jpeg"), None)]),
            ],
        ),
        Message::new(
            Role::Assistant,
            vec![Part::Refusal {
                text: "I would rather not.".to_owned(),
            }],
        ),
        Message::new(Role::System, vec![Part::text("Now in French.")]),
        Message::new(Role::User, vec![cached("Go on.")]),
    ]
}

fn rich() -> ChatRequest {
    ChatRequest {
        model: "public".to_owned(),
        messages: rich_messages(),
        tools: vec![
            Tool {
                name: "get weather!".to_owned(),
                description: Some("Of a city.".to_owned()),
                parameters: object(json!({ "type": "object", "properties": { "city": { "type": "string" } } })),
                strict: Some(true),
                cache: Some(Cache::default()),
            },
            Tool {
                name: "look".to_owned(),
                ..Tool::default()
            },
        ],
        tool_choice: Some(ToolChoice::Named("get weather!".to_owned())),
        parallel_tool_calls: Some(true),
        response_format: Some(ResponseFormat::JsonSchema {
            name: "answer".to_owned(),
            description: Some("d".to_owned()),
            schema: object(json!({ "type": "object" })),
            strict: Some(true),
        }),
        max_output_tokens: Some(900),
        temperature: Some(0.5),
        top_p: Some(0.9),
        reasoning: Some(Reasoning {
            effort: None,
            budget_tokens: Some(2048),
            shown: Some(true),
        }),
        logprobs: Some(2),
        user: Some("u-1".to_owned()),
        stream: true,
        ..ChatRequest::default()
    }
}

#[test]
fn everything_that_can_be_asked() {
    insta::assert_json_snapshot!(write(&rich()));
}

#[test]
fn what_was_written_is_read_back() {
    insta::assert_json_snapshot!(serde_json::to_value(read(&write(&rich()))).unwrap());
}

/// The model itself shows nothing of what it holds; its JSON does.
fn shown(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z \"\\\\é\n]{1,12}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-z_-]{1,8}"
}

fn media(kind: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        "[A-Za-z0-9+/]{4,8}".prop_map(move |data| json!({ "inline": { "media_type": kind, "data": data } })),
        name().prop_map(|path| json!({ "url": { "url": format!("https://h/{path}") } })),
        name().prop_map(|id| json!({ "uploaded": { "id": id } })),
    ]
}

/// A file with data has a name, no other has.
fn file() -> impl Strategy<Value = Value> {
    (media("application/pdf"), name()).prop_map(|(media, name)| {
        let mut file = json!({ "type": "file", "media": media });
        if file["media"]["inline"].is_object() {
            file["filename"] = name.into();
        }
        file
    })
}

fn image() -> impl Strategy<Value = Value> {
    let detail = prop_oneof![Just(None), Just(Some("low")), Just(Some("high")), Just(Some("auto"))];
    (media("image/png"), detail)
        .prop_map(|(media, detail)| json!({ "type": "image", "media": media, "detail": detail }))
}

fn given() -> impl Strategy<Value = Value> {
    prop_oneof![word().prop_map(|text| shown(Part::text(text))), image(), file()]
}

fn made() -> impl Strategy<Value = Value> {
    prop_oneof![
        word().prop_map(|text| shown(Part::text(text))),
        word().prop_map(|text| shown(Part::Refusal { text })),
        (name(), name(), word()).prop_map(|(id, name, arguments)| shown(call(&id, &name, &arguments))),
        (option::of(word()), "[A-Za-z0-9_=-]{1,9}").prop_map(|(text, content)| {
            let signature = format!("responses:rs_1:{content}");
            shown(reasoning(&text.unwrap_or_default(), Some(&signature)))
        }),
    ]
}

/// Reasoning that nothing follows does not go back.
fn assistant() -> impl Strategy<Value = Value> {
    (vec(made(), 0..4), word()).prop_map(|(mut content, last)| {
        content.push(shown(Part::text(last)));
        json!({ "role": "assistant", "content": content })
    })
}

fn tool_results() -> impl Strategy<Value = Value> {
    let one = (name(), vec(given(), 0..3))
        .prop_map(|(id, content)| json!({ "type": "tool_result", "call_id": id, "content": content }));
    vec(one, 1..3).prop_map(|results| json!({ "role": "tool", "content": results }))
}

/// Turns in canonical form: none of the assistant's, or of tools, follows its like.
fn messages() -> impl Strategy<Value = Vec<Value>> {
    let role = prop_oneof![Just("system"), Just("developer"), Just("user")];
    let others = (role, vec(given(), 1..3)).prop_map(|(role, content)| json!({ "role": role, "content": content }));
    vec(prop_oneof![others, assistant(), tool_results()], 1..6).prop_map(|mut turns| {
        turns.dedup_by_key(|turn| turn["role"].clone());
        turns
    })
}

fn format() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(shown(ResponseFormat::Text)),
        Just(shown(ResponseFormat::JsonObject)),
        (name(), option::of(word()), option::of(any::<bool>())).prop_map(|(name, description, strict)| {
            shown(ResponseFormat::JsonSchema {
                name,
                description,
                schema: object(json!({ "type": "object", "properties": {} })),
                strict,
            })
        }),
    ]
}

fn tool() -> impl Strategy<Value = Value> {
    (name(), option::of(word()), any::<bool>()).prop_map(|(name, description, strict)| {
        shown(Tool {
            name,
            description,
            parameters: object(json!({ "type": "object", "properties": {} })),
            strict: Some(strict),
            cache: None,
        })
    })
}

fn choice() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(shown(ToolChoice::Auto)),
        Just(shown(ToolChoice::None)),
        Just(shown(ToolChoice::Required)),
        name().prop_map(|name| shown(ToolChoice::Named(name))),
    ]
}

fn asked() -> impl Strategy<Value = Value> {
    (0..Effort::ALL.len(), any::<bool>()).prop_map(|(effort, show)| {
        shown(Reasoning {
            effort: Some(Effort::ALL[effort]),
            budget_tokens: None,
            shown: (show && effort > 0).then_some(true),
        })
    })
}

prop_compose! {
    fn settings()(
        tool_choice in option::of(choice()),
        parallel_tool_calls in option::of(any::<bool>()),
        response_format in option::of(format()),
        max_output_tokens in option::of(1_u64..9000),
        temperature in option::of(0..16),
        top_p in option::of(0..8),
        reasoning in option::of(asked()),
        logprobs in option::of(0_u32..20),
        user in option::of(name()),
    ) -> Value {
        json!({
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
            "max_output_tokens": max_output_tokens,
            "temperature": temperature.map(|eighths| f64::from(eighths) / 8.0),
            "top_p": top_p.map(|eighths| f64::from(eighths) / 8.0),
            "reasoning": reasoning,
            "logprobs": logprobs,
            "user": user,
        })
    }
}

prop_compose! {
    fn request()(
        messages in messages(),
        tools in vec(tool(), 0..3),
        mut settings in settings(),
        stream in any::<bool>(),
    ) -> Value {
        for (name, value) in [("messages", json!(messages)), ("tools", json!(tools)), ("stream", json!(stream))] {
            settings[name] = value;
        }
        settings["model"] = "real".into();
        settings
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_can_be_said_comes_back(request in request()) {
        let request: ChatRequest = serde_json::from_value(request).unwrap();
        let wire = write(&request);
        prop_assert_eq!(shown(read(&wire)), shown(request));
        prop_assert!(client::view(wire.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn broken_requests_are_errors(request in request(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let request: ChatRequest = serde_json::from_value(request).unwrap();
        let mut body = write(&request).to_string().into_bytes();
        let at = cut.index(body.len());
        body[at] = byte;
        let _ = (client::view(&body), client::read(&body), provider::readdress(&body, "m"), provider::error(&body));
        prop_assert!(client::read(&body[..at]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(body in vec(any::<u8>(), 0..200)) {
        let _ = (client::view(&body), client::read(&body), provider::readdress(&body, "m"), provider::error(&body));
        let _ = (provider::reader().event(&body), provider::reader().whole(&body));
    }
}
