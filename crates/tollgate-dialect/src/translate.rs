//! From a client's bytes to the call that a provider gets.

use bytes::Bytes;
use tollgate_types::{
    Dialect, Operation, RequestView,
    chat::ChatRequest,
    provider::{OnUnsupported, Quirks},
};

use crate::{
    Invalid, ProviderError, Refused,
    answer::{Answer, Output},
    anthropic, bedrock,
    count_tokens::{self, Counting},
    embed,
    events::Framing,
    gemini, native, openai,
    provenance::{self, Family, Marked},
    responses,
    side::{Losses, Reader, Target, Writer},
};

/// What is to be sent.
pub struct Order<'a> {
    /// What the client speaks, and what the provider does.
    pub client: Dialect,
    pub provider: Dialect,
    pub view: &'a RequestView,
    /// The client's own bytes.
    pub body: &'a [u8],
    /// The provider's own name of the model.
    pub model: &'a str,
    pub quirks: Quirks,
    pub unsupported: OnUnsupported,
}

/// What a provider is sent, and how its answer is read.
pub struct Call {
    /// Below the provider's base URL, without a slash before it.
    pub path: String,
    pub body: Bytes,
    pub framing: Framing,
    pub answer: Answer,
    /// What was asked for and left out, by name.
    pub dropped: Vec<String>,
}

/// What becomes of an order.
pub enum Prepared {
    Call(Box<Call>),
    /// The answer's frame: no provider is needed for it.
    Answered(Bytes),
}

/// Reads what stages need to know from a client's bytes. Of Gemini's requests the model and the wish for a stream are in
/// the path; `path` says them.
pub fn view(
    dialect: Dialect,
    operation: Operation,
    path: Option<(&str, bool)>,
    body: &[u8],
) -> Result<RequestView, Invalid> {
    let view = match (dialect, operation) {
        (Dialect::OpenaiChat, Operation::Embed) => openai::embed::view(body),
        (Dialect::OpenaiChat, _) => openai::view(body),
        (Dialect::OpenaiResponses, _) => responses::client::view(body),
        (Dialect::Anthropic, Operation::CountTokens) => anthropic::count::view_count(body),
        (Dialect::Anthropic, _) => anthropic::client::view(body),
        (Dialect::Gemini, _) => {
            let (model, stream) = path.ok_or_else(|| Invalid::new("the path names no model"))?;
            match operation {
                Operation::CountTokens => gemini::count::view_count(body, model),
                _ => gemini::client::view(body, model, stream),
            }
        }
        (Dialect::Native, Operation::Embed) => native::view_embed(body),
        (Dialect::Native, _) => native::view(body),
        (Dialect::Bedrock, _) => Err(Invalid::new("no door speaks Bedrock's dialect")),
    }?;
    Ok(RequestView { operation, ..view })
}

/// Writes the call.
pub fn translate(order: &Order<'_>) -> Result<Prepared, Refused> {
    let mut losses = Losses::new(order.unsupported);
    let framing = match (order.view.stream, order.provider) {
        (false, _) => Framing::Whole,
        (true, Dialect::Bedrock) => Framing::EventStream,
        (true, _) => Framing::Sse,
    };
    let (path, body, answer) = match order.view.operation {
        Operation::Chat => chat(order, &mut losses)?,
        Operation::Embed => embed::translate(order, &mut losses)?,
        Operation::CountTokens => match count_tokens::translate(order, &mut losses)? {
            Counting::Call(call) => *call,
            Counting::Counted(frame) => return Ok(Prepared::Answered(frame)),
        },
    };
    Ok(Prepared::Call(Box::new(Call {
        path,
        body,
        framing,
        answer,
        dropped: losses.dropped,
    })))
}

fn chat(order: &Order<'_>, losses: &mut Losses) -> Result<(String, Bytes, Answer), Refused> {
    let stream = order.view.stream;
    let path = match order.provider {
        Dialect::OpenaiChat => "chat/completions".to_owned(),
        Dialect::OpenaiResponses => "responses".to_owned(),
        Dialect::Anthropic => "messages".to_owned(),
        Dialect::Gemini => gemini::provider::path(order.model, stream),
        Dialect::Bedrock => bedrock::provider::path(order.model, stream),
        Dialect::Native => return Err(Refused::Unsupported("the native dialect".to_owned())),
    };
    if order.client == order.provider {
        let (body, answer) = pass_on(order)?;
        return Ok((path, body, answer));
    }
    let mut request = read(order.client, order.body, order.view)?;
    let family = Family::of(order.provider, order.model);
    provenance::settle(&mut request, order.client, family);
    let target = Target {
        model: order.model,
        quirks: order.quirks,
    };
    let (body, reader) = write(order.provider, &request, &target, losses)?;
    let writer = writer(order.client, &request, order.view);
    let marked = Marked {
        writer,
        family,
        client: order.client,
    };
    Ok((path, body, Answer::new(reader, Output::Written(Box::new(marked)))))
}

/// A model's name as one segment of a path: nothing in it can lead elsewhere.
#[must_use]
pub fn path_segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => segment.push(char::from(byte)),
            _ => {
                let _ = write!(segment, "%{byte:02X}");
            }
        }
    }
    // A segment of dots would climb.
    if segment.bytes().all(|byte| byte == b'.') {
        return segment.replace('.', "%2E");
    }
    segment
}

/// What the body of a provider's error says.
#[must_use]
pub fn provider_error(provider: Dialect, body: &[u8]) -> ProviderError {
    match provider {
        Dialect::OpenaiChat | Dialect::Native => openai::provider::error(body),
        Dialect::OpenaiResponses => responses::provider::error(body),
        Dialect::Anthropic => anthropic::provider::error(body),
        Dialect::Gemini => gemini::provider::error(body),
        Dialect::Bedrock => bedrock::provider::error(body),
    }
}

pub(crate) fn read(client: Dialect, body: &[u8], view: &RequestView) -> Result<ChatRequest, Invalid> {
    match client {
        Dialect::OpenaiChat => openai::client::read(body),
        Dialect::OpenaiResponses => responses::client::read(body),
        Dialect::Anthropic => anthropic::client::read(body),
        Dialect::Gemini => gemini::client::read(body, view),
        Dialect::Native => native::read(body),
        Dialect::Bedrock => Err(Invalid::new("no door speaks Bedrock's dialect")),
    }
}

pub(crate) fn writer(client: Dialect, request: &ChatRequest, view: &RequestView) -> Box<dyn Writer> {
    match client {
        Dialect::OpenaiChat => openai::client::writer(request, view),
        Dialect::OpenaiResponses => responses::client::writer(request),
        Dialect::Anthropic => anthropic::client::writer(request),
        Dialect::Gemini => gemini::client::writer(request),
        Dialect::Native | Dialect::Bedrock => native::writer(),
    }
}

pub(crate) fn write(
    provider: Dialect,
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    for feature in &request.beyond {
        losses.cannot(feature)?;
    }
    match provider {
        Dialect::OpenaiChat => openai::provider::write(request, target, losses),
        Dialect::OpenaiResponses => responses::provider::write(request, target, losses),
        Dialect::Anthropic => anthropic::provider::write(request, target, losses),
        Dialect::Gemini => gemini::provider::write(request, target, losses),
        Dialect::Bedrock => bedrock::provider::write(request, target, losses),
        Dialect::Native => Err(Refused::Unsupported("the native dialect".to_owned())),
    }
}

/// A reader of the answer to a request that went through as it was. None where none can.
pub(crate) fn pass_on_reader(provider: Dialect) -> Option<Box<dyn Reader>> {
    Some(match provider {
        Dialect::OpenaiChat => openai::provider::reader(),
        Dialect::OpenaiResponses => responses::provider::reader(),
        Dialect::Anthropic => anthropic::provider::reader(),
        Dialect::Gemini => gemini::provider::reader(),
        Dialect::Bedrock | Dialect::Native => return None,
    })
}

/// The same request for the provider's model: client and provider speak the same dialect.
fn pass_on(order: &Order<'_>) -> Result<(Bytes, Answer), Refused> {
    let Order { body, model, view, .. } = *order;
    let settled = provenance::settle_bytes(body, order.provider)?;
    let body = settled.as_deref().unwrap_or(body);
    let unsupported = || Refused::Unsupported("this dialect".to_owned());
    let reader = pass_on_reader(order.provider).ok_or_else(unsupported)?;
    let (body, filter) = match order.provider {
        Dialect::OpenaiChat => {
            let filter = Some(if view.include_usage {
                openai::pass
            } else {
                openai::pass_without_usage
            } as _);
            (openai::readdress(body, model, order.quirks)?, filter)
        }
        Dialect::OpenaiResponses => (responses::provider::readdress(body, model)?, None),
        Dialect::Anthropic => (anthropic::provider::readdress(body, model)?, None),
        // Its path says the model.
        _ => (Bytes::copy_from_slice(body), None),
    };
    Ok((body, Answer::new(reader, Output::Same(filter))))
}
