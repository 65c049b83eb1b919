//! Which schemas Bedrock's structured output takes.

use serde_json::{Map, Value};

/// Keywords that make Bedrock refuse a schema.
const REFUSED: [&str; 12] = [
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "patternProperties",
    "uniqueItems",
];

/// The schema as Bedrock takes it, in which no object has fields beside those that it names; an answer for it is one for
/// the original too. None when that is not so, or the schema says what Bedrock does not take.
pub(crate) fn closed(schema: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut schema = schema.clone();
    close(&mut schema).then_some(schema)
}

fn close(schema: &mut Map<String, Value>) -> bool {
    if REFUSED.iter().any(|keyword| schema.contains_key(*keyword)) {
        return false;
    }
    let is_object = schema.contains_key("properties")
        || match schema.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => false,
        };
    if is_object {
        let names_fields = matches!(schema.get("properties"), Some(Value::Object(fields)) if !fields.is_empty());
        match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => {}
            None if names_fields => {
                schema.insert("additionalProperties".to_owned(), false.into());
            }
            _ => return false,
        }
    }
    schema
        .iter_mut()
        .all(|(keyword, value)| match (keyword.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => schemas.values_mut().all(close_any),
            // Closed objects cannot be combined: each forbids the fields of the others.
            ("allOf", Value::Array(schemas)) => schemas.len() == 1 && schemas.iter_mut().all(close_any),
            ("anyOf" | "oneOf" | "prefixItems", Value::Array(schemas)) => schemas.iter_mut().all(close_any),
            ("items", schema) => close_any(schema),
            ("not" | "if", _) => false,
            _ => true,
        })
}

fn close_any(schema: &mut Value) -> bool {
    match schema {
        Value::Object(schema) => close(schema),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schema: Value) -> Option<Value> {
        closed(schema.as_object().unwrap()).map(Value::Object)
    }

    #[test]
    fn objects_that_name_their_fields_are_closed() {
        let schema = json!({
            "type": "object", "properties": {
                "properties": { "type": "string", "default": { "type": "object" } },
                "list": { "type": "array", "items": { "properties": { "a": {} } } } },
            "$defs": { "d": { "type": ["object", "null"], "properties": { "b": true }, "additionalProperties": false } }
        });
        let closed = of(schema).unwrap();
        assert_eq!(closed["additionalProperties"], false);
        assert_eq!(closed["properties"]["list"]["items"]["additionalProperties"], false);
        assert_eq!(
            closed["properties"]["properties"],
            json!({ "type": "string", "default": { "type": "object" } })
        );
    }

    #[test]
    fn what_cannot_be_closed_or_is_not_taken_is_told() {
        for schema in [
            json!({ "type": "object" }),
            json!({ "type": "object", "properties": {}, "additionalProperties": true }),
            json!({ "properties": { "a": { "type": "object", "additionalProperties": { "type": "string" } } } }),
            json!({ "type": "array", "items": { "type": "integer", "minimum": 1 } }),
            json!({ "allOf": [{ "properties": { "a": {} } }, { "properties": { "b": {} } }] }),
        ] {
            assert!(of(schema.clone()).is_none(), "{schema}");
        }
    }
}
