//! Requests: what they ask for, and the same bytes with another model name.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, value::RawValue};
use tollgate_types::{Operation, RequestView};

use crate::{
    Invalid,
    scan::{first_look, typed},
    side::Quirks,
    splice::Fields,
};

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
    #[serde(borrow)]
    n: Option<&'a RawValue>,
}

/// Reads a client's request. What only the provider can judge is left to the provider.
pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    let head: Head<'_> = serde_json::from_slice(body).map_err(|_| {
        let message = "the request body must be a JSON object whose `model` is a string";
        Invalid::new(message)
    })?;
    let model = match head.model {
        Some(model) if !model.is_empty() => model.into_owned(),
        _ => return Err(Invalid::at("model", "you must provide a model parameter")),
    };
    let messages = head
        .messages
        .and_then(|raw| serde_json::from_str::<Vec<IgnoredAny>>(raw.get()).ok());
    if messages.is_none_or(|messages| messages.is_empty()) {
        let message = "`messages` must be an array with at least one message";
        return Err(Invalid::at("messages", message));
    }
    let stream = typed::<bool>(head.stream, "stream", "true or false")?.unwrap_or_default();
    let options = typed::<Map<String, Value>>(head.stream_options, "stream_options", "an object")?;
    if options.is_some() && !stream {
        let message = "the `stream_options` parameter is only allowed when `stream` is enabled";
        return Err(Invalid::at("stream_options", message));
    }
    let include_usage = match options.as_ref().and_then(|options| options.get("include_usage")) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(asked)) => *asked,
        Some(_) => {
            let message = "`stream_options.include_usage` must be true or false";
            return Err(Invalid::at("stream_options", message));
        }
    };
    let limit = "a positive whole number";
    let max_tokens = typed::<u64>(head.max_tokens, "max_tokens", limit)?;
    let max_completion_tokens = typed::<u64>(head.max_completion_tokens, "max_completion_tokens", limit)?;
    Ok(RequestView {
        operation: Operation::Chat,
        model,
        stream,
        include_usage,
        estimated_input_tokens: scan.estimated_tokens(),
        // Both are passed on, and which of them counts is the provider's to say. None of it is no limit.
        max_output_tokens: max_completion_tokens.max(max_tokens).filter(|most| *most > 0),
        answers: typed::<u64>(head.n, "n", limit)?.unwrap_or(1).max(1),
    })
}

/// The same request for the provider's `model`, with the usage of a stream asked for; all else byte for byte.
pub(crate) fn readdress(body: &[u8], model: &str, quirks: Quirks) -> Result<Bytes, Invalid> {
    let mut fields = Fields::read(body)?;
    let streamed = fields.get("stream").is_some_and(|raw| raw.get() == "true");
    fields.set("model", &model.into())?;
    if quirks.no_stream_options {
        fields.remove("stream_options");
    } else if streamed {
        let mut options: Map<String, Value> = fields
            .get("stream_options")
            .and_then(|raw| serde_json::from_str::<Option<_>>(raw.get()).ok().flatten())
            .unwrap_or_default();
        options.insert("include_usage".to_owned(), true.into());
        fields.set("stream_options", &options.into())?;
    }
    fields.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_fields_change() {
        let body =
            br#"{"model":"public","x_new":{"b": 1.10,"a":1e400},"messages":[ {"role":"user","content":"\u0041"} ]}"#;
        let sent = readdress(body, "real-1", Quirks::default()).unwrap();
        let expected =
            r#"{"model":"real-1","x_new":{"b": 1.10,"a":1e400},"messages":[ {"role":"user","content":"\u0041"} ]}"#;
        assert_eq!(std::str::from_utf8(&sent).unwrap(), expected);
    }

    #[test]
    fn a_stream_is_asked_for_its_usage_and_keeps_its_other_options() {
        let sent = readdress(br#"{"model":"m","stream":true,"messages":[]}"#, "m", Quirks::default()).unwrap();
        assert!(
            std::str::from_utf8(&sent)
                .unwrap()
                .ends_with(r#""stream_options":{"include_usage":true}}"#)
        );
        let body = br#"{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}"#;
        let sent = readdress(body, "m", Quirks::default()).unwrap();
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
        let at = |param: &str| Some(param.to_owned());
        assert_eq!(param(""), None);
        assert_eq!(param("[]"), None);
        assert_eq!(param(r#"{"messages":[{}]}"#), at("model"));
        assert_eq!(param(r#"{"model":"","messages":[{}]}"#), at("model"));
        assert_eq!(param(r#"{"model":"m"}"#), at("messages"));
        assert_eq!(param(r#"{"model":"m","messages":"hi"}"#), at("messages"));
        assert_eq!(param(r#"{"model":"m","messages":[{}],"stream":"yes"}"#), at("stream"));
        assert_eq!(
            param(r#"{"model":"m","messages":[{}],"stream_options":{}}"#),
            at("stream_options")
        );
        assert_eq!(
            param(r#"{"model":"m","messages":[{}],"max_tokens":-1}"#),
            at("max_tokens")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = view(&body);
            let _ = readdress(&body, "m", Quirks::default());
        }
    }
}
