//! Tools, the choice among them, and the format of the answer.

use serde_json::{Map, Value};

use crate::check::{Object, long_array, name, not_supported, wrong_type};
use crate::{
    ask::{Form, Tool},
    error::ApiError,
};

const MOST_TOOLS: usize = 128;

/// The request's tools and the choice among them.
#[derive(Default)]
pub(super) struct Tools {
    pub(super) offered: Vec<Tool>,
    /// The tool the answer has to call: the one the request names, or the first it offers.
    pub(super) forced: Option<Tool>,
    pub(super) none: bool,
}

/// Reads the tools and the choice among them.
pub(super) fn read(request: &Object<'_>) -> Result<Tools, ApiError> {
    let offered = offered(request)?;
    let Some(choice) = request.get("tool_choice") else {
        return Ok(Tools {
            offered,
            ..Tools::default()
        });
    };
    if offered.is_empty() {
        return Err(only_with_tools("tool_choice"));
    }
    let forced = match choice {
        Value::String(mode) => match mode.as_str() {
            "none" | "auto" => None,
            "required" => offered.first().cloned(),
            other => return Err(not_supported("tool_choice", other, &["none", "auto", "required"])),
        },
        Value::Object(map) => named(map, offered.clone())?,
        other => return Err(wrong_type("tool_choice", "one of a string or object", other)),
    };
    Ok(Tools {
        none: choice == "none",
        offered,
        forced,
    })
}

/// A choice that is an object: one tool by name, or a list of allowed ones.
fn named(map: &Map<String, Value>, tools: Vec<Tool>) -> Result<Option<Tool>, ApiError> {
    let choice = Object {
        map,
        path: "tool_choice",
    };
    let kind = choice.choice("type", &["function", "custom", "allowed_tools"])?;
    choice.only(&["type", kind])?;
    let inner_path = choice.path_of(kind);
    let inner = Object::of(choice.required(kind)?, &inner_path)?;
    if kind != "allowed_tools" {
        inner.only(&["name"])?;
        return find(inner.string("name")?, tools).map(Some);
    }
    inner.only(&["mode", "tools"])?;
    let mode = inner.choice("mode", &["auto", "required"])?;
    inner.required("tools")?;
    let list = inner.maybe_filled_array("tools")?.map_or(&[][..], Vec::as_slice);
    let mut first = None;
    for (index, value) in list.iter().enumerate() {
        let path = format!("{inner_path}.tools[{index}]");
        let tool = Object::of(value, &path)?;
        let kind = tool.choice("type", &["function", "custom"])?;
        let path = tool.path_of(kind);
        let wanted = Object::of(tool.required(kind)?, &path)?.string("name")?;
        let found = find(wanted, tools.clone())?;
        first.get_or_insert(found);
    }
    Ok(first.filter(|_| mode == "required"))
}

fn find(wanted: &str, tools: Vec<Tool>) -> Result<Tool, ApiError> {
    tools.into_iter().find(|tool| tool.name == wanted).ok_or_else(|| {
        ApiError::invalid(format!("Tool choice '{wanted}' not found in 'tools' parameter.")).param("tool_choice")
    })
}

/// The tools of the request, checked; empty if there are none.
fn offered(request: &Object<'_>) -> Result<Vec<Tool>, ApiError> {
    let Some(list) = request.maybe_filled_array("tools")? else {
        if request.maybe_bool("parallel_tool_calls")?.is_some() {
            return Err(only_with_tools("parallel_tool_calls"));
        }
        return Ok(Vec::new());
    };
    if list.len() > MOST_TOOLS {
        return Err(long_array("tools", MOST_TOOLS, list.len()));
    }
    request.maybe_bool("parallel_tool_calls")?;
    list.iter()
        .enumerate()
        .map(|(index, value)| tool(value, &format!("tools[{index}]")))
        .collect()
}

fn tool(value: &Value, path: &str) -> Result<Tool, ApiError> {
    let tool = Object::of(value, path)?;
    let kind = tool.choice("type", &["function", "custom"])?;
    tool.only(&["type", kind])?;
    let inner_path = tool.path_of(kind);
    let inner = Object::of(tool.required(kind)?, &inner_path)?;
    inner.maybe_string("description")?;
    if kind == "custom" {
        inner.only(&["name", "description", "format"])?;
        return Ok(Tool {
            name: name(&inner)?,
            parameters: None,
        });
    }
    inner.only(&["name", "description", "parameters", "strict"])?;
    inner.maybe_bool("strict")?;
    let parameters = inner
        .get("parameters")
        .cloned()
        .unwrap_or_else(|| Value::Object(Map::new()));
    if let Value::Object(schema) = &parameters {
        // The service wants an object schema: arguments are always an object.
        let kind = schema.get("type").and_then(Value::as_str);
        if kind.is_some_and(|kind| kind != "object") {
            let name = inner.string("name")?;
            return Err(ApiError::invalid(format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"', got \
                 'type: \"{}\"'.",
                kind.unwrap_or_default()
            ))
            .param(inner.path_of("parameters"))
            .code("invalid_function_parameters"));
        }
    } else {
        return Err(wrong_type(&inner.path_of("parameters"), "an object", &parameters));
    }
    Ok(Tool {
        name: name(&inner)?,
        parameters: Some(parameters),
    })
}

fn only_with_tools(field: &str) -> ApiError {
    ApiError::invalid(format!(
        "Invalid value for '{field}': '{field}' is only allowed when 'tools' are specified."
    ))
    .param(field)
}

/// The `response_format` of the request.
pub(crate) fn format(request: &Object<'_>) -> Result<Form, ApiError> {
    let Some(value) = request.get("response_format") else {
        return Ok(Form::Text);
    };
    let format = Object::of(value, "response_format")?;
    match format.choice("type", &["json_object", "json_schema", "text"])? {
        "json_schema" => {
            format.only(&["type", "json_schema"])?;
            let inner = Object::of(format.required("json_schema")?, "response_format.json_schema")?;
            inner.only(&["name", "description", "schema", "strict"])?;
            name(&inner)?;
            inner.maybe_string("description")?;
            inner.maybe_bool("strict")?;
            let schema = inner
                .get("schema")
                .cloned()
                .unwrap_or_else(|| Value::Object(Map::new()));
            Object::of(&schema, "response_format.json_schema.schema")?;
            Ok(Form::Schema(schema))
        }
        kind => {
            format.only(&["type"])?;
            Ok(if kind == "text" { Form::Text } else { Form::Object })
        }
    }
}
