//! Requests of clients, and the answers they get.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json, value::RawValue};
use tollgate_types::{
    Operation, RequestView,
    chat::{ChatRequest, Message, Part, Role},
};

use super::{input, settings, take::Object, writer::ResponseWriter};
use crate::{
    Invalid,
    scan::{first_look, typed},
    side::Writer,
};

/// Fields that change no answer: labels, bookkeeping, the provider's cache and queue. `store` is one of them because
/// nothing is ever kept; the answer says so.
const HINTS: [&str; 6] = [
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "store",
    "stream_options",
];

/// Fields that lean on something kept at the provider, and what to do instead.
const KEPT: [(&str, &str); 4] = [
    ("previous_response_id", "send the whole conversation as `input`"),
    ("conversation", "send the whole conversation as `input`"),
    ("prompt", "send the prompt itself as `instructions` and `input`"),
    ("background", "wait for the answer, or stream it"),
];

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    previous_response_id: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    background: Option<&'a RawValue>,
}

/// Reads what stages need to know. What only the provider can judge is left to the provider.
pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    let head: Head<'_> = serde_json::from_slice(body).map_err(|_| {
        let message = "the request body must be a JSON object whose `model` is a string";
        Invalid::new(message)
    })?;
    let kept = [
        head.previous_response_id,
        head.conversation,
        head.prompt,
        head.background,
    ];
    for ((name, instead), raw) in KEPT.into_iter().zip(kept) {
        if raw.is_some_and(|raw| !matches!(raw.get(), "null" | "false")) {
            return Err(not_kept(name, instead));
        }
    }
    let model = match head.model {
        Some(model) if !model.is_empty() => model.into_owned(),
        _ => return Err(Invalid::at("model", "you must provide a model parameter")),
    };
    let has_input = head.input.is_some_and(|raw| {
        raw.get().starts_with('"')
            || serde_json::from_str::<Vec<IgnoredAny>>(raw.get()).is_ok_and(|items| !items.is_empty())
    });
    if !has_input {
        let message = "`input` must be a string or an array with at least one item";
        return Err(Invalid::at("input", message));
    }
    let limit = "a positive whole number";
    Ok(RequestView {
        operation: Operation::Chat,
        model,
        stream: typed::<bool>(head.stream, "stream", "true or false")?.unwrap_or_default(),
        // A stream's last event always carries it.
        include_usage: true,
        estimated_input_tokens: scan.estimated_tokens(),
        max_output_tokens: typed::<u64>(head.max_output_tokens, "max_output_tokens", limit)?,
        answers: 1,
    })
}

fn not_kept(name: &str, instead: &str) -> Invalid {
    Invalid::at(
        name,
        format!("Tollgate keeps no conversations, so `{name}` cannot be used; {instead}"),
    )
}

/// Reads the whole request. `instructions` become a first turn of the developer, as OpenAI places them.
pub(crate) fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Invalid::new("the request body is not a JSON object"))?;
    let mut request = Object::root(fields);
    let mut beyond = Vec::new();
    for (name, instead) in KEPT {
        request.take_default(name, &json!(false));
        if request.take(name).is_some() {
            return Err(not_kept(name, instead));
        }
    }
    let instructions = request.text("instructions")?;
    let first = instructions.map(|text| Message::new(Role::Developer, vec![Part::text(text)]));
    let items = request.take("input").unwrap_or_default();
    request.take_default("truncation", &json!("disabled"));
    settings::cache_options(&mut request, &mut beyond)?;
    let user = request.text("user")?;
    // The newer of two names for the same thing.
    let safety_identifier = request.text("safety_identifier")?;
    let read = ChatRequest {
        model: request.required_text("model")?,
        messages: input::read(items, first.into_iter().collect(), &mut beyond)?,
        tools: settings::tools(&mut request, &mut beyond)?,
        tool_choice: settings::tool_choice(&mut request, &mut beyond)?,
        parallel_tool_calls: request.flag("parallel_tool_calls")?,
        response_format: settings::format(&mut request, &mut beyond)?,
        max_output_tokens: request.count("max_output_tokens")?,
        temperature: request.number("temperature")?,
        top_p: request.number("top_p")?,
        reasoning: settings::reasoning(&mut request, &mut beyond)?,
        logprobs: settings::logprobs(&mut request, &mut beyond)?,
        user: user.or(safety_identifier),
        stream: request.flag("stream")?.unwrap_or_default(),
        ..ChatRequest::default()
    };
    request.rest(&HINTS, &mut beyond);
    Ok(ChatRequest { beyond, ..read })
}

/// A writer of the answer to `request`, streamed if it asks for that.
pub(crate) fn writer(request: &ChatRequest) -> Box<dyn Writer> {
    Box::new(ResponseWriter::new(request))
}
