//! Google's generateContent, as the API references of Gemini and Vertex AI describe it.

pub mod client;
pub mod count;
pub mod embed;
pub(crate) mod frames;
pub mod provider;
mod reader;
mod turns;
mod write;
mod writer;

use serde_json::Value;

/// A field by its JSON name, or by the name that it has in the protocol: proto3's JSON takes both.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let found = value.get(name).or_else(|| value.get(snake(name)));
    found.filter(|value| !value.is_null())
}

fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn text(value: &Value, name: &str) -> Option<String> {
    Some(field(value, name)?.as_str()?.to_owned())
}
