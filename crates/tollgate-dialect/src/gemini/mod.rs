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

/// Google's word for a call that was made elsewhere: the newest models want a signature on each.
pub(crate) const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Marks a signature of another provider's, which need not be base64 as Google's are.
pub(crate) const FOREIGN: &str = "tollgate:";

/// A signature as a client of this dialect can hold it: in base64.
pub(crate) fn signature_out(signature: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match STANDARD.decode(signature) {
        Ok(_) => signature.to_owned(),
        Err(_) => STANDARD.encode(format!("{FOREIGN}{signature}")),
    }
}

/// The signature that was given out.
pub(crate) fn signature_in(signature: String) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let plain = STANDARD
        .decode(&signature)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match plain.as_deref().and_then(|plain| plain.strip_prefix(FOREIGN)) {
        Some(foreign) => foreign.to_owned(),
        None => signature,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_back_as_they_were() {
        for signature in ["c2ln", "responses:rs_1:c2ln", "", "é"] {
            assert_eq!(signature_in(signature_out(signature)), signature);
        }
    }
}
