use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_types::chat::{ChatRequest, Message, Part, Role};

use super::{super::provider::path, *};

fn user(content: Value) -> Value {
    json!({ "role": "user", "content": content })
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn call(id: &str, arguments: &str) -> Value {
    json!({ "type": "tool_call", "id": id, "name": "f", "arguments": arguments })
}

fn result(id: &str, content: Value) -> Value {
    json!({ "type": "tool_result", "call_id": id, "content": content })
}

fn rich() -> Value {
    let image = json!({ "inline": { "media_type": "image/png", "data": "iVBORw==" } });
    let pdf = json!({ "inline": { "media_type": "application/pdf", "data": "JVBERg==" } });
    json!({
        "model": "public", "stream": true, "user": "u",
        "messages": [
            { "role": "system", "content": [text("be brief"), { "type": "text", "text": "long", "cache": { "ttl": "1h" } }] },
            { "role": "developer", "content": [text("be kind")] },
            user(json!([
                text("look"),
                { "type": "image", "media": image, "detail": "high" },
                { "type": "image", "media": { "url": { "url": "s3://bucket/a.webp" } } },
                { "type": "audio", "media": { "inline": { "media_type": "audio/mpeg", "data": "SUQz" } } },
                { "type": "file", "media": pdf, "filename": "Report_1.pdf", "cache": {} } ])),
            { "role": "assistant", "content": [
                { "type": "reasoning", "text": "hm", "signature": "c2ln" },
                { "type": "redacted_reasoning", "data": "c2VjcmV0" },
                { "type": "text", "text": "so", "citations": [
                    { "title": "Report", "quote": "q", "document": 0, "source": { "unit": "page", "start": 1, "end": 2 } },
                    { "url": "https://example.org" } ] },
                { "type": "tool_call", "id": "call_1", "name": "get.weather", "arguments": "{\"city\": \"Rom\", \"n\": 1.10}" },
                { "type": "tool_call", "id": "call_2", "name": "get.time", "arguments": "" } ] },
            { "role": "tool", "content": [
                { "type": "tool_result", "call_id": "call_1", "content": [text("sunny"), { "type": "image", "media": image }] } ] },
            { "role": "tool", "content": [
                { "type": "tool_result", "call_id": "call_2", "content": [text("no clock")], "is_error": true, "cache": {} } ] },
            user(json!([text("and?")])),
        ],
        "tools": [
            { "name": "get.weather", "description": "weather", "strict": true, "parameters": {
                "type": "object", "properties": { "city": { "type": "string" } }, "additionalProperties": false } },
            { "name": "get.time", "cache": { "ttl": "1h" } } ],
        "tool_choice": "auto", "parallel_tool_calls": false,
        "response_format": { "type": "json_schema", "name": "out", "description": "d", "strict": true,
            "schema": { "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] } },
        "max_output_tokens": 4000, "temperature": 1.0, "stop": ["END"],
        "reasoning": { "budget_tokens": 2000, "shown": true }
    })
}

#[test]
fn a_rich_request_for_claude() {
    insta::assert_json_snapshot!(body(rich(), CLAUDE));
}

#[test]
fn a_rich_request_for_a_claude_that_budgets_itself() {
    insta::assert_json_snapshot!(body(rich(), "global.anthropic.claude-opus-4-6-v1"));
}

#[test]
fn a_request_for_nova() {
    let request = json!({
        "messages": [
            { "role": "system", "content": [{ "type": "text", "text": "s", "cache": { "ttl": "1h" } }] },
            user(json!([text("q")])) ],
        "tools": [{ "name": "f", "parameters": { "type": "object", "properties": {} } }],
        "tool_choice": { "named": "f" },
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "max_output_tokens": 10, "stop": ["\n"]
    });
    insta::assert_json_snapshot!(body(request, NOVA));
}

#[test]
fn the_path_has_the_id_encoded_once() {
    let arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-6-v1";
    assert_eq!(
        path(arn, true),
        "model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.anthropic.claude-opus-4-6-v1/converse-stream"
    );
    assert_eq!(
        path(CLAUDE, false),
        "model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    );
    assert_eq!(path("é%", false), "model/%C3%A9%25/converse");
}

// Traps 1, 2, 13.
#[test]
fn turns_alternate_and_the_user_begins() {
    let request = json!({ "messages": [
        { "role": "system", "content": [text("s")] },
        { "role": "assistant", "content": [text("hello")] },
        { "role": "assistant", "content": [text("again")] },
        user(json!([])),
        user(json!([text("  "), text("a")])),
        { "role": "system", "content": [text("later")] },
        { "role": "assistant", "content": [text("")] },
        user(json!([text("b")])),
        { "role": "assistant", "content": [text("begin \n")] } ] });
    let body = body(request, CLAUDE);
    assert_eq!(body["system"], json!([{ "text": "s" }]));
    assert_eq!(
        body["messages"],
        json!([
            { "role": "user", "content": [{ "text": "." }] },
            { "role": "assistant", "content": [{ "text": "hello" }, { "text": "again" }] },
            { "role": "user", "content": [{ "text": "a" }, { "text": "<system>\nlater\n</system>" }, { "text": "b" }] },
            { "role": "assistant", "content": [{ "text": "begin" }] }
        ])
    );
}

#[test]
fn a_document_has_text_beside_it() {
    let file = json!({ "type": "file", "media": { "inline": { "media_type": "text/x-log", "data": "eA==" } } });
    let body = body(json!({ "messages": [user(json!([file.clone(), file]))] }), NOVA);
    let content = &body["messages"][0]["content"];
    assert_eq!(
        content[0]["document"],
        json!({ "format": "txt", "name": "Document", "source": { "bytes": "eA==" } })
    );
    assert_eq!(content[1]["document"]["name"], "Document (2)");
    assert_eq!(content[2], json!({ "text": "." }));
}

// Traps 3 and 28.
#[test]
fn results_come_first_and_ids_are_narrowed() {
    let long = "x".repeat(80);
    let request = json!({ "tools": [{ "name": "f" }], "messages": [
        user(json!([text("q")])),
        { "role": "assistant", "content": [call("a b", "{}"), call("a_b", "{}"), call(&long, "{}"), call(&long, "{}")] },
        user(json!([text("meanwhile")])),
        { "role": "tool", "content": [result("a b", json!([])), result("a_b", json!([text("r")])), result(&long, json!([text("r")]))] } ] });
    let body = body(request, CLAUDE);
    let ids = |turn: usize, kind: &str| -> Vec<String> {
        let blocks = body["messages"][turn]["content"].as_array().unwrap().iter();
        blocks
            .filter_map(|block| Some(block.get(kind)?["toolUseId"].as_str().unwrap().to_owned()))
            .collect()
    };
    assert_eq!(ids(1, "toolUse"), ids(2, "toolResult"));
    let ids = ids(1, "toolUse");
    assert_eq!(ids.len(), 3, "a call that is there twice is sent once");
    assert!(ids.iter().all(|id| id.len() <= 64) && ids[0] != ids[1] && ids[1] == "a_b");
    let answers = &body["messages"][2]["content"];
    assert_eq!(answers[0]["toolResult"]["content"], json!([{ "text": "(no content)" }]));
    assert_eq!(answers[3], json!({ "text": "meanwhile" }));
}

// Trap 28.
#[test]
fn glued_arguments_are_several_calls_and_each_is_answered() {
    let request = json!({ "tools": [{ "name": "f" }], "messages": [
        user(json!([text("q")])),
        { "role": "assistant", "content": [call("i", "{\"a\":1e400}{\"b\":\"}{\"} {}")] },
        { "role": "tool", "content": [result("i", json!([text("r")]))] } ] });
    let quirks = Quirks::default();
    let target = Target { model: CLAUDE, quirks };
    let (bytes, _) = provider::write(
        &super::request(request),
        &target,
        &mut Losses::new(OnUnsupported::Refuse),
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let body = std::str::from_utf8(&bytes).unwrap();
    for (id, input) in [("i", r#"{"a":1e400}"#), ("i_2", r#"{"b":"}{"}"#), ("i_3", "{}")] {
        let call = format!(r#"{{"toolUse":{{"toolUseId":"{id}","name":"f","input":{input}}}}}"#);
        let answer = format!(r#"{{"toolResult":{{"toolUseId":"{id}","content""#);
        assert!(body.contains(&call) && body.contains(&answer), "{body}");
    }
}

#[test]
fn arguments_that_are_no_object_are_told() {
    let request = |arguments: &str| {
        json!({ "tools": [{ "name": "f" }], "messages": [
            user(json!([text("q")])), { "role": "assistant", "content": [call("i", arguments)] } ] })
    };
    for arguments in ["[1]", "{\"a\":", "{}x", "null", "{} 1"] {
        let feature = "messages[1].content[0]: arguments that are no JSON object";
        assert_eq!(refused(request(arguments), CLAUDE), feature);
        let (body, dropped) = without(request(arguments), CLAUDE);
        assert_eq!(body["messages"][1]["content"][0]["toolUse"]["input"], json!({}));
        assert_eq!(dropped, [feature]);
    }
}

#[test]
fn two_calls_with_one_id_are_invalid() {
    let request =
        json!({ "messages": [{ "role": "assistant", "content": [call("i", "{}"), call("i", "{\"a\":1}")] }] });
    assert_eq!(refused(request, CLAUDE), "invalid: messages[0].content[1].id");
}

// Traps 6, 7 and 28.
#[test]
fn what_may_be_called() {
    let config = |choice: Value, tools: Value, messages: Value| {
        body(
            json!({ "tool_choice": choice, "tools": tools, "messages": messages }),
            CLAUDE,
        )["toolConfig"]
            .clone()
    };
    let tools = || json!([{ "name": "f" }, { "name": "g" }]);
    let plain = || json!([user(json!([text("q")]))]);
    let history = || json!([user(json!([text("q")])), { "role": "assistant", "content": [call("i", "{}")] }]);
    assert_eq!(config(json!("auto"), tools(), plain())["toolChoice"], Value::Null);
    assert_eq!(
        config(json!("required"), tools(), plain())["toolChoice"],
        json!({ "any": {} })
    );
    assert_eq!(
        config(json!({ "named": "g" }), tools(), plain())["toolChoice"],
        json!({ "tool": { "name": "g" } })
    );
    assert_eq!(config(json!("none"), tools(), plain()), Value::Null);
    for config in [
        config(json!("none"), tools(), history()),
        config(json!("auto"), json!([]), history()),
    ] {
        assert_eq!(config["tools"].as_array().unwrap().len(), 1);
        assert_eq!(config["tools"][0]["toolSpec"]["name"], "unavailable");
        assert_eq!(config["toolChoice"], Value::Null);
    }
    let request = json!({ "tool_choice": "required", "messages": plain() });
    assert_eq!(refused(request, CLAUDE), "invalid: tool_choice");
}

#[test]
fn one_call_at_a_time_is_claudes_own_field() {
    let request = |choice: &str| {
        json!({ "tools": [{ "name": "f" }], "tool_choice": choice, "parallel_tool_calls": false,
                "messages": [user(json!([text("q")]))] })
    };
    let field = |choice| body(request(choice), CLAUDE)["additionalModelRequestFields"]["tool_choice"].clone();
    assert_eq!(
        field("auto"),
        json!({ "disable_parallel_tool_use": true, "type": "auto" })
    );
    assert_eq!(field("required"), json!({ "disable_parallel_tool_use": true }));
    assert_eq!(refused(request("auto"), NOVA), "parallel_tool_calls: false");
}

// Trap 10.
#[test]
fn a_form_is_asked_for_by_a_tool_where_converse_cannot() {
    let request = |model: &str, tools: Value, format: Value| {
        body(
            json!({ "tools": tools, "response_format": format, "messages": [user(json!([text("q")]))] }),
            model,
        )
    };
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    let format = json!({ "type": "json_schema", "name": "n", "schema": schema });
    let alone = request(OLD_CLAUDE, json!([]), format.clone());
    assert_eq!(alone["outputConfig"], Value::Null);
    assert_eq!(
        alone["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"],
        schema
    );
    assert_eq!(
        alone["toolConfig"]["toolChoice"],
        json!({ "tool": { "name": "answer" } })
    );
    let beside = request(LLAMA, json!([{ "name": "answer" }]), format.clone());
    assert_eq!(beside["toolConfig"]["tools"][1]["toolSpec"]["name"], "answer_");
    assert_eq!(beside["toolConfig"]["toolChoice"], json!({ "any": {} }));
    let object = request(CLAUDE, json!([]), json!({ "type": "json_object" }));
    assert_eq!(
        object["toolConfig"]["toolChoice"],
        json!({ "tool": { "name": "answer" } })
    );
    // One that reasons unasked cannot be forced.
    let object = request("anthropic.claude-sonnet-5", json!([]), json!({ "type": "json_object" }));
    assert_eq!(object["toolConfig"]["toolChoice"], Value::Null);
    let native = request(CLAUDE, json!([]), format);
    let schema = native["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
        .as_str()
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(schema).unwrap()["additionalProperties"],
        false
    );
}

// Traps 15 and 16.
#[test]
fn reasoning_is_asked_for_as_the_model_takes_it() {
    let messages = || json!([user(json!([text("q")]))]);
    let sent = |reasoning: Value, model: &str, limit: Value| {
        body(
            json!({ "messages": messages(), "reasoning": reasoning, "max_output_tokens": limit }),
            model,
        )
    };
    let thinking = |body: &Value| body["additionalModelRequestFields"]["thinking"].clone();
    let enabled = |budget: u64| json!({ "type": "enabled", "budget_tokens": budget });
    assert_eq!(
        thinking(&sent(json!({ "effort": "minimal" }), CLAUDE, Value::Null)),
        enabled(1024)
    );
    assert_eq!(
        thinking(&sent(json!({ "effort": "max" }), CLAUDE, json!(8000))),
        enabled(7999)
    );
    assert_eq!(
        thinking(&sent(json!({ "budget_tokens": 5 }), OLD_CLAUDE, Value::Null)),
        enabled(1024)
    );
    assert_eq!(
        thinking(&sent(json!({ "effort": "none" }), CLAUDE, Value::Null)),
        Value::Null
    );
    let adaptive = sent(
        json!({ "effort": "xhigh", "shown": false }),
        "anthropic.claude-opus-4-7",
        Value::Null,
    );
    assert_eq!(thinking(&adaptive), json!({ "type": "adaptive", "display": "omitted" }));
    assert_eq!(adaptive["outputConfig"], json!({ "effort": "xhigh" }));
    let budget = sent(
        json!({ "budget_tokens": 3000 }),
        "anthropic.claude-sonnet-5",
        Value::Null,
    );
    assert_eq!(budget["outputConfig"], json!({ "effort": "medium" }));
    let off = sent(json!({ "effort": "none" }), "anthropic.claude-sonnet-5", Value::Null);
    assert_eq!(thinking(&off), json!({ "type": "disabled" }));
    let other = sent(json!({ "effort": "low" }), "openai.gpt-oss-120b-1:0", Value::Null);
    assert_eq!(
        (other["outputConfig"].clone(), thinking(&other)),
        (json!({ "effort": "low" }), Value::Null)
    );

    let no = |extra: Value, model: &str| {
        let mut request = json!({ "messages": messages(), "reasoning": { "effort": "low" } });
        request
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        refused(request, model)
    };
    assert_eq!(no(json!({}), "anthropic.claude-3-haiku-20240307-v1:0"), "reasoning");
    assert_eq!(
        no(json!({ "max_output_tokens": 1000 }), CLAUDE),
        "reasoning in an answer of 1024 tokens or less"
    );
    assert_eq!(no(json!({ "temperature": 0.2 }), CLAUDE), "this temperature");
    assert_eq!(no(json!({ "top_k": 2 }), CLAUDE), "top_k");
    assert_eq!(
        no(json!({ "reasoning": { "effort": "none" } }), "anthropic.claude-fable-5"),
        "no reasoning"
    );
    let forced = json!({ "tools": [{ "name": "f" }], "tool_choice": "required" });
    assert_eq!(no(forced, CLAUDE), "reasoning with a forced tool call");
}

// Trap 15.
#[test]
fn reasoning_stops_when_the_client_could_not_send_it_back() {
    let request = |reasoning: Value| {
        json!({ "reasoning": { "effort": "low" }, "tools": [{ "name": "f" }], "messages": [
            user(json!([text("q")])),
            { "role": "assistant", "content": [reasoning, call("i", "{}")] },
            { "role": "tool", "content": [result("i", json!([text("r")]))] } ] })
    };
    let (body, dropped) = without(request(json!({ "type": "reasoning", "text": "unsigned" })), CLAUDE);
    assert_eq!(body["additionalModelRequestFields"], Value::Null);
    assert_eq!(dropped, ["reasoning, whose last part is missing"]);
    assert_eq!(
        body["messages"][1]["content"].as_array().unwrap().len(),
        1,
        "Claude takes no unsigned reasoning"
    );
    let (body, dropped) = without(request(json!({ "type": "redacted_reasoning", "data": "eA==" })), CLAUDE);
    assert_eq!(body["additionalModelRequestFields"]["thinking"]["budget_tokens"], 1024);
    assert!(dropped.is_empty());
}

// Trap 14.
#[test]
fn marks_for_the_cache_go_only_to_models_that_have_one() {
    let mark = |ttl: Value| json!({ "type": "text", "text": "q", "cache": { "ttl": ttl } });
    let sent = |ttl: Value, model: &str| {
        body(json!({ "messages": [user(json!([mark(ttl)]))] }), model)["messages"][0]["content"][1].clone()
    };
    let point = json!({ "cachePoint": { "type": "default" } });
    assert_eq!(sent(json!("5m"), CLAUDE), point);
    assert_eq!(
        sent(json!("1h"), CLAUDE),
        json!({ "cachePoint": { "type": "default", "ttl": "1h" } })
    );
    assert_eq!(sent(json!("1h"), NOVA), point);
    assert_eq!(sent(json!("1h"), LLAMA), Value::Null);
}

#[test]
fn what_converse_cannot_be_asked_for_is_refused_by_name() {
    let no = |extra: Value, model: &str| {
        let mut request = json!({ "messages": [user(json!([text("q")]))] });
        request
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        refused(request, model)
    };
    assert_eq!(no(json!({ "seed": 1 }), CLAUDE), "seed");
    assert_eq!(no(json!({ "logprobs": 0 }), CLAUDE), "logprobs");
    assert_eq!(no(json!({ "presence_penalty": 0.1 }), CLAUDE), "presence_penalty");
    assert_eq!(no(json!({ "frequency_penalty": 0.1 }), CLAUDE), "frequency_penalty");
    assert_eq!(no(json!({ "temperature": 1.5 }), NOVA), "this temperature");
    assert_eq!(
        no(json!({ "temperature": 0.5 }), "anthropic.claude-opus-4-7"),
        "this temperature"
    );
    assert_eq!(no(json!({ "top_k": 5 }), LLAMA), "top_k");
    assert_eq!(no(json!({ "stop": ["a", " "] }), CLAUDE), "stop[1]: white space");
    assert_eq!(no(json!({ "stop": [""] }), NOVA), "stop[0]: white space");
    assert_eq!(
        no(json!({ "tools": [{ "name": "f", "strict": true }] }), OLD_CLAUDE),
        "tools[0]: strict"
    );
    let format = json!({ "type": "json_schema", "name": "n", "schema": { "type": "array" } });
    assert!(no(json!({ "response_format": format }), OLD_CLAUDE).starts_with("response_format"));
    let turn = |content: Value| json!({ "messages": [user(json!([content]))] });
    let image = |media: Value| turn(json!({ "type": "image", "media": media }));
    let at = "messages[0].content[0]: an image";
    assert_eq!(
        no(image(json!({ "url": { "url": "https://h/i.png" } })), CLAUDE),
        format!("{at} at a web address")
    );
    assert_eq!(
        no(image(json!({ "uploaded": { "id": "f" } })), CLAUDE),
        format!("{at} that was uploaded")
    );
    let bmp = json!({ "inline": { "media_type": "image/bmp", "data": "" } });
    assert_eq!(no(image(bmp), CLAUDE), format!("{at} of this format"));
    let named = json!({ "messages": [{ "role": "user", "name": "n", "content": [] }] });
    assert_eq!(no(named, CLAUDE), "messages[0].name");
    // Hints that change no answer are not.
    body(
        json!({ "messages": [user(json!([text("q")]))], "user": "u", "presence_penalty": 0.0, "parallel_tool_calls": false }),
        LLAMA,
    );
}

fn any_media() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "inline": { "media_type": "image/png", "data": "AAAA" } })),
        Just(json!({ "inline": { "media_type": "application/pdf", "data": "AAAA" } })),
        Just(json!({ "inline": { "media_type": "audio/wav", "data": "AAAA" } })),
        Just(json!({ "url": { "url": "https://h/x" } })),
        Just(json!({ "url": { "url": "s3://b/x.pdf" } })),
        Just(json!({ "uploaded": { "id": "f" } })),
    ]
}

fn any_part(depth: u32) -> BoxedStrategy<Value> {
    let cache = prop_oneof![Just(Value::Null), Just(json!({})), Just(json!({ "ttl": "1h" }))];
    let leaf = prop_oneof![
        ("[ a-z]{0,3}", cache).prop_map(|(text, cache)| json!({ "type": "text", "text": text, "cache": cache })),
        any_media().prop_map(|media| json!({ "type": "image", "media": media })),
        any_media().prop_map(|media| json!({ "type": "audio", "media": media })),
        (any_media(), "[a_.é ]{0,4}")
            .prop_map(|(media, name)| json!({ "type": "file", "media": media, "filename": name })),
        ("[a-z]{0,2}", prop::option::of("[a-z]{0,2}"))
            .prop_map(|(text, signature)| json!({ "type": "reasoning", "text": text, "signature": signature })),
        "[a-z]{0,2}".prop_map(|text| json!({ "type": "refusal", "text": text })),
        ("[ab/]{0,2}", "[f.]{1,2}", "(\\{\\}){0,2}|x").prop_map(|(id, name, arguments)| json!({
            "type": "tool_call", "id": id, "name": name, "arguments": arguments })),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let result =
        ("[ab/]{0,2}", prop::collection::vec(any_part(0), 0..3), any::<bool>()).prop_map(|(id, content, is_error)| {
            json!({
            "type": "tool_result", "call_id": id, "content": content, "is_error": is_error })
        });
    prop_oneof![3 => leaf, 1 => result].boxed()
}

/// Turns that mostly hold what their role may hold.
fn any_message() -> impl Strategy<Value = Value> {
    let fits = |role: &str, part: &Value| match part["type"].as_str() {
        Some("tool_call" | "reasoning" | "refusal") => role == "assistant",
        Some("tool_result") => role == "tool",
        _ => role != "tool",
    };
    let role = prop::sample::select(vec!["system", "developer", "user", "assistant", "tool"]);
    (role, prop::collection::vec(any_part(1), 0..6), 0..20).prop_map(move |(role, mut content, wild)| {
        if wild > 0 {
            content.retain(|part| fits(role, part));
        }
        json!({ "role": role, "content": content })
    })
}

fn any_request() -> impl Strategy<Value = Value> {
    let messages = prop::collection::vec(any_message(), 0..8);
    let tools = prop::collection::vec("[f./]{1,3}".prop_map(|name| json!({ "name": name })), 0..3);
    (messages, tools, prop::option::of(0..20_000_u64)).prop_map(|(messages, tools, budget)| {
        json!({
        "messages": messages, "tools": tools, "reasoning": budget.map(|budget| json!({ "budget_tokens": budget })) })
    })
}

/// Checks what Converse demands of every conversation.
fn check(body: &Value) {
    let turns = body["messages"].as_array().unwrap();
    let mut names = HashSet::new();
    let mut speaks = "user";
    for turn in turns {
        assert_eq!(turn["role"], speaks);
        speaks = if speaks == "user" { "assistant" } else { "user" };
        let content = turn["content"].as_array().unwrap();
        assert!(content.iter().any(|block| block.get("cachePoint").is_none()));
        for block in content {
            assert_eq!(block.as_object().unwrap().len(), 1);
            if let Some(text) = block.get("text") {
                assert!(!text.as_str().unwrap().trim().is_empty());
            }
        }
        let inner = content
            .iter()
            .filter_map(|block| block["toolResult"]["content"].as_array())
            .flatten();
        for name in content
            .iter()
            .chain(inner)
            .filter_map(|block| block["document"]["name"].as_str())
        {
            assert!(names.insert(name.to_owned()), "{name} is there twice");
        }
        let has = |kind: &str| content.iter().any(|block| block.get(kind).is_some());
        assert!(!has("document") || has("text"));
        if has("toolUse") || has("toolResult") {
            assert!(!body["toolConfig"]["tools"].as_array().unwrap().is_empty());
        }
    }
    assert!(!turns.is_empty());
}

proptest! {
    #[test]
    fn any_conversation_becomes_one_that_converse_takes(request in any_request(), model in 0..4_usize) {
        let model = [CLAUDE, NOVA, LLAMA, "arn:aws:bedrock:x:1:application-inference-profile/a"][model];
        let mut losses = Losses::new(OnUnsupported::Drop);
        if let Ok((body, _)) = written(&super::request(request), model, &mut losses) {
            check(&body);
        }
    }

    #[test]
    fn all_that_can_be_said_is_said(texts in prop::collection::vec((0..4_usize, "[a-z]{1,8}"), 1..12)) {
        let messages = texts.iter().map(|(role, text)| {
            let role = [Role::System, Role::User, Role::Assistant, Role::Developer][*role];
            Message::new(role, vec![Part::text(text.as_str())])
        });
        let request = ChatRequest { messages: messages.collect(), ..ChatRequest::default() };
        let mut losses = Losses::new(OnUnsupported::Refuse);
        let (body, _) = written(&request, CLAUDE, &mut losses).unwrap_or_else(|error| panic!("{error}"));
        check(&body);
        let blocks = body["messages"].as_array().unwrap().iter().flat_map(|turn| turn["content"].as_array().unwrap());
        let said: Vec<String> = body["system"].as_array().into_iter().flatten().chain(blocks)
            .map(|block| block["text"].as_str().unwrap().replace("<system>\n", "").replace("\n</system>", ""))
            .filter(|text| text != ".")
            .collect();
        let expected: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
        prop_assert_eq!(said, expected);
    }
}
