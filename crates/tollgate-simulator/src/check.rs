//! Reading fields of a request with the real service's complaints about them.
//!
//! An [`Object`] knows its path, so that every error can name the place as the service does
//! (`messages[0].content[1].type`).

use serde_json::{Map, Value};

use crate::error::ApiError;

/// An optional field: `null` counts as absent.
pub(crate) type Maybe<T> = Result<Option<T>, ApiError>;

/// A JSON object and where it stands in the request; the empty path is the request itself.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    pub(crate) map: &'a Map<String, Value>,
    pub(crate) path: &'a str,
}

impl<'a> Object<'a> {
    /// Reads a value as an object.
    pub(crate) fn of(value: &'a Value, path: &'a str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// The path of a field of this object.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The field, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Refuses fields that are not in the list.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) if self.path.is_empty() => Err(ApiError::invalid(format!(
                "Unrecognized request argument supplied: {key}"
            ))),
            Some(key) => {
                let path = self.path_of(key);
                Err(ApiError::invalid(format!("Unknown parameter: '{path}'."))
                    .param(path)
                    .code("unknown_parameter"))
            }
        }
    }

    pub(crate) fn required(&self, key: &str) -> Result<&'a Value, ApiError> {
        self.get(key).ok_or_else(|| {
            let path = self.path_of(key);
            ApiError::invalid(format!("Missing required parameter: '{path}'."))
                .param(path)
                .code("missing_required_parameter")
        })
    }

    pub(crate) fn string(&self, key: &str) -> Result<&'a str, ApiError> {
        let value = self.required(key)?;
        value
            .as_str()
            .ok_or_else(|| wrong_type(&self.path_of(key), "a string", value))
    }

    pub(crate) fn maybe_string(&self, key: &str) -> Maybe<&'a str> {
        self.get(key).map(|_| self.string(key)).transpose()
    }

    pub(crate) fn maybe_bool(&self, key: &str) -> Maybe<bool> {
        self.maybe(key, "a boolean", Value::as_bool)
    }

    pub(crate) fn maybe_array(&self, key: &str) -> Maybe<&'a Vec<Value>> {
        self.maybe(key, "an array", Value::as_array)
    }

    /// An array with at least one element.
    pub(crate) fn maybe_filled_array(&self, key: &str) -> Maybe<&'a Vec<Value>> {
        match self.maybe_array(key)? {
            Some(array) if array.is_empty() => Err(empty_array(&self.path_of(key))),
            other => Ok(other),
        }
    }

    /// A string out of a closed list.
    pub(crate) fn maybe_choice(&self, key: &str, choices: &[&str]) -> Maybe<&'a str> {
        match self.maybe_string(key)? {
            Some(value) if !choices.contains(&value) => Err(not_supported(&self.path_of(key), value, choices)),
            other => Ok(other),
        }
    }

    pub(crate) fn choice(&self, key: &str, choices: &[&str]) -> Result<&'a str, ApiError> {
        self.required(key)?;
        let value = self.string(key)?;
        self.maybe_choice(key, choices)?;
        Ok(value)
    }

    /// A number within bounds, both included.
    pub(crate) fn maybe_decimal(&self, key: &str, low: f64, high: f64) -> Maybe<f64> {
        let Some(value) = self.maybe(key, "a decimal", Value::as_f64)? else {
            return Ok(None);
        };
        if value < low {
            return Err(self.out_of_range(key, "decimal", "below minimum", ">=", low, value));
        }
        if value > high {
            return Err(self.out_of_range(key, "decimal", "above maximum", "<=", high, value));
        }
        Ok(Some(value))
    }

    /// A whole number within bounds, both included.
    pub(crate) fn maybe_integer(&self, key: &str, low: i64, high: i64) -> Maybe<i64> {
        let Some(value) = self.maybe(key, "an integer", Value::as_i64)? else {
            return Ok(None);
        };
        if value < low {
            return Err(self.out_of_range(key, "integer", "below minimum", ">=", low, value));
        }
        if value > high {
            return Err(self.out_of_range(key, "integer", "above maximum", "<=", high, value));
        }
        Ok(Some(value))
    }

    fn maybe<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Maybe<T> {
        self.get(key)
            .map(|value| read(value).ok_or_else(|| wrong_type(&self.path_of(key), expected, value)))
            .transpose()
    }

    fn out_of_range(
        &self,
        key: &str,
        kind: &str,
        side: &str,
        sign: &str,
        bound: impl std::fmt::Display,
        value: impl std::fmt::Display,
    ) -> ApiError {
        let path = self.path_of(key);
        let code = match (kind, side) {
            ("decimal", "below minimum") => "decimal_below_min_value",
            ("decimal", _) => "decimal_above_max_value",
            (_, "below minimum") => "integer_below_min_value",
            _ => "integer_above_max_value",
        };
        ApiError::invalid(format!(
            "Invalid '{path}': {kind} {side} value. Expected a value {sign} {bound}, but got {value} instead."
        ))
        .param(path)
        .code(code)
    }
}

pub(crate) fn wrong_type(path: &str, expected: &str, got: &Value) -> ApiError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::invalid(format!(
        "Invalid type for '{path}': expected {expected}, but got {got} instead."
    ))
    .param(path)
    .code("invalid_type")
}

pub(crate) fn empty_array(path: &str) -> ApiError {
    ApiError::invalid(format!(
        "Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    ))
    .param(path)
    .code("empty_array")
}

pub(crate) fn long_array(path: &str, most: usize, got: usize) -> ApiError {
    ApiError::invalid(format!(
        "Invalid '{path}': array too long. Expected an array with maximum length {most}, but got an array with length \
         {got} instead."
    ))
    .param(path)
    .code("array_above_max_length")
}

pub(crate) fn not_supported(path: &str, value: &str, choices: &[&str]) -> ApiError {
    let list: Vec<String> = choices.iter().map(|choice| format!("'{choice}'")).collect();
    let list = match list.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{}, and {last}", rest.join(", ")),
        one => one.join(""),
    };
    ApiError::invalid(format!("Invalid value: '{value}'. Supported values are: {list}."))
        .param(path)
        .code("invalid_value")
}

/// Names of tools and schemas: `^[a-zA-Z0-9_-]{1,64}$`.
pub(crate) fn name(object: &Object<'_>) -> Result<String, ApiError> {
    let value = object.string("name")?;
    let path = object.path_of("name");
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        return Err(ApiError::invalid(format!(
            "Invalid '{path}': string does not match pattern. Expected a string that matches the pattern \
             '^[a-zA-Z0-9_-]+$'."
        ))
        .param(path)
        .code("invalid_value"));
    }
    if value.len() > 64 {
        return Err(ApiError::invalid(format!(
            "Invalid '{path}': string too long. Expected a string with maximum length 64, but got a string with \
             length {} instead.",
            value.len()
        ))
        .param(path)
        .code("string_above_max_length"));
    }
    Ok(value.to_owned())
}
