//! YAML text as a tree of nodes that know their place.
//!
//! Built from the parser's events, and not by a ready-made loader, for two reasons: those recurse, so that a deeply nested
//! file overflows the stack, and they stop at a duplicate key or drop it, where we report it like any other mistake.
//! Anchors, aliases and tags are kept as oddities for the walk to report; nothing is ever expanded.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// Nodes inside one another; the schema needs six.
const MAX_DEPTH: usize = 16;

const ANCHOR: &str = "anchors and aliases are not supported, write the value out";
const TAG: &str = "YAML tags are not supported, put text in quotes instead";

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<Marker> for Place {
    fn from(marker: Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// A value and where it begins.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    /// What is unusual, and not allowed, about how the value is written.
    pub(crate) oddity: Option<&'static str>,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    /// As written: a number stays the digits that it was written with, until a field of a known type reads it.
    Scalar(String),
    List(Vec<Node>),
    /// Keys with their values, in order, duplicates included.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// The kind of value, for `expected …, found …`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why a text is not a tree.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) place: Place,
    pub(crate) message: String,
}

impl Flaw {
    fn new(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

/// Reads a text of one document; nothing when it is empty.
pub(crate) fn read(text: &str) -> Result<Option<Node>, Flaw> {
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| Flaw::new(*error.marker(), format!("not valid YAML: {}", error.info())))?;
        let place = Place::from(span.start);
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Flaw::new(place, "a second document begins here, only one is allowed"));
                }
            }
            Event::Alias(_) => builder.add(place, Some(ANCHOR), Value::Null),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text.into_owned(), style);
                builder.add(place, oddity(anchor, tag.is_some()), value);
            }
            Event::SequenceStart(anchor, tag) => {
                builder.open(place, oddity(anchor, tag.is_some()), Open::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                builder.open(place, oddity(anchor, tag.is_some()), Open::Map(Vec::new(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    Ok(builder.root)
}

fn oddity(anchor: usize, tagged: bool) -> Option<&'static str> {
    // The parser numbers anchors from 1.
    if anchor > 0 {
        Some(ANCHOR)
    } else {
        tagged.then_some(TAG)
    }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let null = matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
    if style == ScalarStyle::Plain && null {
        Value::Null
    } else {
        Value::Scalar(text)
    }
}

/// A list or mapping whose end has not come yet.
enum Open {
    List(Vec<Node>),
    /// With the key whose value has not come yet.
    Map(Vec<(Node, Node)>, Option<Node>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Place, Option<&'static str>, Open)>,
    root: Option<Node>,
}

impl Builder {
    fn open(&mut self, place: Place, oddity: Option<&'static str>, open: Open) -> Result<(), Flaw> {
        if self.open.len() == MAX_DEPTH {
            return Err(Flaw::new(place, format!("nested more than {MAX_DEPTH} deep")));
        }
        self.open.push((place, oddity, open));
        Ok(())
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some((place, oddity, Open::List(items))) => self.add(place, oddity, Value::List(items)),
            Some((place, oddity, Open::Map(entries, _))) => self.add(place, oddity, Value::Map(entries)),
            None => {}
        }
    }

    fn add(&mut self, place: Place, oddity: Option<&'static str>, value: Value) {
        let mut node = Node { place, oddity, value };
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((_, _, Open::List(items))) => items.push(node),
            Some((_, _, Open::Map(entries, pending))) => match pending.take() {
                None => *pending = Some(node),
                Some(key) => {
                    // The parser places a value that is not there at whatever follows.
                    if matches!(node.value, Value::Null) && node.oddity.is_none() {
                        node.place = key.place;
                    }
                    entries.push((key, node));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_their_places() {
        let Some(Node {
            value: Value::Map(entries),
            ..
        }) = read("# top\na:\n  b: 1\nc:\n- x\n").unwrap()
        else {
            panic!("a mapping");
        };
        assert_eq!(entries[0].0.place, Place { line: 2, column: 1 });
        assert_eq!(entries[0].1.place, Place { line: 3, column: 3 });
        let Value::List(items) = &entries[1].1.value else {
            panic!("a list")
        };
        assert_eq!(items[0].place, Place { line: 5, column: 3 });
    }

    #[test]
    fn depth_is_limited_before_the_stack_is() {
        for deep in [
            "[".repeat(500_000),
            "- ".repeat(500_000),
            "? ".repeat(500_000),
            "{a: ".repeat(250_000),
        ] {
            assert!(read(&deep).is_err());
        }
        let indented: String = (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert_eq!(read(&indented).unwrap_err().message, "nested more than 16 deep");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(read("").unwrap().is_none());
        assert!(read("# only a comment\n").unwrap().is_none());
        assert!(matches!(read("---\n").unwrap(), Some(Node { value: Value::Null, .. })));
    }
}
