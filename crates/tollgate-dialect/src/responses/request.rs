//! Requests to a provider.
//!
//! Every turn stays in `input`, system turns too: they keep their places and roles, and the prompt's beginning stays the
//! same for the provider's cache. Markers for that cache are left out; it works unasked, and older models refuse them.
//!
//! Reasoning goes back only where this dialect sealed it (see [`sealed`]); what others sealed, or nobody did, would be
//! refused. A failed tool's answer goes as any other: the dialect has no mark for it, its text tells.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use tollgate_types::chat::{ChatRequest, Citation, Media, Message, Part, ResponseFormat, Role, Tool, ToolChoice};

use super::{answer, citation, sealed};
use crate::{
    Refused,
    names::{Names, Rule},
    side::{Losses, Quirks, Target},
};

/// Names of functions and schemas.
const NAME: Rule = Rule {
    also: "_-",
    longest: 64,
};

/// Ids of calls: any text, but not a long one.
const CALL_ID: Rule = Rule {
    also: " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    longest: 64,
};

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    input: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    reasoning: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    include: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    store: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Item<'a> {
    Message {
        role: &'static str,
        content: Vec<Content<'a>>,
    },
    Reasoning {
        #[serde(skip_serializing_if = "str::is_empty")]
        id: &'a str,
        summary: Vec<Summary<'a>>,
        encrypted_content: &'a str,
    },
    FunctionCall {
        call_id: String,
        name: String,
        arguments: &'a str,
    },
    FunctionCallOutput {
        call_id: String,
        output: Output<'a>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Summary<'a> {
    SummaryText { text: &'a str },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Output<'a> {
    Text(&'a str),
    Parts(Vec<Content<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    InputText {
        text: &'a str,
    },
    OutputText {
        text: &'a str,
        annotations: Vec<Value>,
    },
    Refusal {
        refusal: &'a str,
    },
    InputImage {
        #[serde(skip_serializing_if = "Option::is_none")]
        image_url: Option<Url<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    },
    InputFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<Url<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
    },
}

/// Written without a copy of the data.
enum Url<'a> {
    Inline { media_type: &'a str, data: &'a str },
    Address(&'a str),
}

impl Serialize for Url<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline { media_type, data } => {
                serializer.collect_str(&format_args!("data:{media_type};base64,{data}"))
            }
            Self::Address(url) => serializer.serialize_str(url),
        }
    }
}

/// Writes requests; remembers what it renamed and what it left out.
pub(super) struct Writing<'l> {
    /// Of functions.
    pub(super) names: Names,
    call_ids: Names,
    quirks: Quirks,
    losses: &'l mut Losses,
}

/// The request's body, and the names in it.
pub(super) fn body<'a>(
    request: &'a ChatRequest,
    target: &Target<'a>,
    losses: &mut Losses,
) -> Result<(Body<'a>, Names), Refused> {
    let mut writing = Writing {
        names: Names::default(),
        call_ids: Names::default(),
        quirks: target.quirks,
        losses,
    };
    writing.unsayable(request)?;
    let input = writing.input(&request.messages)?;
    let tools = request.tools.iter().map(|tool| writing.tool(tool)).collect();
    let tool_choice = request.tool_choice.as_ref().map(|choice| writing.tool_choice(choice));
    let body = Body {
        model: target.model,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        text: writing.text(request.response_format.as_ref())?,
        max_output_tokens: request.max_output_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        reasoning: reasoning(request),
        top_logprobs: request.logprobs,
        include: include(request, &input),
        user: request.user.as_deref(),
        store: false,
        stream: request.stream,
        input,
    };
    Ok((body, writing.names))
}

fn reasoning(request: &ChatRequest) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some(asked) = request.reasoning {
        if let Some(effort) = asked.as_effort() {
            fields.insert("effort".to_owned(), json!(effort.as_str()));
        }
        if asked.shown == Some(true) && !asked.is_off() {
            fields.insert("summary".to_owned(), json!("auto"));
        }
    }
    fields
}

/// Sealed reasoning is asked for only where there can be some: models that do not reason refuse the wish.
fn include(request: &ChatRequest, input: &[Item<'_>]) -> Vec<&'static str> {
    let asked = request.reasoning.is_some_and(|reasoning| !reasoning.is_off());
    let replayed = input.iter().any(|item| matches!(item, Item::Reasoning { .. }));
    let mut include = Vec::new();
    if asked || replayed {
        include.push("reasoning.encrypted_content");
    }
    if request.logprobs.is_some() {
        include.push("message.output_text.logprobs");
    }
    include
}

impl Writing<'_> {
    /// What the dialect has no field for.
    fn unsayable(&mut self, request: &ChatRequest) -> Result<(), Refused> {
        let asks = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
        let wishes = [
            ("stop", !request.stop.is_empty()),
            ("seed", request.seed.is_some()),
            ("top_k", request.top_k.is_some()),
            ("presence_penalty", asks(request.presence_penalty)),
            ("frequency_penalty", asks(request.frequency_penalty)),
        ];
        wishes
            .into_iter()
            .filter(|(_, asked)| *asked)
            .try_for_each(|(name, _)| self.losses.cannot(name))
    }

    fn input<'a>(&mut self, messages: &'a [Message]) -> Result<Vec<Item<'a>>, Refused> {
        let mut items = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let at = format!("messages[{index}]");
            if message.participant().is_some() {
                self.losses.cannot(format!("{at}: a name"))?;
            }
            match message.role {
                Role::Assistant => self.assistant(&message.content, &at, &mut items)?,
                Role::Tool => self.results(&message.content, &at, &mut items)?,
                Role::Developer if self.quirks.no_developer => {
                    items.push(self.message(Role::System, &message.content, &at)?);
                }
                role => items.push(self.message(role, &message.content, &at)?),
            }
        }
        Ok(items)
    }

    fn message<'a>(&mut self, role: Role, parts: &'a [Part], at: &str) -> Result<Item<'a>, Refused> {
        Ok(Item::Message {
            role: role.as_str(),
            content: self.contents(parts, at)?,
        })
    }

    fn contents<'a>(&mut self, parts: &'a [Part], at: &str) -> Result<Vec<Content<'a>>, Refused> {
        let mut contents = Vec::with_capacity(parts.len());
        for part in parts {
            match content(part) {
                Ok(content) => contents.push(content),
                Err(what) => self.losses.cannot(format!("{at}: {what}"))?,
            }
        }
        Ok(contents)
    }

    fn assistant<'a>(&mut self, parts: &'a [Part], at: &str, items: &mut Vec<Item<'a>>) -> Result<(), Refused> {
        for part in parts {
            let item = match part {
                Part::Text { text, citations, .. } => {
                    let content = Content::OutputText {
                        text,
                        annotations: annotations(text, citations),
                    };
                    say(items, content);
                    continue;
                }
                Part::Refusal { text } => {
                    say(items, Content::Refusal { refusal: text });
                    continue;
                }
                Part::Reasoning { text, signature } => match signature.as_deref().and_then(sealed::own) {
                    Some((id, encrypted_content)) => Item::Reasoning {
                        id,
                        summary: summary(text),
                        encrypted_content,
                    },
                    None => continue,
                },
                Part::RedactedReasoning { .. } => continue,
                Part::ToolCall {
                    id, name, arguments, ..
                } => Item::FunctionCall {
                    call_id: self.call_ids.wire(id, CALL_ID),
                    name: self.names.wire(name, NAME),
                    arguments,
                },
                Part::Image { .. } | Part::Audio { .. } | Part::File { .. } | Part::ToolResult { .. } => {
                    let what = "an image, a sound, a file or a tool's answer in an assistant's turn";
                    self.losses.cannot(format!("{at}: {what}"))?;
                    continue;
                }
            };
            items.push(item);
        }
        // OpenAI refuses reasoning that nothing follows, as an answer that was cut short leaves it.
        while matches!(items.last(), Some(Item::Reasoning { .. })) {
            items.pop();
        }
        Ok(())
    }

    fn results<'a>(&mut self, parts: &'a [Part], at: &str, items: &mut Vec<Item<'a>>) -> Result<(), Refused> {
        for part in parts {
            let Part::ToolResult { call_id, content, .. } = part else {
                self.losses
                    .cannot(format!("{at}: something else than a tool's answer"))?;
                continue;
            };
            let output = match content.as_slice() {
                [] => Output::Text(""),
                [Part::Text { text, .. }] => Output::Text(text),
                parts => Output::Parts(self.contents(parts, at)?),
            };
            items.push(Item::FunctionCallOutput {
                call_id: self.call_ids.wire(call_id, CALL_ID),
                output,
            });
        }
        Ok(())
    }

    /// Functions are strict here unless they say otherwise, and everywhere else the other way round.
    fn tool(&mut self, tool: &Tool) -> Value {
        let parameters = if tool.parameters.is_empty() {
            json!({ "type": "object", "properties": {} })
        } else {
            json!(tool.parameters)
        };
        let mut function = json!({
            "type": "function",
            "name": self.names.wire(&tool.name, NAME),
            "parameters": parameters,
            "strict": tool.strict.unwrap_or_default(),
        });
        if let (Some(description), Some(fields)) = (&tool.description, function.as_object_mut()) {
            fields.insert("description".to_owned(), json!(description));
        }
        function
    }

    fn tool_choice(&mut self, choice: &ToolChoice) -> Value {
        match choice {
            ToolChoice::Named(name) => {
                let wire = self.names.wire(name, NAME);
                answer::tool_choice(Some(&ToolChoice::Named(wire)))
            }
            plain => answer::tool_choice(Some(plain)),
        }
    }

    fn text(&mut self, format: Option<&ResponseFormat>) -> Result<Option<Value>, Refused> {
        let format = match format {
            None => return Ok(None),
            Some(ResponseFormat::Text) => json!({ "type": "text" }),
            Some(ResponseFormat::JsonObject) => json!({ "type": "json_object" }),
            Some(ResponseFormat::JsonSchema { .. }) if self.quirks.no_json_schema => {
                self.losses.cannot("a JSON schema of the answer")?;
                return Ok(None);
            }
            Some(ResponseFormat::JsonSchema {
                name,
                description,
                schema,
                strict,
            }) => {
                let name = Names::default().wire(name, NAME);
                let mut format = json!({ "type": "json_schema", "name": name, "schema": schema });
                if let Some(fields) = format.as_object_mut() {
                    fields.extend(description.iter().map(|text| ("description".to_owned(), json!(text))));
                    fields.extend(strict.iter().map(|strict| ("strict".to_owned(), json!(strict))));
                }
                format
            }
        };
        Ok(Some(json!({ "format": format })))
    }
}

/// Adds to the assistant's message that is being written, or begins one.
fn say<'a>(items: &mut Vec<Item<'a>>, content: Content<'a>) {
    match items.last_mut() {
        Some(Item::Message { role, content: said }) if *role == Role::Assistant.as_str() => said.push(content),
        _ => items.push(Item::Message {
            role: Role::Assistant.as_str(),
            content: vec![content],
        }),
    }
}

fn summary(text: &str) -> Vec<Summary<'_>> {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![Summary::SummaryText { text }]
    }
}

fn annotations(text: &str, citations: &[Citation]) -> Vec<Value> {
    let length = text.chars().count() as u64;
    citations.iter().map(|said| citation::write(said, length)).collect()
}

/// A part of a turn that is not the assistant's, or what it is that cannot be said.
fn content(part: &Part) -> Result<Content<'_>, &'static str> {
    Ok(match part {
        Part::Text { text, .. } => Content::InputText { text },
        Part::Image { media, detail, .. } => {
            let (image_url, file_id) = match media {
                Media::Uploaded { id } => (None, Some(id.as_str())),
                Media::Url { url, .. } => (Some(Url::Address(url)), None),
                Media::Inline { media_type, data } => (Some(Url::Inline { media_type, data }), None),
            };
            Content::InputImage {
                image_url,
                file_id,
                detail: detail.as_deref(),
            }
        }
        Part::File { media, filename, .. } => file(media, filename.as_deref()),
        Part::Audio { .. } => return Err("a sound"),
        Part::Refusal { .. }
        | Part::Reasoning { .. }
        | Part::RedactedReasoning { .. }
        | Part::ToolCall { .. }
        | Part::ToolResult { .. } => return Err("a part where it cannot be"),
    })
}

/// Data must have a name; an address or an id must not.
fn file<'a>(media: &'a Media, filename: Option<&'a str>) -> Content<'a> {
    let (file_data, file_url, file_id, filename) = match media {
        Media::Uploaded { id } => (None, None, Some(id.as_str()), None),
        Media::Url { url, .. } => (None, Some(url.as_str()), None, None),
        Media::Inline { media_type, data } => {
            let name = filename.unwrap_or(match media_type.as_str() {
                "text/plain" => "file.txt",
                "text/markdown" => "file.md",
                "text/csv" => "file.csv",
                "text/html" => "file.html",
                "application/json" => "file.json",
                _ => "file.pdf",
            });
            (Some(Url::Inline { media_type, data }), None, None, Some(name))
        }
    };
    Content::InputFile {
        file_data,
        file_url,
        file_id,
        filename,
    }
}
