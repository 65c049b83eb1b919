//! Writes a configuration: blocks of two levels, and below them JSON, which is YAML.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A section with a list of entries, each a mapping.
pub(super) fn list(out: &mut String, name: &str, entries: &[Map<String, Value>]) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(out, "{name}:");
    for entry in entries {
        let mut mark = '-';
        for (key, value) in entry {
            let _ = writeln!(out, "{mark} {key}: {value}");
            mark = ' ';
        }
    }
}

/// A section with values.
pub(super) fn section(out: &mut String, name: &str, values: &Map<String, Value>) {
    if values.is_empty() {
        return;
    }
    let _ = writeln!(out, "{name}:");
    for (key, value) in values {
        let _ = writeln!(out, "  {key}: {value}");
    }
}

/// A name as ours are: letters, digits, - and _.
pub(super) fn plain(text: &str) -> String {
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(fits).take(60).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// The name, or the name with a number, that `taken` does not know yet.
pub(super) fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut free = name.to_owned();
    let mut number = 2;
    while taken(&free) {
        free = format!("{name}-{number}");
        number += 1;
    }
    free
}
