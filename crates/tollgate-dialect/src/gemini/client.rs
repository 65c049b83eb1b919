//! Requests of clients.

use serde_json::{Map, Value};
use tollgate_types::{
    Operation, RequestView,
    chat::{ChatRequest, Effort, Message, Reasoning, ResponseFormat, Role, Tool, ToolChoice},
};

use super::{field, text, turns, writer::ContentWriter};
use crate::{Invalid, scan::first_look, side::Writer};

/// Fields of a request that are read, and those that change nothing in the answer.
const READ: [&str; 6] = [
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "labels",
];
/// The same of its configuration.
const CONFIG: [&str; 18] = [
    "temperature",
    "topP",
    "topK",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "presencePenalty",
    "frequencyPenalty",
    "seed",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseLogprobs",
    "logprobs",
    "thinkingConfig",
    "responseModalities",
    "mediaResolution",
    "audioTimestamp",
];
/// The name under which a schema goes to dialects that want one.
const SCHEMA_NAME: &str = "answer";

/// Reads what stages need to know; the path says model and form. What only the provider can judge is left to it.
pub(crate) fn view(body: &[u8], model: &str, stream: bool) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    if model.is_empty() {
        return Err(Invalid::at("model", "the path names no model"));
    }
    let request: Value = serde_json::from_slice(body).map_err(|_| Invalid::new("the request body is not JSON"))?;
    if field(&request, "contents")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        return Err(Invalid::at("contents", "contents is not specified"));
    }
    let config = field(&request, "generationConfig");
    let count = |name| config.and_then(|config| field(config, name)).and_then(Value::as_u64);
    Ok(RequestView {
        operation: Operation::Chat,
        model: model.to_owned(),
        stream,
        include_usage: true,
        estimated_input_tokens: scan.estimated_tokens(),
        max_output_tokens: count("maxOutputTokens").filter(|most| *most > 0),
        answers: count("candidateCount").unwrap_or(1).max(1),
    })
}

/// Reads the whole request.
pub(crate) fn read(body: &[u8], view: &RequestView) -> Result<ChatRequest, Invalid> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Invalid::new("the request body is not JSON"))?;
    let body = field(&body, "generateContentRequest").unwrap_or(&body);
    let mut beyond = Vec::new();
    let fields = body
        .as_object()
        .ok_or_else(|| Invalid::new("the request body must be a JSON object"))?;
    beyond.extend(unread(fields, &READ));
    let mut messages = Vec::new();
    if let Some(system) = field(body, "systemInstruction") {
        messages.push(Message::new(Role::System, turns::instruction(system)?));
    }
    let contents = field(body, "contents").and_then(Value::as_array);
    let contents = contents.ok_or_else(|| Invalid::at("contents", "contents is not specified"))?;
    messages.extend(turns::read_all(contents, &mut beyond)?);
    let empty = Value::Null;
    let config = field(body, "generationConfig").unwrap_or(&empty);
    if let Some(fields) = config.as_object() {
        beyond.extend(unread(fields, &CONFIG).map(|name| format!("generationConfig.{name}")));
    }
    asks_beyond(config, &mut beyond);
    let number = |name: &str| field(config, name).and_then(Value::as_f64);
    let whole = |name: &str| {
        let value = field(config, name)?;
        // Clients of Google's own write some whole numbers with a point.
        value.as_u64().or_else(|| {
            value
                .as_f64()
                .filter(|number| *number >= 0.0)
                .map(|number| number as u64)
        })
    };
    let wants_tokens = field(config, "responseLogprobs")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    Ok(ChatRequest {
        model: view.model.clone(),
        messages,
        tools: tools(body, &mut beyond)?,
        tool_choice: tool_choice(body, &mut beyond)?,
        parallel_tool_calls: None,
        response_format: response_format(config),
        max_output_tokens: whole("maxOutputTokens"),
        temperature: number("temperature"),
        top_p: number("topP"),
        top_k: whole("topK"),
        presence_penalty: number("presencePenalty"),
        frequency_penalty: number("frequencyPenalty"),
        stop: stops(config)?,
        seed: field(config, "seed").and_then(Value::as_i64),
        reasoning: reasoning(config)?,
        logprobs: wants_tokens.then(|| {
            whole("logprobs")
                .and_then(|top| u32::try_from(top).ok())
                .unwrap_or_default()
        }),
        user: None,
        beyond,
        stream: view.stream,
    })
}

/// A writer of the answer to `request`, streamed if it asks for that.
pub(crate) fn writer(request: &ChatRequest) -> Box<dyn Writer> {
    Box::new(ContentWriter::new(&request.model))
}

fn unread<'a>(fields: &'a Map<String, Value>, known: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let is_known = |name: &str| known.iter().any(|known| *known == name || super::snake(known) == name);
    fields
        .iter()
        .filter(move |(name, value)| !is_known(name) && !value.is_null() && **value != Value::Array(Vec::new()))
        .map(|(name, _)| name.clone())
}

/// Wishes that are only some when they have another value than what holds without them.
fn asks_beyond(config: &Value, beyond: &mut Vec<String>) {
    if field(config, "candidateCount")
        .and_then(Value::as_u64)
        .is_some_and(|count| count != 1)
    {
        beyond.push("generationConfig.candidateCount".to_owned());
    }
    let modalities = field(config, "responseModalities").and_then(Value::as_array);
    if modalities.is_some_and(|all| {
        all.iter()
            .any(|one| !one.as_str().is_some_and(|one| one.eq_ignore_ascii_case("text")))
    }) {
        beyond.push("generationConfig.responseModalities".to_owned());
    }
    for name in ["mediaResolution", "audioTimestamp"] {
        if field(config, name).is_some_and(|value| value != "MEDIA_RESOLUTION_UNSPECIFIED" && *value != false) {
            beyond.push(format!("generationConfig.{name}"));
        }
    }
}

fn stops(config: &Value) -> Result<Vec<String>, Invalid> {
    let wrong = |_| {
        Invalid::at(
            "generationConfig.stopSequences",
            "stopSequences must be a list of strings",
        )
    };
    match field(config, "stopSequences") {
        None => Ok(Vec::new()),
        Some(list) => serde_json::from_value(list.clone()).map_err(wrong),
    }
}

fn response_format(config: &Value) -> Option<ResponseFormat> {
    let kind = text(config, "responseMimeType")?;
    let schema = field(config, "responseJsonSchema").or_else(|| field(config, "responseSchema"));
    match schema {
        Some(Value::Object(schema)) => Some(ResponseFormat::JsonSchema {
            name: SCHEMA_NAME.to_owned(),
            description: None,
            schema: plain_schema(schema),
            strict: None,
        }),
        _ if kind == "application/json" => Some(ResponseFormat::JsonObject),
        _ => None,
    }
}

/// Google's schemas name types in capitals and say `nullable`; JSON schema does neither.
fn plain_schema(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut plain = Map::new();
    let mut nullable = false;
    for (name, value) in schema {
        match (name.as_str(), value) {
            ("type", Value::String(kind)) => drop(plain.insert(name.clone(), kind.to_ascii_lowercase().into())),
            ("nullable", Value::Bool(may)) => nullable = *may,
            ("propertyOrdering" | "property_ordering", _) => {}
            ("properties", Value::Object(fields)) => {
                let fields = fields.iter().map(|(name, schema)| (name.clone(), plain_any(schema)));
                plain.insert(name.clone(), Value::Object(fields.collect()));
            }
            ("anyOf" | "any_of", Value::Array(schemas)) => {
                plain.insert("anyOf".to_owned(), schemas.iter().map(plain_any).collect());
            }
            ("items", schema) => drop(plain.insert(name.clone(), plain_any(schema))),
            _ => drop(plain.insert(name.clone(), value.clone())),
        }
    }
    if nullable && let Some(kind) = plain.get_mut("type") {
        *kind = Value::Array(vec![kind.take(), "null".into()]);
    }
    plain
}

fn plain_any(schema: &Value) -> Value {
    match schema {
        Value::Object(schema) => Value::Object(plain_schema(schema)),
        other => other.clone(),
    }
}

fn reasoning(config: &Value) -> Result<Option<Reasoning>, Invalid> {
    let Some(thinking) = field(config, "thinkingConfig") else {
        return Ok(None);
    };
    let effort = match text(thinking, "thinkingLevel") {
        None => None,
        Some(level) if level.ends_with("UNSPECIFIED") => None,
        Some(level) => {
            let wrong = |_| Invalid::at("generationConfig.thinkingConfig", "thinkingLevel is unknown");
            Some(level.to_ascii_lowercase().parse::<Effort>().map_err(wrong)?)
        }
    };
    let budget = field(thinking, "thinkingBudget").and_then(Value::as_i64);
    Ok(Some(Reasoning {
        effort,
        // -1 leaves it to the model.
        budget_tokens: budget.and_then(|budget| u64::try_from(budget).ok()),
        shown: field(thinking, "includeThoughts").and_then(Value::as_bool),
    }))
}

fn tools(body: &Value, beyond: &mut Vec<String>) -> Result<Vec<Tool>, Invalid> {
    let mut tools = Vec::new();
    for (index, tool) in field(body, "tools")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let fields = tool.as_object();
        let others = fields
            .into_iter()
            .flat_map(|fields| unread(fields, &["functionDeclarations"]));
        beyond.extend(others.map(|name| format!("tools[{index}].{name}")));
        let declared = field(tool, "functionDeclarations").and_then(Value::as_array);
        for declared in declared.into_iter().flatten() {
            let at = format!("tools[{index}].functionDeclarations");
            let name = text(declared, "name").filter(|name| !name.is_empty());
            let schema = field(declared, "parametersJsonSchema").or_else(|| field(declared, "parameters"));
            tools.push(Tool {
                name: name.ok_or_else(|| Invalid::at(&at, "a function has no name"))?,
                description: text(declared, "description"),
                parameters: schema.and_then(Value::as_object).map(plain_schema).unwrap_or_default(),
                strict: None,
                cache: None,
            });
        }
    }
    Ok(tools)
}

fn tool_choice(body: &Value, beyond: &mut Vec<String>) -> Result<Option<ToolChoice>, Invalid> {
    let calling = field(body, "toolConfig").and_then(|config| field(config, "functionCallingConfig"));
    let Some(calling) = calling else { return Ok(None) };
    let allowed = field(calling, "allowedFunctionNames").and_then(Value::as_array);
    let allowed: Vec<_> = allowed.into_iter().flatten().filter_map(Value::as_str).collect();
    match text(calling, "mode").unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "MODE_UNSPECIFIED" => Ok(None),
        "AUTO" => Ok(Some(ToolChoice::Auto)),
        "VALIDATED" => {
            beyond.push("toolConfig.functionCallingConfig.mode".to_owned());
            Ok(Some(ToolChoice::Auto))
        }
        "NONE" => Ok(Some(ToolChoice::None)),
        "ANY" => Ok(Some(match allowed.as_slice() {
            [] => ToolChoice::Required,
            [one] => ToolChoice::Named((*one).to_owned()),
            _ => {
                beyond.push("toolConfig.functionCallingConfig.allowedFunctionNames".to_owned());
                ToolChoice::Required
            }
        })),
        _ => Err(Invalid::at(
            "toolConfig.functionCallingConfig.mode",
            "the mode must be AUTO, ANY or NONE",
        )),
    }
}
