//! Tools, the choice between them, and the form of the answer.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use tollgate_types::chat::{self, ChatRequest, Part, ResponseFormat};

use super::{
    model::Model,
    schema::closed,
    turns::cache_point,
    wire::{InputSchema, Structure, TextFormat, Tool, ToolChoice, ToolConfig},
};
use crate::{
    Invalid, Refused,
    names::{Names, Rule},
    side::Losses,
};

/// What Converse allows in a tool's name.
pub(super) const NAME: Rule = Rule {
    also: "_-",
    longest: 64,
};

const ANSWER_NAME: &str = "answer";
const ANSWER_DESCRIPTION: &str = "Gives the answer to the user. Call it once, with the whole answer as its arguments.";

/// How the form that the answer must have is asked for.
pub(super) enum Form<'a> {
    Free,
    /// By Converse's own field.
    Native(TextFormat<'a>),
    /// By a tool whose arguments are the answer, for models or schemas that Converse's field is not for.
    Tool {
        description: Option<&'a str>,
        schema: Map<String, Value>,
    },
}

/// What is sent of tools.
#[derive(Default)]
pub(super) struct Tools<'a> {
    pub(super) config: Option<ToolConfig<'a>>,
    /// Claude's own field, which is merged with Converse's choice.
    pub(super) claude_choice: Option<Value>,
    /// The tool whose arguments are the answer, by its name on the wire.
    pub(super) answer: Option<String>,
}

pub(super) fn form<'a>(
    format: Option<&'a ResponseFormat>,
    model: Model,
    losses: &mut Losses,
) -> Result<Form<'a>, Refused> {
    let (name, description, schema) = match format {
        None | Some(ResponseFormat::Text) => return Ok(Form::Free),
        Some(ResponseFormat::JsonObject) => {
            let schema = Map::from_iter([("type".to_owned(), "object".into())]);
            return Ok(Form::Tool {
                description: None,
                schema,
            });
        }
        // Where Converse holds to schemas it always does, so `strict` has nothing to add.
        Some(ResponseFormat::JsonSchema {
            name,
            description,
            schema,
            strict: _,
        }) => (name, description.as_deref(), schema),
    };
    if model.holds_to_schemas()
        && let Some(schema) = closed(schema)
    {
        return Ok(Form::Native(TextFormat {
            kind: "json_schema",
            structure: Structure::JsonSchema {
                schema: Value::Object(schema).to_string(),
                name,
                description,
            },
        }));
    }
    let is_object = match schema.get("type") {
        Some(kind) => kind == "object",
        None => schema.contains_key("properties") || schema.is_empty(),
    };
    if !is_object {
        losses.cannot("response_format: a schema for something other than an object")?;
        return Ok(Form::Free);
    }
    Ok(Form::Tool {
        description,
        schema: parameters(schema).into_owned(),
    })
}

/// Whether the conversation has calls of tools, or their results: Converse then wants tools too.
fn has_history(request: &ChatRequest) -> bool {
    let mut parts = request.messages.iter().flat_map(|message| &message.content);
    parts.any(|part| matches!(part, Part::ToolCall { .. } | Part::ToolResult { .. }))
}

pub(super) fn write<'a>(
    request: &'a ChatRequest,
    model: Model,
    form: &Form<'a>,
    thinking: bool,
    names: &mut Names,
    losses: &mut Losses,
) -> Result<Tools<'a>, Refused> {
    // Converse cannot say that no tool may be called, so that none is offered.
    let offered = match request.tool_choice {
        Some(chat::ToolChoice::None) => &[][..],
        _ => &request.tools[..],
    };
    let mut choice = match &request.tool_choice {
        Some(chat::ToolChoice::Required | chat::ToolChoice::Named(_)) if offered.is_empty() => {
            return Err(Invalid::at("tool_choice", "a tool must be called, and there are no tools").into());
        }
        Some(chat::ToolChoice::Required) => Some(ToolChoice::Any {}),
        Some(chat::ToolChoice::Named(name)) => Some(ToolChoice::Tool {
            name: names.wire(name, NAME),
        }),
        Some(chat::ToolChoice::Auto | chat::ToolChoice::None) | None => None,
    };
    let mut tools = Vec::new();
    for (place, tool) in offered.iter().enumerate() {
        specify(tool, place, model, names, losses, &mut tools)?;
    }
    let claude_choice = one_at_a_time(request, !offered.is_empty(), model, losses)?;
    // Who must call a tool now is to give no answer yet.
    let answer = match form {
        Form::Tool { description, schema } if choice.is_none() => {
            let name = answer_name(request, names);
            tools.push(tool(
                name.clone(),
                description.unwrap_or(ANSWER_DESCRIPTION),
                schema.clone(),
            ));
            if !thinking && !model.thinks_unasked() {
                choice = Some(if offered.is_empty() {
                    ToolChoice::Tool { name: name.clone() }
                } else {
                    ToolChoice::Any {}
                });
            }
            Some(name)
        }
        _ => None,
    };
    if tools.is_empty() {
        if !has_history(request) {
            return Ok(Tools::default());
        }
        let name = names.wire("unavailable", NAME);
        tools.push(tool(name, "There are no tools now. Never call this.", Map::new()));
    }
    let claude_choice = claude_choice.map(|mut fields| {
        // Claude's field needs a type, which Converse gives it only with a choice of its own.
        if choice.is_none() {
            fields.insert("type".to_owned(), "auto".into());
        }
        fields.into()
    });
    Ok(Tools {
        config: Some(ToolConfig {
            tools,
            tool_choice: choice,
        }),
        claude_choice,
        answer,
    })
}

fn specify<'a>(
    tool: &'a chat::Tool,
    place: usize,
    model: Model,
    names: &mut Names,
    losses: &mut Losses,
    tools: &mut Vec<Tool<'a>>,
) -> Result<(), Refused> {
    let mut strict = tool.strict.filter(|strict| *strict);
    if strict.is_some() && !model.holds_to_schemas() {
        losses.cannot(format!("tools[{place}]: strict"))?;
        strict = None;
    }
    tools.push(Tool::ToolSpec {
        name: names.wire(&tool.name, NAME),
        description: tool.description.as_deref().filter(|text| !text.is_empty()),
        input_schema: InputSchema {
            json: parameters(&tool.parameters),
        },
        strict,
    });
    tools.extend(cache_point(tool.cache.as_ref(), model).map(Tool::CachePoint));
    Ok(())
}

fn tool(name: String, description: &str, schema: Map<String, Value>) -> Tool<'_> {
    Tool::ToolSpec {
        name,
        description: Some(description),
        input_schema: InputSchema {
            json: Cow::Owned(parameters(&schema).into_owned()),
        },
        strict: None,
    }
}

/// A name that no tool of the client has.
fn answer_name(request: &ChatRequest, names: &mut Names) -> String {
    let mut name = ANSWER_NAME.to_owned();
    while request.tools.iter().any(|tool| tool.name == name) {
        name.push('_');
    }
    names.wire(&name, NAME)
}

/// Converse wants a schema whose type is object.
fn parameters(schema: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
    if schema.contains_key("type") {
        return Cow::Borrowed(schema);
    }
    let mut whole = Map::new();
    whole.insert("type".to_owned(), "object".into());
    if !schema.contains_key("properties") {
        whole.insert("properties".to_owned(), json!({}));
    }
    whole.extend(schema.clone());
    Cow::Owned(whole)
}

/// That the model may call only one tool at a time.
fn one_at_a_time(
    request: &ChatRequest,
    has_tools: bool,
    model: Model,
    losses: &mut Losses,
) -> Result<Option<Map<String, Value>>, Refused> {
    if request.parallel_tool_calls != Some(false) || !has_tools {
        return Ok(None);
    }
    if !model.takes_one_call_at_a_time() {
        losses.cannot("parallel_tool_calls: false")?;
        return Ok(None);
    }
    Ok(Some(Map::from_iter([(
        "disable_parallel_tool_use".to_owned(),
        true.into(),
    )])))
}
