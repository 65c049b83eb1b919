//! Validation of requests as the real service does it: unknown names refused, calls and responses paired.

use serde_json::Value;

use super::SIGNATURE;
use crate::{
    ask::{Ask, Attachments, Form, TOKENS_PER_ATTACHMENT, Tool},
    check::{Object, wrong_type},
    error::ApiError,
    tokens,
};

const FIELDS: [&str; 8] = [
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "cachedContent",
    "labels",
];
const CONFIG: [&str; 20] = [
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
    "responseModalities",
    "responseLogprobs",
    "logprobs",
    "thinkingConfig",
    "speechConfig",
    "mediaResolution",
    "audioTimestamp",
    "enableEnhancedCivicAnswers",
];
/// Stands in for a signature that a conversation from elsewhere does not have.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message)
}

fn unknown(object: &Object<'_>, known: &[&str]) -> Result<(), ApiError> {
    match object.map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(refuse(format!(
            "Invalid JSON payload received. Unknown name \"{key}\" at '{}': Cannot find field.",
            object.path
        ))),
    }
}

/// The same with names as JSON has them: the service takes those of its protocol too.
pub(super) fn camel(value: &mut Value) {
    const FREE: [&str; 7] = [
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
    ];
    match value {
        Value::Array(items) => items.iter_mut().for_each(camel),
        Value::Object(fields) => {
            for (name, mut field) in std::mem::take(fields) {
                let mut words = name.split('_');
                let mut joined = words.next().unwrap_or_default().to_owned();
                for word in words {
                    let (first, rest) = word.split_at(word.len().min(1));
                    joined.push_str(&first.to_ascii_uppercase());
                    joined.push_str(rest);
                }
                if !FREE.contains(&joined.as_str()) {
                    camel(&mut field);
                }
                fields.insert(joined, field);
            }
        }
        _ => {}
    }
}

/// A request for content.
pub(super) fn generate(body: &Value) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    unknown(&request, &FIELDS)?;
    let mut ask = Ask {
        n: 1,
        include_usage: true,
        ..Ask::default()
    };
    let mut turns = Turns::default();
    if let Some(system) = request.get("systemInstruction") {
        let system = Object::of(system, "system_instruction")?;
        unknown(&system, &["role", "parts"])?;
        for part in system.maybe_array("parts")?.into_iter().flatten() {
            ask.input_tokens += tokens::count(part.get("text").and_then(Value::as_str).unwrap_or_default());
        }
    }
    let contents = request.maybe_filled_array("contents")?;
    for (index, content) in contents
        .ok_or_else(|| refuse("contents is not specified"))?
        .iter()
        .enumerate()
    {
        turns.content(content, &format!("contents[{index}]"))?;
    }
    if !turns.calls.is_empty() {
        let message = "Please ensure that function call turn comes immediately after a user turn or after a function \
                       response turn, and that the number of function response parts is equal to the number of \
                       function call parts of the function call turn.";
        return Err(refuse(message));
    }
    ask.input_tokens += turns.tokens;
    ask.prompt = turns.prompt;
    ask.attachments = turns.attachments;
    ask.results = turns.results;
    tools(&request, &mut ask)?;
    config(&request, &mut ask)?;
    Ok(ask)
}

/// A request to count.
pub(super) fn count(body: &Value) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    match request.get("generateContentRequest") {
        None => generate(body),
        Some(inner) => {
            unknown(&request, &["generateContentRequest"])?;
            let mut inner = inner.clone();
            let model = inner.as_object_mut().and_then(|inner| inner.remove("model"));
            if model
                .as_ref()
                .and_then(Value::as_str)
                .is_none_or(|model| !model.starts_with("models/"))
            {
                return Err(refuse("* GenerateContentRequest.model: unexpected model name format"));
            }
            generate(&inner)
        }
    }
}

/// A request for vectors: the texts are the results of the conversation that there is none of.
pub(super) fn embed(body: &Value, model: &str) -> Result<Ask, ApiError> {
    let request = Object::of(body, "")?;
    unknown(&request, &["requests"])?;
    let mut ask = Ask { n: 1, ..Ask::default() };
    let list = request.maybe_filled_array("requests")?;
    for (index, one) in list
        .ok_or_else(|| refuse("requests is not specified"))?
        .iter()
        .enumerate()
    {
        let path = format!("requests[{index}]");
        let one = Object::of(one, &path)?;
        unknown(&one, &["model", "content", "taskType", "title", "outputDimensionality"])?;
        if one.string("model")? != format!("models/{model}") {
            return Err(refuse(
                "* BatchEmbedContentsRequest.requests: model must be the same for all requests",
            ));
        }
        let text = one
            .required("content")?
            .pointer("/parts/0/text")
            .and_then(Value::as_str);
        let text = text.ok_or_else(|| refuse(format!("{path}.content: empty")))?;
        if let Some(length) = one.maybe_integer("outputDimensionality", 1, 3072)? {
            ask.limit = Some(length.unsigned_abs());
        }
        ask.input_tokens += tokens::count(text);
        ask.results.push(text.to_owned());
    }
    Ok(ask)
}

/// What the contents said so far.
#[derive(Default)]
struct Turns {
    last_role: String,
    prompt: String,
    tokens: u64,
    attachments: Attachments,
    results: Vec<String>,
    /// Names of the calls that have no response yet, in order.
    calls: Vec<String>,
}

impl Turns {
    fn content(&mut self, content: &Value, path: &str) -> Result<(), ApiError> {
        let content = Object::of(content, path)?;
        unknown(&content, &["role", "parts"])?;
        let role = content
            .maybe_choice("role", &["user", "model"])?
            .unwrap_or("user")
            .to_owned();
        if role == self.last_role {
            return Err(refuse(
                "Please ensure that multiturn requests alternate between user and model.",
            ));
        }
        self.last_role.clone_from(&role);
        let parts = content.maybe_filled_array("parts")?;
        let parts = parts.ok_or_else(|| refuse(format!("{path}.parts must not be empty")))?;
        let mut words = Vec::new();
        if role == "user" {
            self.results.clear();
            self.attachments = Attachments::default();
        }
        for (index, part) in parts.iter().enumerate() {
            let path = format!("{path}.parts[{index}]");
            let part = Object::of(part, &path)?;
            let known = [
                "text",
                "thought",
                "thoughtSignature",
                "inlineData",
                "fileData",
                "functionCall",
                "functionResponse",
            ];
            unknown(&part, &known)?;
            self.part(&part, &role, &mut words)?;
        }
        if role == "user" && !words.is_empty() {
            self.prompt = words.join(" ");
            if self.prompt.trim().is_empty() && !self.results.is_empty() {
                return Ok(());
            }
            self.results.clear();
        }
        Ok(())
    }

    fn part(&mut self, part: &Object<'_>, role: &str, words: &mut Vec<String>) -> Result<(), ApiError> {
        if let Some(signature) = part.maybe_string("thoughtSignature")?
            && signature != SIGNATURE
            && signature != NO_SIGNATURE
        {
            return Err(refuse("Thought signature is not valid"));
        }
        let wrong_role = |what: &str| Err(refuse(format!("{what} is not allowed in a {role} turn")));
        if let Some(text) = part.maybe_string("text")? {
            self.tokens += tokens::count(text);
            if part.maybe_bool("thought")? != Some(true) {
                words.push(text.to_owned());
            }
        } else if let Some(call) = part.get("functionCall") {
            if role != "model" {
                return wrong_role("function_call");
            }
            let path = part.path_of("function_call");
            let call = Object::of(call, &path)?;
            unknown(&call, &["id", "name", "args"])?;
            self.calls.push(call.string("name")?.to_owned());
            if let Some(args) = call.get("args") {
                Object::of(args, &path)?;
                self.tokens += tokens::count(&args.to_string());
            }
        } else if let Some(response) = part.get("functionResponse") {
            if role != "user" {
                return wrong_role("function_response");
            }
            self.response(response, &part.path_of("function_response"))?;
        } else if part.get("inlineData").is_some() || part.get("fileData").is_some() {
            self.media(part)?;
        } else {
            return Err(refuse(format!(
                "{}.data: required oneof field 'data' must have one initialized field",
                part.path
            )));
        }
        Ok(())
    }

    fn response(&mut self, response: &Value, path: &str) -> Result<(), ApiError> {
        let response = Object::of(response, path)?;
        unknown(&response, &["id", "name", "response", "parts"])?;
        let name = response.string("name")?;
        if self.calls.is_empty() || self.calls.remove(0) != name {
            return Err(refuse(
                "Please ensure that function response turn comes immediately after a function call turn.",
            ));
        }
        let inner = Object::of(response.required("response")?, path)?;
        let text = match inner.get("content").or(inner.get("error")).and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => Value::Object(inner.map.clone()).to_string(),
        };
        self.tokens += tokens::count(&text);
        self.results.push(text);
        Ok(())
    }

    fn media(&mut self, part: &Object<'_>) -> Result<(), ApiError> {
        let path = part.path_of("data");
        let kind = match (part.get("inlineData"), part.get("fileData")) {
            (Some(data), _) => {
                let data = Object::of(data, &path)?;
                unknown(&data, &["mimeType", "data", "displayName"])?;
                if data.string("data")?.is_empty() {
                    return Err(refuse("Unable to process input: empty data"));
                }
                data.string("mimeType")?.to_owned()
            }
            (None, Some(file)) => {
                let file = Object::of(file, &path)?;
                unknown(&file, &["mimeType", "fileUri", "displayName"])?;
                file.string("fileUri")?;
                file.maybe_string("mimeType")?.unwrap_or("image/png").to_owned()
            }
            (None, None) => return Err(wrong_type(&path, "inline data or a file", &Value::Null)),
        };
        *match kind.split('/').next() {
            Some("image") => &mut self.attachments.images,
            Some("audio") => &mut self.attachments.sounds,
            Some("application" | "text") => &mut self.attachments.files,
            _ => return Err(refuse(format!("Unsupported MIME type: {kind}"))),
        } += 1;
        self.tokens += TOKENS_PER_ATTACHMENT;
        Ok(())
    }
}

fn tools(request: &Object<'_>, ask: &mut Ask) -> Result<(), ApiError> {
    for (index, tool) in request.maybe_array("tools")?.into_iter().flatten().enumerate() {
        let path = format!("tools[{index}]");
        let tool = Object::of(tool, &path)?;
        unknown(&tool, &["functionDeclarations"])?;
        for declared in tool.maybe_array("functionDeclarations")?.into_iter().flatten() {
            let declared = Object::of(declared, &path)?;
            unknown(
                &declared,
                &[
                    "name",
                    "description",
                    "parameters",
                    "parametersJsonSchema",
                    "behavior",
                    "response",
                ],
            )?;
            let name = declared.string("name")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !starts || name.len() > 64 || !name.chars().all(plain) {
                return Err(refuse(
                    "Invalid function name. Must start with a letter or an underscore.",
                ));
            }
            let schema = declared.get("parametersJsonSchema").or(declared.get("parameters"));
            ask.tools.push(Tool {
                name: name.to_owned(),
                parameters: Some(schema.cloned().unwrap_or(Value::Null)),
            });
        }
    }
    let Some(config) = request.get("toolConfig") else {
        return Ok(());
    };
    let config = Object::of(config, "tool_config")?;
    unknown(&config, &["functionCallingConfig", "retrievalConfig"])?;
    let Some(calling) = config.get("functionCallingConfig") else {
        return Ok(());
    };
    let calling = Object::of(calling, "tool_config.function_calling_config")?;
    unknown(&calling, &["mode", "allowedFunctionNames"])?;
    let mode = calling
        .maybe_choice("mode", &["AUTO", "ANY", "NONE", "VALIDATED"])?
        .unwrap_or("AUTO");
    let allowed = calling.maybe_array("allowedFunctionNames")?;
    if allowed.is_some() && mode != "ANY" {
        return Err(refuse("Allowed function names should only be set when mode is ANY."));
    }
    ask.no_tools = mode == "NONE";
    if mode == "ANY" {
        let names: Vec<_> = allowed.into_iter().flatten().filter_map(Value::as_str).collect();
        let fits = |tool: &&Tool| names.is_empty() || names.contains(&tool.name.as_str());
        let found = ask.tools.iter().find(fits).cloned();
        ask.forced = Some(found.ok_or_else(|| refuse("Allowed function names must be declared."))?);
    }
    Ok(())
}

fn config(request: &Object<'_>, ask: &mut Ask) -> Result<(), ApiError> {
    let Some(config) = request.get("generationConfig") else {
        return Ok(());
    };
    let config = Object::of(config, "generation_config")?;
    unknown(&config, &CONFIG)?;
    config.maybe_decimal("temperature", 0.0, 2.0)?;
    config.maybe_decimal("topP", 0.0, 1.0)?;
    config.maybe_integer("topK", 1, 1000)?;
    config.maybe_decimal("presencePenalty", -2.0, 2.0)?;
    config.maybe_decimal("frequencyPenalty", -2.0, 2.0)?;
    config.maybe_integer("seed", i64::from(i32::MIN), i64::from(i32::MAX))?;
    config.maybe_integer("candidateCount", 1, 8)?;
    ask.limit = config
        .maybe_integer("maxOutputTokens", 1, 1_000_000)?
        .map(i64::unsigned_abs);
    let stops = config.maybe_array("stopSequences")?.into_iter().flatten();
    ask.stop = stops.filter_map(Value::as_str).map(str::to_owned).collect();
    if ask.stop.len() > 5 {
        return Err(refuse("The number of stop sequences must not exceed 5."));
    }
    let schema = config.get("responseJsonSchema").or(config.get("responseSchema"));
    let json =
        config.maybe_choice("responseMimeType", &["application/json", "text/plain"])? == Some("application/json");
    ask.format = match schema {
        Some(_) if !json => return Err(refuse("responseSchema is only supported with application/json.")),
        Some(schema) => Form::Schema(schema.clone()),
        None if json => Form::Object,
        None => Form::Text,
    };
    let wants = config.maybe_bool("responseLogprobs")?.unwrap_or(false);
    let top = config.maybe_integer("logprobs", 0, 20)?;
    if top.is_some() && !wants {
        return Err(refuse("Logprobs is only valid if response_logprobs is set to true."));
    }
    ask.logprobs = wants.then_some(top.unwrap_or(0).unsigned_abs());
    if let Some(thinking) = config.get("thinkingConfig") {
        let thinking = Object::of(thinking, "generation_config.thinking_config")?;
        unknown(&thinking, &["thinkingBudget", "thinkingLevel", "includeThoughts"])?;
        let budget = thinking.maybe_integer("thinkingBudget", -1, 32_768)?;
        let level = thinking.maybe_choice(
            "thinkingLevel",
            &["minimal", "low", "medium", "high", "MINIMAL", "LOW", "MEDIUM", "HIGH"],
        )?;
        if budget.is_some() && level.is_some() {
            return Err(refuse(
                "You can only set only one of thinking budget and thinking level.",
            ));
        }
        ask.reasoning = thinking.maybe_bool("includeThoughts")?.unwrap_or(false) && budget != Some(0);
    }
    Ok(())
}
