//! The superset model as a request of OpenAI's.

use serde_json::{Map, Value, json};
use tollgate_types::chat::{ChatRequest, Message, Part, ResponseFormat, Role, Tool, ToolChoice};

/// The request for the provider's `model`.
pub(crate) fn encode(request: &ChatRequest, model: &str) -> Value {
    let mut body = Map::new();
    body.insert("model".to_owned(), model.into());
    body.insert("messages".to_owned(), request.messages.iter().map(message).collect());
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set(
        "tools",
        (!request.tools.is_empty()).then(|| request.tools.iter().map(tool).collect()),
    );
    set("tool_choice", request.tool_choice.as_ref().map(tool_choice));
    set("parallel_tool_calls", request.parallel_tool_calls.map(Value::from));
    set("response_format", request.response_format.as_ref().map(response_format));
    set("max_completion_tokens", request.max_output_tokens.map(Value::from));
    set("temperature", request.temperature.map(Value::from));
    set("top_p", request.top_p.map(Value::from));
    set("stop", (!request.stop.is_empty()).then(|| request.stop.clone().into()));
    set("seed", request.seed.map(Value::from));
    set("reasoning_effort", request.reasoning_effort.clone().map(Value::from));
    if request.stream {
        set("stream", Some(true.into()));
        set("stream_options", Some(json!({ "include_usage": true })));
    }
    body.into()
}

fn message(message: &Message) -> Value {
    let mut body = Map::new();
    body.insert("role".to_owned(), message.role.as_str().into());
    let content = match message.content.as_slice() {
        [] => Value::Null,
        [Part::Text { text }] => text.clone().into(),
        parts => parts.iter().map(part).collect(),
    };
    if !(content.is_null() && message.role == Role::Assistant && message.tool_calls.is_empty()) {
        body.insert("content".to_owned(), content);
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        body.insert("tool_calls".to_owned(), calls.collect());
    }
    if let Some(id) = &message.tool_call_id {
        body.insert("tool_call_id".to_owned(), id.clone().into());
    }
    if let Some(name) = &message.name {
        body.insert("name".to_owned(), name.clone().into());
    }
    body.into()
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({ "type": "text", "text": text }),
        Part::Image { url, detail } => {
            let mut image = json!({ "url": url });
            if let Some(detail) = detail {
                image["detail"] = detail.clone().into();
            }
            json!({ "type": "image_url", "image_url": image })
        }
        Part::Audio { data, format } => {
            json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
        }
        Part::File { data, filename } => {
            let name = filename.as_deref().unwrap_or("file");
            json!({ "type": "file", "file": { "filename": name, "file_data": data } })
        }
    }
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name, "parameters": tool.parameters });
    if tool.parameters.is_empty() {
        function["parameters"] = json!({ "type": "object", "properties": {} });
    }
    if let Some(description) = &tool.description {
        function["description"] = description.clone().into();
    }
    if let Some(strict) = tool.strict {
        function["strict"] = strict.into();
    }
    json!({ "type": "function", "function": function })
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

fn response_format(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::Text => json!({ "type": "text" }),
        ResponseFormat::JsonObject => json!({ "type": "json_object" }),
        ResponseFormat::JsonSchema { name, schema, strict } => {
            json!({ "type": "json_schema", "json_schema": { "name": name, "schema": schema, "strict": strict } })
        }
    }
}
