//! Requests: what they ask for, and the same bytes with another model name.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Map, Value, value::RawValue};
use tollgate_types::RequestView;

use crate::{Invalid, scan::scan};

/// Rough size of a token in bytes of text, for estimates before anything is counted.
const BYTES_PER_TOKEN: u64 = 4;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
}

/// Reads a client's request. What only the provider can judge is left to the provider.
pub fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    if body.is_empty() {
        return Err(Invalid::new(None, "the request body is empty"));
    }
    if std::str::from_utf8(body).is_err() {
        return Err(Invalid::new(None, "the request body is not UTF-8"));
    }
    let scan =
        scan(body).map_err(|error| Invalid::new(None, format!("the request body is not valid JSON: {error}")))?;
    let head: Head<'_> = serde_json::from_slice(body).map_err(|_| {
        let message = "the request body must be a JSON object whose `model` is a string";
        Invalid::new(None, message)
    })?;
    let model = match head.model {
        Some(model) if !model.is_empty() => model.into_owned(),
        _ => return Err(Invalid::new(Some("model"), "you must provide a model parameter")),
    };
    let messages = head
        .messages
        .and_then(|raw| serde_json::from_str::<Vec<IgnoredAny>>(raw.get()).ok());
    if messages.is_none_or(|messages| messages.is_empty()) {
        return Err(Invalid::new(
            Some("messages"),
            "`messages` must be an array with at least one message",
        ));
    }
    let stream = typed::<bool>(head.stream, "stream", "`stream` must be true or false")?.unwrap_or_default();
    let options = typed::<Map<String, Value>>(
        head.stream_options,
        "stream_options",
        "`stream_options` must be an object",
    )?;
    if options.is_some() && !stream {
        let message = "the `stream_options` parameter is only allowed when `stream` is enabled";
        return Err(Invalid::new(Some("stream_options"), message));
    }
    let include_usage = match options.as_ref().and_then(|options| options.get("include_usage")) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(asked)) => *asked,
        Some(_) => {
            return Err(Invalid::new(
                Some("stream_options"),
                "`stream_options.include_usage` must be true or false",
            ));
        }
    };
    let limit = "must be a positive whole number";
    let max_tokens = typed::<u64>(head.max_tokens, "max_tokens", limit)?;
    let max_completion_tokens = typed::<u64>(head.max_completion_tokens, "max_completion_tokens", limit)?;
    Ok(RequestView {
        model,
        stream,
        include_usage,
        estimated_input_tokens: scan.text_bytes.div_ceil(BYTES_PER_TOKEN),
        max_output_tokens: max_completion_tokens.or(max_tokens),
    })
}

fn typed<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    param: &'static str,
    problem: &str,
) -> Result<Option<T>, Invalid> {
    raw.map_or(Ok(None), |raw| serde_json::from_str::<Option<T>>(raw.get()))
        .map_err(|_| Invalid::new(Some(param), problem))
}

/// The same request for the provider's `model`, with the usage of a stream asked for; all else byte for byte.
pub fn readdress(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    let not_json = |_| Invalid::new(None, "the request body is not a JSON object");
    let mut fields: Fields<'_> = serde_json::from_slice(body).map_err(not_json)?;
    let raw = |value: Value| serde_json::value::to_raw_value(&value).map_err(not_json);
    let streamed = fields.get("stream").is_some_and(|raw| raw.get() == "true");
    fields.set("model", raw(model.into())?);
    if streamed {
        let mut options: Map<String, Value> = fields
            .get("stream_options")
            .and_then(|raw| serde_json::from_str::<Option<_>>(raw.get()).ok().flatten())
            .unwrap_or_default();
        options.insert("include_usage".to_owned(), true.into());
        fields.set("stream_options", raw(options.into())?);
    }
    serde_json::to_vec(&fields).map(Bytes::from).map_err(not_json)
}

/// An object's fields in their order, their values untouched.
struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| &**value)
    }

    fn set(&mut self, name: &'static str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((name.into(), Cow::Owned(value))),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push((Cow::Owned(name), Cow::Borrowed(value)));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &**value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_fields_change() {
        let body =
            br#"{"model":"public","x_new":{"b": 1.10,"a":1e400},"messages":[ {"role":"user","content":"\u0041"} ]}"#;
        let sent = readdress(body, "real-1").unwrap();
        let expected =
            r#"{"model":"real-1","x_new":{"b": 1.10,"a":1e400},"messages":[ {"role":"user","content":"\u0041"} ]}"#;
        assert_eq!(std::str::from_utf8(&sent).unwrap(), expected);
    }

    #[test]
    fn a_stream_is_asked_for_its_usage_and_keeps_its_other_options() {
        let sent = readdress(br#"{"model":"m","stream":true,"messages":[]}"#, "m").unwrap();
        assert!(
            std::str::from_utf8(&sent)
                .unwrap()
                .ends_with(r#""stream_options":{"include_usage":true}}"#)
        );
        let body = br#"{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}"#;
        let sent = readdress(body, "m").unwrap();
        assert!(
            std::str::from_utf8(&sent)
                .unwrap()
                .contains(r#"{"include_obfuscation":false,"include_usage":true}"#)
        );
    }

    #[test]
    fn the_view_says_what_was_asked() {
        let seen = view(
            br#"{"model":"m","messages":[{"role":"user","content":"12345678"}],"stream":true,
                 "stream_options":{"include_usage":true},"max_tokens":7}"#,
        )
        .unwrap();
        assert_eq!(
            (seen.model.as_str(), seen.stream, seen.include_usage),
            ("m", true, true)
        );
        assert_eq!(seen.max_output_tokens, Some(7));
        assert_eq!(seen.estimated_input_tokens, 4);
    }

    #[test]
    fn wrong_requests_name_the_field() {
        let param = |body: &str| view(body.as_bytes()).unwrap_err().param;
        assert_eq!(param(""), None);
        assert_eq!(param("[]"), None);
        assert_eq!(param(r#"{"messages":[{}]}"#), Some("model"));
        assert_eq!(param(r#"{"model":"","messages":[{}]}"#), Some("model"));
        assert_eq!(param(r#"{"model":"m"}"#), Some("messages"));
        assert_eq!(param(r#"{"model":"m","messages":"hi"}"#), Some("messages"));
        assert_eq!(param(r#"{"model":"m","messages":[{}],"stream":"yes"}"#), Some("stream"));
        assert_eq!(
            param(r#"{"model":"m","messages":[{}],"stream_options":{}}"#),
            Some("stream_options")
        );
        assert_eq!(
            param(r#"{"model":"m","messages":[{}],"max_tokens":-1}"#),
            Some("max_tokens")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = view(&body);
            let _ = readdress(&body, "m");
        }
    }
}
