//! Walking the tree: each step knows where it is and where to report.
//!
//! A reader that meets a mistake reports it and goes on with a default or without the entry. That is sound because one
//! reported mistake is enough for the whole configuration to be refused.

use std::{cell::RefCell, collections::HashMap, ops::RangeInclusive, time::Duration};

use crate::{
    Mistake,
    mistake::{quoted, suggestion},
    value,
    yaml::{Node, Place, Value},
};

/// Where mistakes are collected.
#[derive(Debug)]
pub(crate) struct Sink {
    source: String,
    mistakes: RefCell<Vec<Mistake>>,
}

impl Sink {
    pub(crate) fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            mistakes: RefCell::default(),
        }
    }

    pub(crate) fn add(&self, place: Place, path: &str, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake {
            source: self.source.clone(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// What was reported, in the order of the file.
    pub(crate) fn into_sorted(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        mistakes
    }
}

/// A node, the path that leads to it, and where to report what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    node: &'a Node,
    path: String,
    sink: &'a Sink,
}

impl<'a> Cursor<'a> {
    pub(crate) fn root(node: &'a Node, sink: &'a Sink) -> Self {
        Self {
            node,
            path: String::new(),
            sink,
        }
    }

    pub(crate) fn line(&self) -> usize {
        self.node.place.line
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.oddity.is_none() && matches!(self.node.value, Value::Null)
    }

    pub(crate) fn mistake(&self, message: impl Into<String>) {
        self.sink.add(self.node.place, &self.path, message);
    }

    fn unexpected(&self, expected: &str) {
        match self.node.oddity {
            Some(oddity) => self.mistake(oddity),
            None if self.is_null() => self.mistake("has no value"),
            None => self.mistake(format!("expected {expected}, found {}", self.node.value.kind())),
        }
    }

    /// A single value, as written.
    pub(crate) fn text(&self, expected: &str) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar(text) if self.node.oddity.is_none() => Some(text),
            _ => {
                self.unexpected(expected);
                None
            }
        }
    }

    /// A single value read by one of [`value`]'s functions or the like, whose error is the message.
    pub(crate) fn parse<T, M: Into<String>>(&self, read: impl FnOnce(&str) -> Result<T, M>) -> Option<T> {
        match read(self.text("a single value")?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistake(message);
                None
            }
        }
    }

    /// A whole number.
    pub(crate) fn count<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        self.parse(|text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.and_then(|number| T::try_from(number).ok()).ok_or(expected)
        })
    }

    /// A size in bytes.
    pub(crate) fn size(&self, range: RangeInclusive<usize>) -> Option<usize> {
        self.parse(|text| match value::size(text)? {
            size if range.contains(&size) => Ok(size),
            _ => Err(format!(
                "out of range, expected a size from {} to {}",
                value::size_text(*range.start()),
                value::size_text(*range.end())
            )),
        })
    }

    /// A length of time that is neither nothing nor for ever.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.parse(value::duration)
    }

    /// The keys and values of a mapping.
    pub(crate) fn fields(&self) -> Option<Fields<'a>> {
        match &self.node.value {
            Value::Map(entries) if self.node.oddity.is_none() => Some(Fields::new(self, entries)),
            _ => {
                self.unexpected("a mapping");
                None
            }
        }
    }

    /// The entries of a list; none when nothing is there.
    pub(crate) fn items(&self) -> Option<Vec<Cursor<'a>>> {
        match &self.node.value {
            Value::List(items) if self.node.oddity.is_none() => {
                let item = |(index, node)| Cursor {
                    node,
                    path: format!("{}[{index}]", self.path),
                    sink: self.sink,
                };
                Some(items.iter().enumerate().map(item).collect())
            }
            Value::Null if self.node.oddity.is_none() => Some(Vec::new()),
            _ => {
                self.unexpected("a list");
                None
            }
        }
    }
}

/// A key of a mapping, and its value.
#[derive(Debug)]
struct Field<'a> {
    name: &'a str,
    key: Cursor<'a>,
    value: Cursor<'a>,
}

/// The keys of a mapping that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// The mapping itself; none when the file does not have it, and all keys are absent.
    mapping: Option<Cursor<'a>>,
    unread: Vec<Field<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// A mapping that is not in the file.
    pub(crate) fn absent() -> Self {
        Self {
            mapping: None,
            unread: Vec::new(),
            known: Vec::new(),
        }
    }

    fn new(mapping: &Cursor<'a>, entries: &'a [(Node, Node)]) -> Self {
        let mut unread = Vec::with_capacity(entries.len());
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (key, value) in entries {
            let mut key = Cursor {
                node: key,
                path: mapping.path.clone(),
                sink: mapping.sink,
            };
            let Some(name) = key.text("a name as key") else {
                continue;
            };
            key.path = joined(&mapping.path, name);
            if let Some(line) = lines.insert(name, key.line()) {
                key.mistake(format!("given twice, first in line {line}"));
                lines.insert(name, line);
                continue;
            }
            let value = Cursor {
                node: value,
                path: key.path.clone(),
                sink: mapping.sink,
            };
            unread.push(Field { name, key, value });
        }
        Self {
            mapping: Some(mapping.clone()),
            unread,
            known: Vec::new(),
        }
    }

    /// A key's value, if the key is there, without reading it.
    pub(crate) fn peek(&self, name: &str) -> Option<Cursor<'a>> {
        self.unread
            .iter()
            .find(|field| field.name == name)
            .map(|field| field.value.clone())
    }

    fn take(&mut self, name: &'static str) -> Option<Cursor<'a>> {
        self.known.push(name);
        let index = self.unread.iter().position(|field| field.name == name)?;
        Some(self.unread.swap_remove(index).value)
    }

    /// A key that may be left out.
    pub(crate) fn optional<T>(&mut self, name: &'static str, read: impl FnOnce(&Cursor<'a>) -> Option<T>) -> Option<T> {
        read(&self.take(name)?)
    }

    /// A key with a default.
    pub(crate) fn value<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&Cursor<'a>) -> Option<T>,
    ) -> T {
        self.optional(name, read).unwrap_or(default)
    }

    /// A key that must be there.
    pub(crate) fn required<T>(&mut self, name: &'static str, read: impl FnOnce(&Cursor<'a>) -> Option<T>) -> Option<T> {
        match self.take(name) {
            Some(value) => read(&value),
            None => {
                if let Some(mapping) = &self.mapping {
                    mapping
                        .sink
                        .add(mapping.node.place, &joined(&mapping.path, name), "missing");
                }
                None
            }
        }
    }

    /// A mapping whose keys all have defaults.
    pub(crate) fn section(&mut self, name: &'static str) -> Fields<'a> {
        let section = self.optional(name, |at| if at.is_null() { None } else { at.fields() });
        section.unwrap_or_else(Fields::absent)
    }

    /// A list that may be left out; each entry that `read` accepts.
    pub(crate) fn list<T>(&mut self, name: &'static str, read: impl FnMut(Cursor<'a>) -> Option<T>) -> Vec<T> {
        self.optional(name, Cursor::items)
            .unwrap_or_default()
            .into_iter()
            .filter_map(read)
            .collect()
    }

    /// All that is left, for a mapping whose keys are free: where the key is, its text, and its value.
    pub(crate) fn rest(self) -> impl Iterator<Item = (Cursor<'a>, &'a str, Cursor<'a>)> {
        self.unread
            .into_iter()
            .map(|field| (field.key, field.name, field.value))
    }

    /// Reports the keys that nobody read.
    pub(crate) fn finish(self) {
        for field in &self.unread {
            let near = suggestion(field.name, self.known.iter().copied());
            if near.is_empty() {
                field
                    .key
                    .mistake(format!("unknown key, expected one of {}", self.known.join(", ")));
            } else {
                field.key.mistake(format!("unknown key{near}"));
            }
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match (path, plain && !name.is_empty() && name.len() <= 64) {
        ("", true) => name.to_owned(),
        (_, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{}]", quoted(name)),
    }
}
