//! What a client's request asks for beside its input.

use serde_json::{Map, Value, json};
use tollgate_types::chat::{Effort, Reasoning, ResponseFormat, Tool, ToolChoice};

use super::take::{Object, plain};
use crate::Invalid;

/// The functions among `tools`; tools of other kinds are named in `beyond`.
pub(super) fn tools(request: &mut Object, beyond: &mut Vec<String>) -> Result<Vec<Tool>, Invalid> {
    let mut tools = Vec::new();
    for (index, tool) in request.array("tools")?.into_iter().enumerate() {
        let mut tool = Object::new(tool, format!("tools[{index}]"))?;
        match tool.required_text("type")?.as_str() {
            "function" => {}
            kind => {
                beyond.push(format!("{}: type {}", tool.at(), plain(kind)));
                continue;
            }
        }
        tools.push(Tool {
            name: tool.required_text("name")?,
            description: tool.text("description")?,
            parameters: tool.map("parameters")?.unwrap_or_default(),
            strict: tool.flag("strict")?,
            cache: None,
        });
        tool.take_default("allowed_callers", &json!(["direct"]));
        for field in ["async", "defer_loading"] {
            tool.take_default(field, &json!(false));
        }
        tool.rest(&[], beyond);
    }
    Ok(tools)
}

pub(super) fn tool_choice(request: &mut Object, beyond: &mut Vec<String>) -> Result<Option<ToolChoice>, Invalid> {
    let fields = match request.take("tool_choice") {
        None => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(Value::String(word)) => {
            let choice = match word.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                _ => return Err(request.wrong("tool_choice", "auto, none, required or an object")),
            };
            return Ok(Some(choice));
        }
        Some(_) => return Err(request.wrong("tool_choice", "a string or an object")),
    };
    let mut choice = Object::new(fields.into(), "tool_choice".to_owned())?;
    match choice.required_text("type")?.as_str() {
        "function" => {
            let name = choice.required_text("name")?;
            choice.rest(&[], beyond);
            Ok(Some(ToolChoice::Named(name)))
        }
        kind => {
            beyond.push(format!("tool_choice: type {}", plain(kind)));
            Ok(None)
        }
    }
}

/// `text.format`. A verbosity other than the usual goes beyond.
pub(super) fn format(request: &mut Object, beyond: &mut Vec<String>) -> Result<Option<ResponseFormat>, Invalid> {
    let Some(mut text) = request.object("text")? else {
        return Ok(None);
    };
    text.take_default("verbosity", &json!("medium"));
    let read = match text.object("format")? {
        None => None,
        Some(mut format) => {
            let kind = format.required_text("type")?;
            let read = match kind.as_str() {
                "text" => Some(ResponseFormat::Text),
                "json_object" => Some(ResponseFormat::JsonObject),
                "json_schema" => Some(ResponseFormat::JsonSchema {
                    name: format.required_text("name")?,
                    description: format.text("description")?,
                    schema: format
                        .map("schema")?
                        .ok_or_else(|| format.wrong("schema", "an object"))?,
                    strict: format.flag("strict")?,
                }),
                kind => {
                    beyond.push(format!("text.format: type {}", plain(kind)));
                    None
                }
            };
            if read.is_some() {
                format.rest(&[], beyond);
            }
            read
        }
    };
    text.rest(&[], beyond);
    Ok(read)
}

/// What is asked of the reasoning. A summary is how this dialect shows it; how long that is to be stays the provider's.
pub(super) fn reasoning(request: &mut Object, beyond: &mut Vec<String>) -> Result<Option<Reasoning>, Invalid> {
    let Some(mut fields) = request.object("reasoning")? else {
        return Ok(None);
    };
    let effort = fields
        .text("effort")?
        .map(|word| {
            word.parse::<Effort>()
                .map_err(|error| fields.wrong("effort", says(&error.to_string())))
        })
        .transpose()?;
    let older = fields.text("generate_summary")?;
    let summary = fields.text("summary")?.or(older);
    fields.take_default("context", &json!("auto"));
    fields.take_default("mode", &json!("standard"));
    fields.rest(&[], beyond);
    let shown = summary.map(|_| true);
    Ok((effort.is_some() || shown.is_some()).then_some(Reasoning {
        effort,
        budget_tokens: None,
        shown,
    }))
}

fn says(error: &str) -> &str {
    error.strip_prefix("expected ").unwrap_or(error)
}

/// More output that may be asked for and comes only with tools of other kinds, which are beyond by themselves, or that
/// every answer has.
const NEEDLESS: [&str; 7] = [
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// Whether log-probabilities are asked for, and with how many alternatives.
pub(super) fn logprobs(request: &mut Object, beyond: &mut Vec<String>) -> Result<Option<u32>, Invalid> {
    let mut asked = false;
    for included in request.array("include")? {
        match included.as_str() {
            Some("message.output_text.logprobs") => asked = true,
            Some(name) if NEEDLESS.contains(&name) => {}
            Some(name) => beyond.push(format!("include: {}", plain(name))),
            None => return Err(request.wrong("include", "an array of strings")),
        }
    }
    let top = request.count("top_logprobs")?.unwrap_or_default();
    let top = u32::try_from(top).map_err(|_| request.wrong("top_logprobs", "a number from 0 to 20"))?;
    Ok((asked || top > 0).then_some(top))
}

/// `prompt_cache_options` only steer the cache, but for one that wants no answer.
pub(super) fn cache_options(request: &mut Object, beyond: &mut Vec<String>) -> Result<(), Invalid> {
    let options: Map<String, Value> = request.map("prompt_cache_options")?.unwrap_or_default();
    if options.get("prewarm") == Some(&Value::Bool(true)) {
        beyond.push("prompt_cache_options.prewarm".to_owned());
    }
    Ok(())
}
