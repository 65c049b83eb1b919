//! The turns of a client's conversation.

use serde_json::Value;
use tollgate_types::chat::{Media, Message, Part, Role};

use super::{field, signature_in, text};
use crate::Invalid;

/// The words of a system instruction: a content, or a bare text.
pub(super) fn instruction(value: &Value) -> Result<Vec<Part>, Invalid> {
    if let Value::String(text) = value {
        return Ok(vec![Part::text(text.clone())]);
    }
    let parts = field(value, "parts").and_then(Value::as_array).into_iter().flatten();
    parts
        .map(|part| text(part, "text").map(Part::text))
        .collect::<Option<_>>()
        .ok_or_else(|| Invalid::at("systemInstruction", "systemInstruction must be parts of text"))
}

/// Reads `contents` into canonical turns.
pub(super) fn read_all(contents: &[Value], beyond: &mut Vec<String>) -> Result<Vec<Message>, Invalid> {
    let mut turns: Vec<Message> = Vec::new();
    let mut calls = Calls::default();
    for (index, content) in contents.iter().enumerate() {
        let at = format!("contents[{index}]");
        let is_model = match text(content, "role").as_deref() {
            Some("model") => true,
            None | Some("user" | "function") => false,
            Some(_) => return Err(Invalid::at(&at, format!("{at}.role must be user or model"))),
        };
        let parts = field(content, "parts").and_then(Value::as_array);
        let parts = parts.ok_or_else(|| Invalid::at(&at, format!("{at}.parts must be a list")))?;
        for (place, part) in parts.iter().enumerate() {
            let at = format!("{at}.parts[{place}]");
            let read = if is_model {
                model_part(part, &at, &mut calls, beyond)?
            } else {
                user_part(part, &at, &mut calls, beyond)?
            };
            for part in read {
                let role = match &part {
                    Part::ToolResult { .. } => Role::Tool,
                    _ if is_model => Role::Assistant,
                    _ => Role::User,
                };
                match turns.last_mut().filter(|turn| turn.role == role) {
                    Some(turn) => turn.content.push(part),
                    None => turns.push(Message::new(role, vec![part])),
                }
            }
        }
    }
    Ok(turns)
}

/// Ids of the calls: clients need not give any, and then name and order tell which call a response is for.
#[derive(Default)]
struct Calls {
    made: usize,
    /// Id and name of each call that has no response yet.
    open: Vec<(String, String)>,
}

impl Calls {
    fn call(&mut self, given: Option<String>, name: &str) -> String {
        let id = given.unwrap_or_else(|| format!("call_{}_{name}", self.made));
        self.made += 1;
        self.open.push((id.clone(), name.to_owned()));
        id
    }

    fn response(&mut self, given: Option<String>, name: &str) -> String {
        let fits = |(id, called): &(String, String)| given.as_ref().map_or(called == name, |given| given == id);
        match self.open.iter().position(fits) {
            Some(place) => self.open.remove(place).0,
            None => given.unwrap_or_else(|| format!("call_{name}")),
        }
    }
}

fn model_part(part: &Value, at: &str, calls: &mut Calls, beyond: &mut Vec<String>) -> Result<Vec<Part>, Invalid> {
    let signature = text(part, "thoughtSignature").map(signature_in);
    if let Some(call) = field(part, "functionCall") {
        let name = text(call, "name").ok_or_else(|| Invalid::at(at, format!("{at}.functionCall has no name")))?;
        return Ok(vec![Part::ToolCall {
            id: calls.call(text(call, "id"), &name),
            arguments: field(call, "args").map_or_else(|| "{}".to_owned(), Value::to_string),
            name,
            signature,
            cache: None,
        }]);
    }
    let is_thought = field(part, "thought").and_then(Value::as_bool).unwrap_or_default();
    match (text(part, "text"), is_thought) {
        (Some(text), true) if text.is_empty() && signature.is_some() => {
            let data = signature.unwrap_or_default();
            Ok(vec![Part::RedactedReasoning { data }])
        }
        (Some(text), true) => Ok(vec![Part::Reasoning { text, signature }]),
        (Some(text), false) => {
            let signed = signature.map(|signature| Part::Reasoning {
                text: String::new(),
                signature: Some(signature),
            });
            Ok(signed.into_iter().chain([Part::text(text)]).collect())
        }
        (None, _) => Ok(media(part, at, beyond)?.into_iter().collect()),
    }
}

fn user_part(part: &Value, at: &str, calls: &mut Calls, beyond: &mut Vec<String>) -> Result<Vec<Part>, Invalid> {
    if let Some(text) = text(part, "text") {
        return Ok(vec![Part::text(text)]);
    }
    let Some(response) = field(part, "functionResponse") else {
        return Ok(media(part, at, beyond)?.into_iter().collect());
    };
    let name = text(response, "name").ok_or_else(|| Invalid::at(at, format!("{at}.functionResponse has no name")))?;
    let said = field(response, "response");
    let inner = |name: &str| {
        said.and_then(|said| said.as_object())
            .filter(|said| said.len() == 1)?
            .get(name)?
            .as_str()
    };
    let (words, is_error) = match (inner("content").or(inner("result")).or(inner("output")), inner("error")) {
        (Some(text), _) => (text.to_owned(), false),
        (None, Some(text)) => (text.to_owned(), true),
        (None, None) => (said.map(Value::to_string).unwrap_or_default(), false),
    };
    let mut content = vec![Part::text(words)];
    for part in field(response, "parts").and_then(Value::as_array).into_iter().flatten() {
        content.extend(media(part, at, beyond)?);
    }
    Ok(vec![Part::ToolResult {
        call_id: calls.response(text(response, "id"), &name),
        content,
        is_error,
        cache: None,
    }])
}

fn media(part: &Value, at: &str, beyond: &mut Vec<String>) -> Result<Option<Part>, Invalid> {
    let (media, filename) = if let Some(data) = field(part, "inlineData") {
        let media = Media::Inline {
            media_type: text(data, "mimeType").unwrap_or_default().to_ascii_lowercase(),
            data: standard(&text(data, "data").unwrap_or_default()),
        };
        (media, text(data, "displayName"))
    } else if let Some(file) = field(part, "fileData") {
        let url = text(file, "fileUri").ok_or_else(|| Invalid::at(at, format!("{at}.fileData has no fileUri")))?;
        let media = Media::Url {
            url,
            media_type: text(file, "mimeType"),
        };
        (media, text(file, "displayName"))
    } else {
        let name = part
            .as_object()
            .and_then(|part| part.keys().next())
            .map_or("an empty part", String::as_str);
        beyond.push(format!("{at}: {name}"));
        return Ok(None);
    };
    let kind = match &media {
        Media::Inline { media_type, .. } => media_type.as_str(),
        Media::Url { media_type, .. } => media_type.as_deref().unwrap_or("image/*"),
        Media::Uploaded { .. } => "",
    };
    Ok(match kind.split('/').next() {
        Some("image") => Some(Part::Image {
            media,
            detail: None,
            cache: None,
        }),
        Some("audio") => Some(Part::Audio { media, cache: None }),
        Some("application" | "text") => Some(Part::File {
            media,
            filename,
            cache: None,
        }),
        _ => {
            beyond.push(format!("{at}: {kind}"));
            None
        }
    })
}

/// Google's clients write base64 in the alphabet for URLs, and leave the padding out.
fn standard(data: &str) -> String {
    let mut data = data.replace('-', "+").replace('_', "/");
    while !data.len().is_multiple_of(4) {
        data.push('=');
    }
    data
}
