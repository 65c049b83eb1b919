//! The superset model as a request of this dialect.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tollgate_types::chat::{
    ChatRequest, Effort, Media, Message, Part, Reasoning, ResponseFormat, Role, Tool, ToolChoice,
};

use super::NO_SIGNATURE;
use crate::{
    Refused,
    names::{Names, Rule},
    side::{Losses, Target},
};

/// What a function's name may be.
const TOOL_NAME: Rule = Rule {
    also: "_.:-",
    longest: 64,
};

/// The generation of a model, as far as its name tells.
fn generation(model: &str) -> u32 {
    let after = model.split("gemini-").nth(1).unwrap_or_default();
    after
        .split(['.', '-'])
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(2)
}

/// The body for the provider's model. Left out, because they only help a provider that knows them: cache markers, the
/// detail of images, the user's id.
pub(super) fn request(
    request: &ChatRequest,
    target: &Target<'_>,
    names: &mut Names,
    losses: &mut Losses,
) -> Result<Map<String, Value>, Refused> {
    let generation = generation(target.model);
    let mut turns = Turns {
        names,
        losses,
        generation,
        called: HashMap::new(),
        system: Vec::new(),
        contents: Vec::new(),
    };
    turns.conversation(&request.messages)?;
    let Turns { system, contents, .. } = turns;
    let mut body = Map::new();
    body.insert("contents".to_owned(), contents.into());
    if !system.is_empty() {
        body.insert("systemInstruction".to_owned(), json!({ "parts": system }));
    }
    if !request.tools.is_empty() {
        let declared: Vec<_> = request.tools.iter().map(|tool| declare(tool, names)).collect();
        body.insert("tools".to_owned(), json!([{ "functionDeclarations": declared }]));
    }
    if let Some(choice) = request.tool_choice.as_ref().filter(|_| !request.tools.is_empty()) {
        let calling = match choice {
            ToolChoice::Auto => json!({ "mode": "AUTO" }),
            ToolChoice::None => json!({ "mode": "NONE" }),
            ToolChoice::Required => json!({ "mode": "ANY" }),
            ToolChoice::Named(name) => {
                json!({ "mode": "ANY", "allowedFunctionNames": [wire_name(name, names)] })
            }
        };
        body.insert("toolConfig".to_owned(), json!({ "functionCallingConfig": calling }));
    }
    let config = config(request, generation, target.model, losses)?;
    if !config.is_empty() {
        body.insert("generationConfig".to_owned(), config.into());
    }
    Ok(body)
}

/// A name must begin with a letter or an underscore.
fn wire_name(name: &str, names: &mut Names) -> String {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins {
        return names.wire(name, TOOL_NAME);
    }
    names.wire_as(name, &format!("_{name}"), TOOL_NAME)
}

fn declare(tool: &Tool, names: &mut Names) -> Value {
    let mut declared = json!({ "name": wire_name(&tool.name, names) });
    if let Some(description) = &tool.description {
        declared["description"] = description.clone().into();
    }
    if !tool.parameters.is_empty() {
        declared["parametersJsonSchema"] = Value::Object(tool.parameters.clone());
    }
    declared
}

fn config(
    request: &ChatRequest,
    generation: u32,
    model: &str,
    losses: &mut Losses,
) -> Result<Map<String, Value>, Refused> {
    let mut config = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(name.to_owned(), value);
        }
    };
    set("temperature", request.temperature.map(Value::from));
    set("topP", request.top_p.map(Value::from));
    set("topK", request.top_k.map(Value::from));
    set("maxOutputTokens", request.max_output_tokens.map(Value::from));
    set("presencePenalty", request.presence_penalty.map(Value::from));
    set("frequencyPenalty", request.frequency_penalty.map(Value::from));
    set(
        "stopSequences",
        (!request.stop.is_empty()).then(|| request.stop.clone().into()),
    );
    match request.seed {
        Some(seed) if i32::try_from(seed).is_err() => losses.cannot("a seed of more than 32 bits")?,
        seed => set("seed", seed.map(Value::from)),
    }
    set("responseLogprobs", request.logprobs.map(|_| true.into()));
    set("logprobs", request.logprobs.filter(|top| *top > 0).map(Value::from));
    match &request.response_format {
        None | Some(ResponseFormat::Text) => {}
        Some(ResponseFormat::JsonObject) => set("responseMimeType", Some("application/json".into())),
        Some(ResponseFormat::JsonSchema { schema, .. }) => {
            set("responseMimeType", Some("application/json".into()));
            if generation < 2 {
                losses.cannot("a JSON schema of this model")?;
            } else {
                set("responseJsonSchema", Some(Value::Object(schema.clone())));
            }
        }
    }
    if let Some(reasoning) = &request.reasoning {
        set("thinkingConfig", thinking(reasoning, generation, model, losses)?);
    }
    Ok(config)
}

/// Budgets up to generation 2.5, levels from 3 on.
fn thinking(
    reasoning: &Reasoning,
    generation: u32,
    model: &str,
    losses: &mut Losses,
) -> Result<Option<Value>, Refused> {
    let shown = reasoning.shown.unwrap_or(!reasoning.is_off());
    if generation < 3 {
        let budget = match reasoning.as_budget() {
            Some(budget) => i64::try_from(budget).unwrap_or(i64::MAX).min(24_576),
            None => -1,
        };
        return Ok(Some(json!({ "thinkingBudget": budget, "includeThoughts": shown })));
    }
    let level = match reasoning.as_effort() {
        None => return Ok(Some(json!({ "includeThoughts": shown }))),
        // Flash comes down to minimal, the others only to low.
        Some(Effort::None) if !model.contains("flash") => {
            losses.cannot("no reasoning")?;
            return Ok(None);
        }
        Some(Effort::None | Effort::Minimal) if model.contains("flash") => "minimal",
        Some(Effort::None | Effort::Minimal | Effort::Low) => "low",
        Some(Effort::Medium) if model.contains("flash") => "medium",
        Some(_) => "high",
    };
    Ok(Some(json!({ "thinkingLevel": level, "includeThoughts": shown })))
}

/// Turns in the making: neighbours of one role are one, because the service wants them to alternate.
struct Turns<'a> {
    names: &'a mut Names,
    losses: &'a mut Losses,
    generation: u32,
    /// Names of calls by their ids: a response names its function.
    called: HashMap<String, String>,
    system: Vec<Value>,
    contents: Vec<Value>,
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
            let mut parts = Vec::new();
            let mut signature = None;
            let mut calls = 0;
            for part in &message.content {
                if let Part::ToolCall { .. } = part {
                    calls += 1;
                }
                self.part(part, &at, calls, &mut signature, &mut parts)?;
            }
            match message.role {
                _ if index < leading => self.system.extend(parts),
                Role::Assistant => self.push("model", parts),
                Role::Tool => self.push("user", parts),
                Role::User => {
                    if parts.is_empty() {
                        parts.push(json!({ "text": " " }));
                    }
                    self.push("user", parts);
                }
                // Later instructions stay where they are, as words of the user.
                Role::System | Role::Developer => {
                    parts.insert(0, json!({ "text": "<system>" }));
                    parts.push(json!({ "text": "</system>" }));
                    self.push("user", parts);
                }
            }
        }
        if self.contents.first().is_none_or(|first| first["role"] != "user") {
            self.contents
                .insert(0, json!({ "role": "user", "parts": [{ "text": " " }] }));
        }
        Ok(())
    }

    fn push(&mut self, role: &str, parts: Vec<Value>) {
        if parts.is_empty() {
            return;
        }
        let last = self.contents.last_mut().filter(|last| last["role"] == role);
        match last.and_then(|last| last["parts"].as_array_mut()) {
            Some(all) => all.extend(parts),
            None => self.contents.push(json!({ "role": role, "parts": parts })),
        }
    }

    /// `signature` is one that came without words, for the part that follows it.
    fn part(
        &mut self,
        part: &Part,
        at: &str,
        calls: usize,
        signature: &mut Option<String>,
        out: &mut Vec<Value>,
    ) -> Result<(), Refused> {
        match part {
            Part::Text { text, .. } if text.is_empty() => {}
            Part::Text { text, .. } | Part::Refusal { text } => {
                let mut part = json!({ "text": text });
                if let Some(signature) = signature.take() {
                    part["thoughtSignature"] = signature.into();
                }
                out.push(part);
            }
            Part::Image { media, .. } | Part::Audio { media, .. } | Part::File { media, .. } => {
                out.extend(self.media(media, at)?);
            }
            Part::Reasoning {
                text,
                signature: Some(own),
            } if text.is_empty() => *signature = Some(own.clone()),
            // Thoughts are summaries; they are not sent back. What is redacted is another provider's: Google's own comes as
            // a signature without words.
            Part::Reasoning { .. } | Part::RedactedReasoning { .. } => {}
            Part::ToolCall {
                id,
                name,
                arguments,
                signature: own,
                ..
            } => {
                let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
                let Ok(args @ Value::Object(_)) = serde_json::from_str(arguments) else {
                    return self.losses.cannot(format!("{at}: arguments that are no JSON object"));
                };
                self.called.insert(id.clone(), name.clone());
                let mut part = json!({ "functionCall": { "name": wire_name(name, self.names), "args": args } });
                // Of calls made side by side only the first is signed.
                let unsigned = (self.generation >= 3 && calls == 1).then(|| NO_SIGNATURE.to_owned());
                if let Some(signature) = own.clone().or_else(|| signature.take()).or(unsigned) {
                    part["thoughtSignature"] = signature.into();
                }
                out.push(part);
            }
            Part::ToolResult {
                call_id,
                content,
                is_error,
                ..
            } => self.result(call_id, content, *is_error, at, out)?,
        }
        Ok(())
    }

    fn result(
        &mut self,
        call_id: &str,
        content: &[Part],
        is_error: bool,
        at: &str,
        out: &mut Vec<Value>,
    ) -> Result<(), Refused> {
        let Some(name) = self.called.get(call_id).cloned() else {
            return self.losses.cannot(format!("{at}: a result of an unknown call"));
        };
        let mut words = String::new();
        let mut shown = Vec::new();
        for part in content {
            match part {
                Part::Text { text, .. } => words.push_str(text),
                Part::Image { media, .. } | Part::File { media, .. } => shown.extend(self.media(media, at)?),
                _ => self.losses.cannot(format!("{at}: a part where it cannot be"))?,
            }
        }
        let said = match serde_json::from_str(&words) {
            Ok(object @ Value::Object(_)) => object,
            _ if is_error => json!({ "error": words }),
            _ => json!({ "content": words }),
        };
        let mut response = json!({ "name": wire_name(&name, self.names), "response": said });
        if !shown.is_empty() && self.generation >= 3 {
            response["parts"] = std::mem::take(&mut shown).into();
        }
        out.push(json!({ "functionResponse": response }));
        out.extend(shown);
        Ok(())
    }

    fn media(&mut self, media: &Media, at: &str) -> Result<Option<Value>, Refused> {
        Ok(match media {
            Media::Inline { media_type, data } => {
                Some(json!({ "inlineData": { "mimeType": media_type, "data": data } }))
            }
            Media::Url { url, media_type } => match media_type
                .as_deref()
                .filter(|kind| !kind.ends_with('*'))
                .or_else(|| kind_of(url))
            {
                Some(kind) => Some(json!({ "fileData": { "mimeType": kind, "fileUri": url } })),
                None => {
                    self.losses
                        .cannot(format!("{at}: an address that does not tell its media type"))?;
                    None
                }
            },
            Media::Uploaded { .. } => {
                self.losses.cannot(format!("{at}: a file uploaded elsewhere"))?;
                None
            }
        })
    }
}

/// The media type that an address' ending tells.
fn kind_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let ending = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    Some(match ending.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        _ => return None,
    })
}
