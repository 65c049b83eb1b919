//! Validation of requests as the real service does it.

use serde_json::Value;

use super::ENCRYPTED;
use crate::{
    ask::{Ask, Attachments, Form, TOKENS_PER_ATTACHMENT, Tool},
    check::{self, Object, wrong_type},
    error::ApiError,
    tokens,
};

const FIELDS: [&str; 30] = [
    "background",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
    "moderation",
    "context_management",
];
const INCLUDABLE: [&str; 4] = [
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
];

/// Checks a parsed body against the service's rules and this provider's models.
pub(super) fn validate(body: &Value, models: &[String]) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    request.only(&FIELDS)?;
    let model = known_model(&request, models)?;
    request.maybe_decimal("temperature", 0.0, 2.0)?;
    request.maybe_decimal("top_p", 0.0, 1.0)?;
    request.maybe_bool("store")?;
    request.maybe_bool("parallel_tool_calls")?;
    request.maybe_string("user")?;
    let include = request.maybe_array("include")?.map_or(&[][..], Vec::as_slice);
    for value in include {
        let name = value.as_str().unwrap_or_default();
        if !INCLUDABLE.contains(&name) {
            return Err(check::not_supported("include", name, &INCLUDABLE));
        }
    }
    let top = request.maybe_integer("top_logprobs", 0, 20)?;
    let logprobs = include.iter().any(|name| name == "message.output_text.logprobs");
    if top.is_some_and(|top| top > 0) && !logprobs {
        return Err(ApiError::invalid(
            "top_logprobs needs include of message.output_text.logprobs.",
        ));
    }
    let mut reader = Reader::default();
    if let Some(text) = request.maybe_string("instructions")? {
        reader.tokens += tokens::count(text);
    }
    match request.required("input")? {
        Value::String(text) => {
            reader.tokens += tokens::count(text);
            reader.prompt.clone_from(text);
        }
        Value::Array(items) if items.is_empty() => return Err(check::empty_array("input")),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                reader.item(item, &format!("input[{index}]"))?;
            }
            reader.settled()?;
        }
        other => return Err(wrong_type("input", "one of a string or array", other)),
    }
    let mut ask = Ask {
        model,
        stream: request.maybe_bool("stream")?.unwrap_or(false),
        include_usage: true,
        prompt: reader.prompt,
        input_tokens: reader.tokens + 4,
        n: 1,
        limit: request
            .maybe_integer("max_output_tokens", 16, i64::MAX)?
            .map(i64::unsigned_abs),
        format: form(&request)?,
        reasoning: reasoning(&request)?,
        logprobs: logprobs.then_some(top.unwrap_or(0).unsigned_abs()),
        attachments: reader.attachments,
        results: reader.results,
        ..Ask::default()
    };
    tools(&request, &mut ask)?;
    Ok(ask)
}

fn known_model(request: &Object<'_>, models: &[String]) -> Result<String, ApiError> {
    let model = request.string("model")?;
    if models.iter().any(|known| known == model) {
        return Ok(model.to_owned());
    }
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    Err(ApiError::invalid(message).with_status(404).code("model_not_found"))
}

fn reasoning(request: &Object<'_>) -> Result<bool, ApiError> {
    let Some(value) = request.get("reasoning") else {
        return Ok(false);
    };
    let reasoning = Object::of(value, "reasoning")?;
    reasoning.only(&["effort", "summary", "generate_summary"])?;
    let efforts = ["none", "minimal", "low", "medium", "high", "xhigh"];
    let effort = reasoning.maybe_choice("effort", &efforts)?;
    reasoning.maybe_choice("summary", &["auto", "concise", "detailed"])?;
    Ok(effort != Some("none"))
}

fn form(request: &Object<'_>) -> Result<Form, ApiError> {
    let Some(value) = request.get("text") else {
        return Ok(Form::Text);
    };
    let text = Object::of(value, "text")?;
    text.only(&["format", "verbosity"])?;
    text.maybe_choice("verbosity", &["low", "medium", "high"])?;
    let Some(value) = text.get("format") else {
        return Ok(Form::Text);
    };
    let format = Object::of(value, "text.format")?;
    match format.choice("type", &["text", "json_object", "json_schema"])? {
        "json_schema" => {
            format.only(&["type", "name", "schema", "strict", "description"])?;
            check::name(&format)?;
            Object::of(format.required("schema")?, "text.format.schema")?;
            Ok(Form::Schema(format.required("schema")?.clone()))
        }
        "text" => Ok(Form::Text),
        _ => Ok(Form::Object),
    }
}

fn tools(request: &Object<'_>, ask: &mut Ask) -> Result<(), ApiError> {
    for (index, value) in request.maybe_array("tools")?.into_iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        let tool = Object::of(value, &path)?;
        tool.choice("type", &["function"])?;
        tool.only(&["type", "name", "description", "parameters", "strict"])?;
        let strict = tool.maybe_bool("strict")?.unwrap_or(false);
        let schema = tool.get("parameters").cloned().unwrap_or(Value::Null);
        if strict && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            let message =
                "Invalid schema for function: 'additionalProperties' is required to be supplied and to be false.";
            return Err(ApiError::invalid(message)
                .param(path)
                .code("invalid_function_parameters"));
        }
        ask.tools.push(Tool {
            name: check::name(&tool)?,
            parameters: Some(schema),
        });
    }
    let Some(choice) = request.get("tool_choice") else {
        return Ok(());
    };
    if ask.tools.is_empty() && choice != "none" && choice != "auto" {
        return Err(ApiError::invalid("Tool choice is only allowed when 'tools' are specified.").param("tool_choice"));
    }
    match choice {
        Value::String(mode) => match mode.as_str() {
            "auto" => {}
            "none" => ask.no_tools = true,
            "required" => ask.forced = ask.tools.first().cloned(),
            other => {
                return Err(check::not_supported(
                    "tool_choice",
                    other,
                    &["none", "auto", "required"],
                ));
            }
        },
        object => {
            let choice = Object::of(object, "tool_choice")?;
            choice.choice("type", &["function"])?;
            let name = choice.string("name")?;
            let found = ask.tools.iter().find(|tool| tool.name == name).cloned();
            let missing = || ApiError::invalid(format!("Tool choice '{name}' not found in 'tools' parameter."));
            ask.forced = Some(found.ok_or_else(missing)?);
        }
    }
    Ok(())
}

/// What the input said so far.
#[derive(Default)]
struct Reader {
    prompt: String,
    tokens: u64,
    attachments: Attachments,
    results: Vec<String>,
    open: Vec<String>,
}

impl Reader {
    fn settled(&self) -> Result<(), ApiError> {
        match self.open.first() {
            None => Ok(()),
            Some(id) => Err(ApiError::invalid(format!("No tool output found for function call {id}.")).param("input")),
        }
    }

    fn item(&mut self, value: &Value, path: &str) -> Result<(), ApiError> {
        let item = Object::of(value, path)?;
        let kind = item.maybe_string("type")?.unwrap_or("message").to_owned();
        match kind.as_str() {
            "message" => self.message(&item),
            "reasoning" => {
                item.only(&["type", "id", "summary", "content", "encrypted_content", "status"])?;
                item.required("summary")?;
                match item.maybe_string("encrypted_content")? {
                    Some(ENCRYPTED) => Ok(()),
                    Some(_) => Err(ApiError::invalid("The encrypted content could not be verified.")
                        .code("invalid_encrypted_content")),
                    None => Err(ApiError::invalid(
                        "Item not found. Items are not persisted when `store` is set to false.",
                    )
                    .with_status(404)),
                }
            }
            "function_call" => {
                item.only(&["type", "id", "call_id", "name", "arguments", "status"])?;
                let id = item.string("call_id")?.to_owned();
                check::name(&item)?;
                self.tokens += tokens::count(item.string("arguments")?);
                self.open.push(id);
                self.results.clear();
                Ok(())
            }
            "function_call_output" => self.output(&item),
            other => Err(check::not_supported(
                &format!("{path}.type"),
                other,
                &["message", "function_call"],
            )),
        }
    }

    fn output(&mut self, item: &Object<'_>) -> Result<(), ApiError> {
        item.only(&["type", "id", "call_id", "output", "status"])?;
        let id = item.string("call_id")?;
        let Some(place) = self.open.iter().position(|open| open == id) else {
            let message = format!("No tool call found for function call output with call_id {id}.");
            return Err(ApiError::invalid(message).param("input"));
        };
        self.open.remove(place);
        let mut words = Vec::new();
        match item.required("output")? {
            Value::String(text) => words.push(text.clone()),
            Value::Array(parts) => {
                for part in parts {
                    match part.get("type").and_then(Value::as_str) {
                        Some("input_text") => {
                            words.push(part.get("text").and_then(Value::as_str).unwrap_or_default().to_owned());
                        }
                        Some("input_image") => words.push("[image]".to_owned()),
                        Some("input_file") => words.push("[document]".to_owned()),
                        _ => return Err(ApiError::invalid("Invalid type of an output part.").param("input")),
                    }
                }
            }
            other => return Err(wrong_type(&item.path_of("output"), "one of a string or array", other)),
        }
        let text = words.join(" ");
        self.tokens += tokens::count(&text);
        self.results.push(text);
        Ok(())
    }

    fn message(&mut self, item: &Object<'_>) -> Result<(), ApiError> {
        item.only(&["type", "role", "content", "id", "status", "phase"])?;
        self.settled()?;
        let role = item.choice("role", &["user", "assistant", "system", "developer"])?;
        self.tokens += 4;
        let is_user = role == "user";
        if is_user {
            self.attachments = Attachments::default();
        }
        let mut words = Vec::new();
        match item.required("content")? {
            Value::String(text) => {
                self.tokens += tokens::count(text);
                words.push(text.clone());
            }
            Value::Array(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    let path = format!("{}.content[{index}]", item.path);
                    words.extend(self.part(&Object::of(part, &path)?, role == "assistant")?);
                }
            }
            other => return Err(wrong_type(&item.path_of("content"), "one of a string or array", other)),
        }
        self.results.clear();
        if is_user {
            self.prompt = words.join(" ");
        }
        Ok(())
    }

    fn part(&mut self, part: &Object<'_>, is_answer: bool) -> Result<Option<String>, ApiError> {
        let kinds: &[&str] = if is_answer {
            &["output_text", "refusal"]
        } else {
            &["input_text", "input_image", "input_file", "input_audio"]
        };
        match part.choice("type", kinds)? {
            "input_text" => part.only(&["type", "text"])?,
            "output_text" => part.only(&["type", "text", "annotations", "logprobs"])?,
            "refusal" => {
                part.only(&["type", "refusal"])?;
                return Ok(Some(part.string("refusal")?.to_owned()));
            }
            "input_image" => {
                part.only(&["type", "image_url", "file_id", "detail"])?;
                part.maybe_choice("detail", &["low", "high", "auto"])?;
                if part.maybe_string("file_id")?.is_none() {
                    part.string("image_url")?;
                }
                return Ok(self.attach(|attachments| &mut attachments.images));
            }
            "input_audio" => {
                part.only(&["type", "input_audio"])?;
                return Ok(self.attach(|attachments| &mut attachments.sounds));
            }
            _ => {
                part.only(&["type", "file_data", "file_url", "file_id", "filename"])?;
                return Ok(self.attach(|attachments| &mut attachments.files));
            }
        }
        let text = part.string("text")?;
        self.tokens += tokens::count(text);
        Ok(Some(text.to_owned()))
    }

    fn attach(&mut self, which: impl FnOnce(&mut Attachments) -> &mut u64) -> Option<String> {
        *which(&mut self.attachments) += 1;
        self.tokens += TOKENS_PER_ATTACHMENT;
        None
    }
}

/// A request for vectors: the texts stand in `results`, the length in `limit`, the wish for base64 in `include_usage`.
pub(super) fn embeddings(body: &Value, models: &[String]) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    request.only(&["model", "input", "encoding_format", "dimensions", "user"])?;
    let model = known_model(&request, models)?;
    request.maybe_string("user")?;
    let in_base64 = request.maybe_choice("encoding_format", &["float", "base64"])? == Some("base64");
    let texts = match request.required("input")? {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) if list.is_empty() => return Err(check::empty_array("input")),
        Value::Array(list) if list.iter().all(Value::is_u64) => vec![Value::Array(list.clone()).to_string()],
        Value::Array(list) => list
            .iter()
            .map(|value| match value {
                Value::String(text) if !text.is_empty() => Ok(text.clone()),
                Value::Array(ids) if ids.iter().all(Value::is_u64) => Ok(value.to_string()),
                _ => Err(ApiError::invalid(
                    "'$.input' is invalid. Please check the API reference.",
                )),
            })
            .collect::<Result<_, _>>()?,
        other => return Err(wrong_type("input", "one of a string or array", other)),
    };
    Ok(Ask {
        service_tier: "",
        model,
        include_usage: in_base64,
        n: 1,
        input_tokens: texts.iter().map(|text| tokens::count(text)).sum(),
        limit: request.maybe_integer("dimensions", 1, 3072)?.map(i64::unsigned_abs),
        results: texts,
        ..Ask::default()
    })
}
