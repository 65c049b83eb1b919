//! The superset model as a request of this dialect.

use serde_json::{Map, Value, json};
use tollgate_types::chat::{Cache, ChatRequest, Media, Message, Part, ResponseFormat, Role, Tool, ToolChoice};

use super::citation_object;
use crate::{
    Refused,
    bedrock::{
        model::Model,
        reasoning::{self, Plan},
        schema,
    },
    names::{Names, Rule},
    side::{Losses, Target},
};

/// What a tool's name may be.
const TOOL_NAME: Rule = Rule {
    also: "_-",
    longest: 128,
};
/// What a call's id may be.
const CALL_ID: Rule = Rule {
    also: "_-",
    longest: 256,
};
/// The tool whose arguments are the answer, for models that hold to no schema otherwise.
const ANSWER_TOOL: &str = "answer_in_json";
/// Stands for tools that the history used and the request does not offer: the service wants some to be there.
const GONE_TOOL: &str = "unavailable";
/// For models whose limit is not known.
const DEFAULT_LIMIT: u64 = 4096;

pub(super) struct Written {
    pub(super) body: Map<String, Value>,
    /// The tool whose call is the answer.
    pub(super) answer_tool: Option<String>,
}

/// The model's id as the table of models knows it.
fn model_of(name: &str) -> Model {
    match name.split_once("claude") {
        Some((_, rest)) if rest.starts_with('-') => Model::of(&format!("anthropic.claude{rest}")),
        // A name of somebody's own: what most models can.
        _ => Model::of("anthropic.claude-sonnet-4-5"),
    }
}

/// The most that the model writes, from Anthropic's table of models: a request must name a limit.
fn most_tokens(model: Model) -> u64 {
    match model.claude_version() {
        Some(version) if version < (3, 5) => DEFAULT_LIMIT,
        Some(version) if version < (3, 7) => 8192,
        Some((4, 0 | 1)) => 32_000,
        Some(_) => 64_000,
        None => DEFAULT_LIMIT,
    }
}

/// The body for the provider's model.
pub(super) fn request(
    request: &ChatRequest,
    target: &Target<'_>,
    names: &mut Names,
    losses: &mut Losses,
) -> Result<Written, Refused> {
    let model = model_of(target.model);
    for (asked, name) in [
        (
            request.presence_penalty.is_some_and(|penalty| penalty != 0.0),
            "presence_penalty",
        ),
        (
            request.frequency_penalty.is_some_and(|penalty| penalty != 0.0),
            "frequency_penalty",
        ),
        (request.seed.is_some(), "seed"),
        (request.logprobs.is_some(), "logprobs"),
    ] {
        if asked {
            losses.cannot(name)?;
        }
    }
    let limit = request.max_output_tokens.unwrap_or(most_tokens(model));
    let plan = reasoning::plan(request, limit, model, losses)?;
    let mut body = Map::new();
    let mut turns = Turns {
        names,
        ids: Names::default(),
        losses,
        system: Vec::new(),
        messages: Vec::new(),
        has_tools: false,
    };
    turns.conversation(&request.messages)?;
    let Turns {
        system,
        messages,
        has_tools,
        ..
    } = turns;
    body.insert("model".to_owned(), target.model.into());
    body.insert("max_tokens".to_owned(), limit.into());
    if !system.is_empty() {
        body.insert("system".to_owned(), system.into());
    }
    body.insert("messages".to_owned(), messages.into());
    let answer_tool = form_and_tools(request, model, &plan, has_tools, names, losses, &mut body)?;
    sampling(request, model, &plan, losses, &mut body)?;
    if let Some(user) = request.user.as_deref().filter(|user| is_opaque(user)) {
        body.insert("metadata".to_owned(), json!({ "user_id": user }));
    }
    if request.stream {
        body.insert("stream".to_owned(), true.into());
    }
    Ok(Written { body, answer_tool })
}

/// The service asks that no e-mail address or phone number be sent as a user's id.
fn is_opaque(user: &str) -> bool {
    let digits = user.bytes().filter(u8::is_ascii_digit).count();
    let phone = digits >= 7 && user.chars().all(|c| c.is_ascii_digit() || " +-().".contains(c));
    !user.contains('@') && !phone
}

fn sampling(
    request: &ChatRequest,
    model: Model,
    plan: &Plan,
    losses: &mut Losses,
    body: &mut Map<String, Value>,
) -> Result<(), Refused> {
    let fixed = plan.on || model.has_fixed_sampling();
    match request.temperature {
        Some(temperature) if temperature > 1.0 || (fixed && temperature != 1.0) => {
            losses.cannot(format!("a temperature of {temperature}"))?;
        }
        Some(temperature) => drop(body.insert("temperature".to_owned(), temperature.into())),
        None => {}
    }
    match request.top_k {
        Some(_) if fixed => losses.cannot("top_k with reasoning")?,
        Some(top_k) => drop(body.insert("top_k".to_owned(), top_k.into())),
        None => {}
    }
    if let Some(top_p) = request.top_p {
        body.insert("top_p".to_owned(), top_p.into());
    }
    let mut stops = Vec::new();
    for stop in &request.stop {
        if stop.trim().is_empty() {
            losses.cannot("a stop sequence of nothing but space")?;
        } else {
            stops.push(Value::from(stop.as_str()));
        }
    }
    if !stops.is_empty() {
        body.insert("stop_sequences".to_owned(), stops.into());
    }
    if let Some(thinking) = &plan.thinking {
        body.insert("thinking".to_owned(), thinking.clone());
    }
    if let Some(effort) = plan.effort {
        set_output(body, "effort", effort.into());
    }
    Ok(())
}

/// Sets a field of `output_config`.
fn set_output(body: &mut Map<String, Value>, name: &str, value: Value) {
    body.entry("output_config").or_insert_with(|| json!({}))[name] = value;
}

/// Tools, the choice among them and the form of the answer, which may take a tool of its own.
fn form_and_tools(
    request: &ChatRequest,
    model: Model,
    plan: &Plan,
    has_tools: bool,
    names: &mut Names,
    losses: &mut Losses,
    body: &mut Map<String, Value>,
) -> Result<Option<String>, Refused> {
    let mut tools: Vec<Value> = request.tools.iter().map(|declared| tool(declared, names)).collect();
    let mut choice = request.tool_choice.as_ref().map(|choice| match choice {
        ToolChoice::Auto => json!({ "type": "auto" }),
        ToolChoice::None => json!({ "type": "none" }),
        ToolChoice::Required => json!({ "type": "any" }),
        ToolChoice::Named(name) => json!({ "type": "tool", "name": names.wire(name, TOOL_NAME) }),
    });
    let mut answer_tool = None;
    let wanted = match &request.response_format {
        None | Some(ResponseFormat::Text) => None,
        Some(ResponseFormat::JsonObject) => Some(Err(json!({ "type": "object" }))),
        Some(ResponseFormat::JsonSchema { schema, .. }) => {
            let native = schema::closed(schema).filter(|_| model.holds_to_schemas());
            Some(native.ok_or_else(|| Value::Object(schema.clone())))
        }
    };
    match wanted {
        None => {}
        Some(Ok(schema)) => {
            let format = json!({ "type": "json_schema", "schema": schema });
            set_output(body, "format", format);
        }
        Some(Err(_)) if plan.on => losses.cannot("this form of JSON with reasoning")?,
        Some(Err(schema)) => {
            let name = names.wire(ANSWER_TOOL, TOOL_NAME);
            let description = "Gives the answer to the user. Call it to answer.";
            tools.push(json!({ "name": name, "description": description, "input_schema": schema }));
            let alone = request.tools.is_empty();
            choice = Some(if alone {
                json!({ "type": "tool", "name": name })
            } else {
                json!({ "type": "any" })
            });
            answer_tool = Some(name);
        }
    }
    if tools.is_empty() && has_tools {
        let schema = json!({ "type": "object", "properties": {} });
        let description = "Not available any more.";
        tools.push(json!({ "name": GONE_TOOL, "description": description, "input_schema": schema }));
        choice = Some(json!({ "type": "none" }));
    }
    if tools.is_empty() {
        return Ok(None);
    }
    body.insert("tools".to_owned(), tools.into());
    if let Some(parallel) = request.parallel_tool_calls {
        let choice = choice.get_or_insert_with(|| json!({ "type": "auto" }));
        if choice["type"] != "none" {
            choice["disable_parallel_tool_use"] = (!parallel).into();
        }
    }
    if let Some(choice) = choice {
        body.insert("tool_choice".to_owned(), choice);
    }
    Ok(answer_tool)
}

fn tool(declared: &Tool, names: &mut Names) -> Value {
    let mut schema = declared.parameters.clone();
    schema.entry("type").or_insert_with(|| "object".into());
    if schema.len() == 1 {
        schema.insert("properties".to_owned(), json!({}));
    }
    let mut object = json!({ "name": names.wire(&declared.name, TOOL_NAME), "input_schema": schema });
    if let Some(description) = &declared.description {
        object["description"] = description.clone().into();
    }
    if let Some(strict) = declared.strict {
        object["strict"] = strict.into();
    }
    marked(object, declared.cache.as_ref())
}

fn marked(mut block: Value, cache: Option<&Cache>) -> Value {
    if let Some(cache) = cache {
        block["cache_control"] = json!({ "type": "ephemeral" });
        if let Some(ttl) = &cache.ttl {
            block["cache_control"]["ttl"] = ttl.clone().into();
        }
    }
    block
}

/// Turns in the making: neighbours of one role are one turn, because the service wants them to alternate.
struct Turns<'a> {
    names: &'a mut Names,
    ids: Names,
    losses: &'a mut Losses,
    system: Vec<Value>,
    messages: Vec<Value>,
    has_tools: bool,
}

impl Turns<'_> {
    fn conversation(&mut self, messages: &[Message]) -> Result<(), Refused> {
        let is_system = |message: &Message| matches!(message.role, Role::System | Role::Developer);
        let leading = messages.iter().take_while(|message| is_system(message)).count();
        for (index, message) in messages.iter().enumerate() {
            let at = format!("messages[{index}]");
            if message.participant().is_some() {
                self.losses.cannot(format!("{at}.name"))?;
            }
            let mut blocks = Vec::new();
            for part in &message.content {
                blocks.extend(self.part(part, &at)?);
            }
            if index < leading {
                self.system.extend(blocks);
                continue;
            }
            match message.role {
                Role::Assistant => {
                    // Reasoning first, calls last, as the service wants them.
                    blocks.sort_by_key(|block| match block["type"].as_str() {
                        Some("thinking" | "redacted_thinking") => 0,
                        Some("tool_use") => 2,
                        _ => 1,
                    });
                    self.push("assistant", blocks);
                }
                Role::Tool => self.push("user", blocks),
                Role::User => {
                    if blocks.is_empty() {
                        blocks.push(json!({ "type": "text", "text": "." }));
                    }
                    self.push("user", blocks);
                }
                // Later instructions stay where they are, as words of the user.
                Role::System | Role::Developer => {
                    blocks.insert(0, json!({ "type": "text", "text": "<system>" }));
                    blocks.push(json!({ "type": "text", "text": "</system>" }));
                    self.push("user", blocks);
                }
            }
        }
        self.finish();
        Ok(())
    }

    fn push(&mut self, role: &str, blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        let last = self.messages.last_mut().filter(|last| last["role"] == role);
        match last.and_then(|last| last["content"].as_array_mut()) {
            Some(content) => content.extend(blocks),
            None => self.messages.push(json!({ "role": role, "content": blocks })),
        }
    }

    /// The first turn is the user's, results lead their turn, and a last turn of the assistant ends in no space.
    fn finish(&mut self) {
        if self.messages.first().is_none_or(|first| first["role"] != "user") {
            let first = json!({ "role": "user", "content": [{ "type": "text", "text": "." }] });
            self.messages.insert(0, first);
        }
        for turn in self.messages.iter_mut().filter(|turn| turn["role"] == "user") {
            if let Some(content) = turn["content"].as_array_mut() {
                content.sort_by_key(|block| block["type"] != "tool_result");
            }
        }
        if let Some(last) = self.messages.last_mut().filter(|last| last["role"] == "assistant")
            && let Some(Value::String(text)) = last["content"]
                .as_array_mut()
                .and_then(|all| all.last_mut()?.get_mut("text"))
        {
            text.truncate(text.trim_end().len());
        }
    }

    fn part(&mut self, part: &Part, at: &str) -> Result<Option<Value>, Refused> {
        Ok(match part {
            // The service refuses empty text.
            Part::Text { text, .. } if text.is_empty() => None,
            Part::Text { text, cache, citations } => {
                let mut block = json!({ "type": "text", "text": text });
                if !citations.is_empty() {
                    block["citations"] = citations.iter().map(citation_object).collect();
                }
                Some(marked(block, cache.as_ref()))
            }
            Part::Image { media, cache, .. } => self.media("image", media, None, cache.as_ref(), at)?,
            Part::File { media, filename, cache } => {
                self.media("document", media, filename.as_deref(), cache.as_ref(), at)?
            }
            Part::Audio { .. } => {
                self.losses.cannot(format!("{at}: audio"))?;
                None
            }
            // Without its signature the service refuses it.
            Part::Reasoning { text, signature } => signature
                .as_ref()
                .map(|signature| json!({ "type": "thinking", "thinking": text, "signature": signature })),
            Part::RedactedReasoning { data } => Some(json!({ "type": "redacted_thinking", "data": data })),
            Part::Refusal { text } => Some(json!({ "type": "text", "text": text })),
            Part::ToolCall {
                id,
                name,
                arguments,
                cache,
                ..
            } => {
                self.has_tools = true;
                let block = json!({
                    "type": "tool_use",
                    "id": self.ids.wire(id, CALL_ID),
                    "name": self.names.wire(name, TOOL_NAME),
                    "input": self.input(arguments, at)?,
                });
                Some(marked(block, cache.as_ref()))
            }
            Part::ToolResult {
                call_id,
                content,
                is_error,
                cache,
            } => {
                self.has_tools = true;
                let mut blocks = Vec::new();
                for part in content {
                    blocks.extend(self.part(part, at)?);
                }
                let mut block = json!({ "type": "tool_result", "tool_use_id": self.ids.wire(call_id, CALL_ID) });
                if !blocks.is_empty() {
                    block["content"] = blocks.into();
                }
                if *is_error {
                    block["is_error"] = true.into();
                }
                Some(marked(block, cache.as_ref()))
            }
        })
    }

    fn input(&mut self, arguments: &str, at: &str) -> Result<Value, Refused> {
        if arguments.trim().is_empty() {
            return Ok(json!({}));
        }
        match serde_json::from_str(arguments) {
            Ok(input @ Value::Object(_)) => Ok(input),
            _ => {
                self.losses.cannot(format!("{at}: arguments that are no JSON object"))?;
                Ok(json!({}))
            }
        }
    }

    fn media(
        &mut self,
        kind: &str,
        media: &Media,
        title: Option<&str>,
        cache: Option<&Cache>,
        at: &str,
    ) -> Result<Option<Value>, Refused> {
        let source = match media {
            Media::Inline { media_type, data } if kind == "document" && media_type.starts_with("text/") => {
                use base64::{Engine, engine::general_purpose::STANDARD};
                let text = STANDARD
                    .decode(data)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok());
                match text {
                    Some(text) => json!({ "type": "text", "media_type": "text/plain", "data": text }),
                    None => return self.cannot(format!("{at}: a text that is not UTF-8")),
                }
            }
            Media::Inline { media_type, data } => {
                let known = if kind == "image" {
                    matches!(
                        media_type.as_str(),
                        "image/jpeg" | "image/png" | "image/gif" | "image/webp"
                    )
                } else {
                    media_type == "application/pdf"
                };
                if !known {
                    return self.cannot(format!("{at}: {media_type}"));
                }
                json!({ "type": "base64", "media_type": media_type, "data": data })
            }
            Media::Url { url, .. } if url.starts_with("https://") => json!({ "type": "url", "url": url }),
            Media::Url { .. } => return self.cannot(format!("{at}: an address that is not https")),
            Media::Uploaded { id } => json!({ "type": "file", "file_id": id }),
        };
        let mut block = json!({ "type": kind, "source": source });
        if let Some(title) = title {
            block["title"] = title.into();
        }
        Ok(Some(marked(block, cache)))
    }

    fn cannot(&mut self, feature: String) -> Result<Option<Value>, Refused> {
        self.losses.cannot(feature).map(|()| None)
    }
}
