//! The validation table: what the real service takes and what it refuses, with the words it uses.

use serde_json::{Value, json};

use super::*;

/// A valid request with these fields added or replaced.
fn with(fields: Value) -> Value {
    let mut body = json!({"model": "sim-mini", "messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in fields.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

fn check(body: &Value) -> Result<Ask, ApiError> {
    validate(body, &["sim-mini".to_owned()])
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

fn calling(ids: &[&str]) -> Value {
    let calls: Vec<Value> = ids
        .iter()
        .map(|id| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}))
        .collect();
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

#[test]
fn what_the_service_takes() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}});
    let answer = json!({"role": "tool", "tool_call_id": "a", "content": "1"});
    let accepted = [
        json!({}),
        json!({"temperature": null, "stop": null, "tools": null, "max_tokens": 1}),
        json!({"temperature": 2, "top_p": 0, "n": 8, "stop": ["a", "b", "c", "d"], "seed": -1}),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "what"}, image]}]}),
        json!({"messages": [{"role": "user", "content": "q"}, calling(&["a"]), answer]}),
        json!({"messages": [
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": "x", "refusal": null, "annotations": []},
        ]}),
        json!({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}),
        json!({"messages": [{"role": "system", "content": "in JSON"}], "response_format": {"type": "json_object"}}),
        json!({"metadata": {"a": "b"}, "logprobs": true, "top_logprobs": 20, "logit_bias": {"1": -100}}),
    ];
    for fields in accepted {
        let got = check(&with(fields.clone()));
        assert!(got.is_ok(), "{fields}: {got:?}");
    }
}

/// Fields, and what the error must say: part of its message, its param and its code.
type Refusal = (Value, &'static str, Option<&'static str>, Option<&'static str>);

fn refused(table: Vec<Refusal>) {
    for (fields, message, param, code) in table {
        let error = check(&with(fields.clone())).expect_err(&fields.to_string());
        assert!(error.message.contains(message), "{fields}: {}", error.message);
        assert_eq!(error.param.as_deref(), param, "{fields}");
        assert_eq!(error.code, code, "{fields}");
    }
}

#[test]
fn fields_the_service_refuses() {
    let unknown = "Unrecognized request argument supplied: top_k";
    refused(vec![
        (json!({"top_k": 5}), unknown, None, None),
        (json!({"model": null}), "you must provide a model", None, None),
        (
            json!({"model": "x"}),
            "`x` does not exist",
            None,
            Some("model_not_found"),
        ),
        (
            json!({"temperature": 2.1}),
            "<= 2",
            Some("temperature"),
            Some("decimal_above_max_value"),
        ),
        (
            json!({"temperature": "1"}),
            "got a string",
            Some("temperature"),
            Some("invalid_type"),
        ),
        (
            json!({"top_p": -0.1}),
            ">= 0",
            Some("top_p"),
            Some("decimal_below_min_value"),
        ),
        (json!({"n": 9}), "<= 8", Some("n"), Some("integer_above_max_value")),
        (json!({"n": 1.5}), "got a decimal", Some("n"), Some("invalid_type")),
        (
            json!({"max_tokens": 0}),
            ">= 1",
            Some("max_tokens"),
            Some("integer_below_min_value"),
        ),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 1}),
            "at the same time",
            None,
            Some("invalid_parameter_combination"),
        ),
        (
            json!({"stop": ["1", "2", "3", "4", "5"]}),
            "length 5",
            Some("stop"),
            Some("array_above_max_length"),
        ),
        (
            json!({"stream": "yes"}),
            "a boolean",
            Some("stream"),
            Some("invalid_type"),
        ),
        (
            json!({"stream_options": {}}),
            "'stream' is enabled",
            Some("stream_options"),
            None,
        ),
    ]);
}

#[test]
fn tools_and_formats_the_service_refuses() {
    refused(vec![
        (json!({"tools": []}), "empty array", Some("tools"), Some("empty_array")),
        (
            json!({"tools": [tool("a b")]}),
            "does not match pattern",
            Some("tools[0].function.name"),
            Some("invalid_value"),
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]}),
            "an object",
            Some("tools[0].function.parameters"),
            Some("invalid_type"),
        ),
        (
            json!({"tool_choice": "auto"}),
            "when 'tools' are specified",
            Some("tool_choice"),
            None,
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "'g' not found",
            Some("tool_choice"),
            None,
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            "the word 'json'",
            Some("messages"),
            None,
        ),
        (
            json!({"response_format": {"type": "xml"}}),
            "'json_object', 'json_schema', and 'text'",
            Some("response_format.type"),
            Some("invalid_value"),
        ),
    ]);
}

#[test]
fn messages_the_service_refuses() {
    let tool_part = json!({"role": "tool", "tool_call_id": "a", "content": "1"});
    let image = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]);
    let missing = Some("missing_required_parameter");
    refused(vec![
        (
            json!({"messages": null}),
            "Missing required parameter: 'messages'",
            Some("messages"),
            missing,
        ),
        (
            json!({"messages": []}),
            "empty array",
            Some("messages"),
            Some("empty_array"),
        ),
        (
            json!({"messages": [{"role": "robot", "content": "x"}]}),
            "Invalid value: 'robot'",
            Some("messages[0].role"),
            Some("invalid_value"),
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "cache_control": {}}]}),
            "Unknown parameter",
            Some("messages[0].cache_control"),
            Some("unknown_parameter"),
        ),
        (
            json!({"messages": [{"role": "user", "content": null}]}),
            "got null",
            Some("messages[0].content"),
            None,
        ),
        (
            json!({"messages": [{"role": "system", "content": image}]}),
            "Supported values are: 'text'",
            Some("messages[0].content[0].type"),
            Some("invalid_value"),
        ),
        (
            json!({"messages": [tool_part]}),
            "must be a response to",
            Some("messages.[0].role"),
            None,
        ),
        (
            json!({"messages": [calling(&["b"]), tool_part]}),
            "'a' not found",
            Some("messages.[1].tool_call_id"),
            None,
        ),
        (
            json!({"messages": [calling(&["a", "b"]), tool_part, {"role": "user", "content": "x"}]}),
            "did not have response messages: b",
            Some("messages.[0].role"),
            None,
        ),
        (
            json!({"messages": [calling(&["a"])]}),
            "response messages: a",
            Some("messages.[0].role"),
            None,
        ),
    ]);
}
