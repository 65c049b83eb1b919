//! One strict pass over a body: it is JSON, no object names a field twice, and this is how much text it holds.
//!
//! A field that is named twice would be read one way by a guardrail and another way by a provider.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::Invalid;

/// What a body holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Bytes in all strings but those over 4 kB that are base64 or a `data:` URL, in a field that holds such; and for a number in
    /// an array as many as for a token, since token ids are prompts too.
    pub(crate) text_bytes: u64,
}

/// Scans `body`. The error says line and column, not content.
pub(crate) fn scan(body: &[u8]) -> Result<Scan, serde_json::Error> {
    let mut scan = Scan::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    Node(&mut scan, Place::default()).deserialize(&mut reader)?;
    reader.end()?;
    Ok(scan)
}

/// Rough size of a token in bytes of text, for estimates before anything is counted.
const BYTES_PER_TOKEN: u64 = 4;

impl Scan {
    /// Rough number of tokens.
    pub(crate) const fn estimated_tokens(&self) -> u64 {
        self.text_bytes.div_ceil(BYTES_PER_TOKEN)
    }
}

/// The first look at a client's body, the same for every dialect.
pub(crate) fn first_look(body: &[u8]) -> Result<Scan, Invalid> {
    if body.is_empty() {
        return Err(Invalid::new("the request body is empty"));
    }
    if std::str::from_utf8(body).is_err() {
        return Err(Invalid::new("the request body is not UTF-8"));
    }
    scan(body).map_err(|error| Invalid::new(format!("the request body is not valid JSON: {error}")))
}

/// A field of a body, if it is there and not null.
pub(crate) fn typed<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    param: &'static str,
    must_be: &str,
) -> Result<Option<T>, Invalid> {
    raw.map_or(Ok(None), |raw| serde_json::from_str::<Option<T>>(raw.get()))
        .map_err(|_| Invalid::at(param, format!("`{param}` must be {must_be}")))
}

/// Whether JSON has more than `most` objects and arrays inside one another. Of what is no JSON nothing is said.
#[must_use]
pub fn is_deeper(body: &[u8], most: usize) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Fields of images, sounds and files in the dialects.
const MEDIA: [&str; 8] = [
    "data",
    "url",
    "image_url",
    "file_url",
    "file_data",
    "fileData",
    "bytes",
    "b64_json",
];
/// Shorter ones are not looked at twice.
const LONG: usize = 4096;

/// Whether all of it is base64, of either alphabet, after the head of a `data:` URL if it has one.
fn is_base64(text: &str) -> bool {
    let body = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").map_or("", |(_, body)| body),
        None => text,
    };
    let body = body.trim_end_matches('=').as_bytes();
    !body.is_empty()
        && body
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/-_\r\n".contains(byte))
}

/// A value, and where it stands.
struct Node<'a>(&'a mut Scan, Place);

#[derive(Clone, Copy, Default)]
struct Place {
    /// In a field that may hold media.
    media: bool,
    /// In an array.
    listed: bool,
}

impl Node<'_> {
    fn number(self) {
        if self.1.listed {
            self.0.text_bytes += BYTES_PER_TOKEN;
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.number();
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.number();
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.number();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if !(self.1.media && text.len() > LONG && is_base64(text)) {
            self.0.text_bytes += text.len() as u64;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let place = Place { listed: true, ..self.1 };
        while items.next_element_seed(Node(self.0, place))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = fields.next_key::<FieldName>()? {
            let media = MEDIA.contains(&name.0.as_str());
            if !seen.insert(name.0) {
                return Err(de::Error::custom("an object names the same field twice"));
            }
            fields.next_value_seed(Node(self.0, Place { media, listed: false }))?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct FieldName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_named_fields_are_refused_at_any_depth() {
        assert!(scan(br#"{"a":1,"b":{"c":[1,{"d":"x"}]}}"#).is_ok());
        assert!(scan(br#"{"a":1,"a":2}"#).is_err());
        assert!(scan(br#"{"m":[{"content":"x","content":"y"}]}"#).is_err());
        assert!(scan(b"{\"content\":1,\"cont\\u0065nt\":2}").is_err());
    }

    #[test]
    fn all_that_may_be_billed_counts() {
        let bytes = |body: &str| scan(body.as_bytes()).unwrap().text_bytes;
        let (letters, text) = ("A".repeat(5000), "\u{5b57}".repeat(2000));
        assert_eq!(bytes(&format!(r#"{{"content":"{letters}"}}"#)), 5000);
        assert_eq!(
            bytes(&format!(r#"{{"content":"{}{letters} b"}}"#, "\\n".repeat(4096))),
            4096 + 5002
        );
        assert_eq!(bytes(&format!(r#"{{"data":"{text}"}}"#)), 6000);
        assert_eq!(bytes(&format!(r#"{{"data":"{letters} and a text"}}"#)), 5011);
        assert_eq!(bytes(r#"{"input":[[1,2,3],[-4,5.5]]}"#), 5 * 4);
        // Media are not text.
        assert_eq!(bytes(&format!(r#"{{"source":{{"data":"{letters}=="}}}}"#)), 0);
        assert_eq!(
            bytes(&format!(
                r#"{{"image_url":{{"url":"data:image/png;base64,{letters}"}}}}"#
            )),
            0
        );
        assert_eq!(bytes(&format!(r#"{{"url":"data:text/plain,{letters}"}}"#)), 5016);
    }

    #[test]
    fn depth_is_of_structure_and_not_of_text() {
        assert!(!is_deeper(br#"{"a":[{"b":"[[[[\"[[["}],"c":[]}"#, 3));
        assert!(is_deeper(br#"{"a":[{"b":[]}]}"#, 3));
    }

    #[test]
    fn what_is_not_json_is_refused_without_a_panic() {
        for body in [
            &b""[..],
            b"\0",
            b"{",
            b"{}x",
            b"\xff\xfe",
            &b"[".repeat(100_000),
            b"{\"a\":\"\xc3\x28\"}",
        ] {
            assert!(scan(body).is_err());
        }
    }
}
