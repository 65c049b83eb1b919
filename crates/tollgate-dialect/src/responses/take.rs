//! JSON objects that are read field by field, so that what nobody took is known by name.

use serde_json::{Map, Value};

use crate::Invalid;

/// An object and where it is in the request.
pub(super) struct Object {
    fields: Map<String, Value>,
    at: String,
}

impl Object {
    /// The request itself.
    pub(super) const fn root(fields: Map<String, Value>) -> Self {
        Self {
            fields,
            at: String::new(),
        }
    }

    /// What is at `at`, which must be an object.
    pub(super) fn new(value: Value, at: String) -> Result<Self, Invalid> {
        match value {
            Value::Object(fields) => Ok(Self { fields, at }),
            _ => Err(Invalid::at(&at, format!("`{at}` must be an object"))),
        }
    }

    /// Where the object is.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// Where a field of it is.
    pub(super) fn path(&self, name: &str) -> String {
        if self.at.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at)
        }
    }

    /// Says that a field is not what it must be.
    pub(super) fn wrong(&self, name: &str, must_be: &str) -> Invalid {
        let param = self.path(name);
        let message = format!("`{param}` must be {must_be}");
        Invalid::at(param, message)
    }

    /// A field's value, unless it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Whether a field is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Invalid> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "a string"))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        self.take(name)
            .map(|value| {
                value
                    .as_u64()
                    .ok_or_else(|| self.wrong(name, "a positive whole number"))
            })
            .transpose()
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Invalid> {
        self.take(name)
            .map(|value| value.as_f64().ok_or_else(|| self.wrong(name, "a number")))
            .transpose()
    }

    pub(super) fn array(&mut self, name: &str) -> Result<Vec<Value>, Invalid> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.wrong(name, "an array")),
        }
    }

    pub(super) fn map(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    /// A field that is an object with fields of its own to take.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Invalid> {
        let at = self.path(name);
        Ok(self.map(name)?.map(|fields| Self { fields, at }))
    }

    /// Takes a field that says nothing when it has this value.
    pub(super) fn take_default(&mut self, name: &str, default: &Value) {
        if self.fields.get(name) == Some(default) {
            self.fields.shift_remove(name);
        }
    }

    /// Names every field that is left and asks for something: all but nulls and `hints`.
    pub(super) fn rest(self, hints: &[&str], beyond: &mut Vec<String>) {
        let left = self
            .fields
            .iter()
            .filter(|(name, value)| !value.is_null() && !hints.contains(&name.as_str()));
        beyond.extend(left.map(|(name, _)| self.path(&plain(name))));
    }
}

/// A word of the client's in a form that may be shown and logged: short, and nothing but a name.
pub(super) fn plain(word: &str) -> String {
    let known = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    word.chars().take(64).map(|c| if known(c) { c } else { '_' }).collect()
}
