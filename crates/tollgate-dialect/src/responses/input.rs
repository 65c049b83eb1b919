//! A client's `input`: its items, made into turns.

use serde_json::{Value, json};
use tollgate_types::chat::{Message, Part, Role};

use super::{
    content,
    sealed::Sealed,
    take::{Object, plain},
};
use crate::Invalid;

/// Fields of items that change no answer: where OpenAI keeps the item, how it ended, what kind of words it was.
const HINTS: [&str; 3] = ["id", "status", "phase"];

/// Reads a string or an array of items, after the turns that are there already.
pub(super) fn read(value: Value, turns: Vec<Message>, beyond: &mut Vec<String>) -> Result<Vec<Message>, Invalid> {
    let mut input = Input {
        turns,
        call_signatures: Vec::new(),
    };
    match value {
        Value::String(text) => input.push(Role::User, vec![Part::text(text)]),
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.into_iter().enumerate() {
                input.item(Object::new(item, format!("input[{index}]"))?, beyond)?;
            }
        }
        _ => {
            return Err(Invalid::at(
                "input",
                "`input` must be a string or an array with at least one item",
            ));
        }
    }
    Ok(input.finish())
}

struct Input {
    turns: Vec<Message>,
    /// Signatures that travelled beside their calls, by call id.
    call_signatures: Vec<(String, String)>,
}

impl Input {
    /// Adds to the last turn, if it is of the same kind and may have several items; else begins one.
    fn push(&mut self, role: Role, parts: Vec<Part>) {
        match self.turns.last_mut() {
            Some(last) if last.role == role && matches!(role, Role::Assistant | Role::Tool) => {
                last.content.extend(parts);
            }
            _ => self.turns.push(Message::new(role, parts)),
        }
    }

    fn item(&mut self, mut item: Object, beyond: &mut Vec<String>) -> Result<(), Invalid> {
        let kind = item.text("type")?;
        match kind.as_deref() {
            Some("message") => self.message(&mut item, beyond)?,
            None if item.has("role") => self.message(&mut item, beyond)?,
            Some("function_call") => self.call(&mut item)?,
            Some("function_call_output") => self.output(&mut item, beyond)?,
            Some("reasoning") => self.reasoning(&mut item)?,
            Some("item_reference") => return Err(reference(&item)),
            None if item.has("id") => return Err(reference(&item)),
            None => return Err(item.wrong("type", "a string")),
            Some(kind) => {
                beyond.push(format!("{}: type {}", item.at(), plain(kind)));
                return Ok(());
            }
        }
        item.rest(&HINTS, beyond);
        Ok(())
    }

    fn message(&mut self, item: &mut Object, beyond: &mut Vec<String>) -> Result<(), Invalid> {
        let role = match item.required_text("role")?.as_str() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => return Err(item.wrong("role", "user, assistant, system or developer")),
        };
        let at = item.path("content");
        let parts = content::read(item.take("content"), &at, beyond)?;
        if role != Role::Assistant && parts.iter().any(|part| matches!(part, Part::Refusal { .. })) {
            return Err(Invalid::at(at, "only an assistant's message may hold a refusal"));
        }
        self.push(role, parts);
        Ok(())
    }

    fn call(&mut self, item: &mut Object) -> Result<(), Invalid> {
        let call = Part::ToolCall {
            id: item.required_text("call_id")?,
            name: item.required_text("name")?,
            arguments: item.required_text("arguments")?,
            signature: None,
            cache: None,
        };
        item.take_default("async", &json!(false));
        item.take_default("caller", &json!({ "type": "direct" }));
        self.push(Role::Assistant, vec![call]);
        Ok(())
    }

    fn output(&mut self, item: &mut Object, beyond: &mut Vec<String>) -> Result<(), Invalid> {
        let at = item.path("output");
        let mut content = content::read(item.take("output"), &at, beyond)?;
        let whole = |part: &Part| matches!(part, Part::Text { .. } | Part::Image { .. } | Part::File { .. });
        if !content.iter().all(whole) {
            return Err(Invalid::at(at, "a tool's output may hold texts, images and files"));
        }
        content.retain(|part| !matches!(part, Part::Text { text, .. } if text.is_empty()));
        let result = Part::ToolResult {
            call_id: item.required_text("call_id")?,
            content,
            is_error: false,
            cache: None,
        };
        // The name repeats the call's.
        item.text("name")?;
        item.take_default("caller", &json!({ "type": "direct" }));
        self.push(Role::Tool, vec![result]);
        Ok(())
    }

    fn reasoning(&mut self, item: &mut Object) -> Result<(), Invalid> {
        let mut texts = Vec::new();
        for field in ["summary", "content"] {
            let at = item.path(field);
            for (index, part) in item.array(field)?.into_iter().enumerate() {
                texts.push(Object::new(part, format!("{at}[{index}]"))?.required_text("text")?);
            }
        }
        let text = texts.join("\n\n");
        let id = item.text("id")?.unwrap_or_default();
        let seal = item
            .text("encrypted_content")?
            .map(|content| Sealed::read(&id, &content));
        let (signature, redacted) = match seal {
            None => (None, None),
            Some(Sealed::Signature(signature)) => (Some(signature), None),
            Some(Sealed::Redacted(data)) => (None, Some(Part::RedactedReasoning { data })),
            Some(Sealed::Call { call_id, signature }) => {
                self.call_signatures.push((call_id, signature));
                (None, None)
            }
        };
        let shown = (signature.is_some() || !text.is_empty()).then_some(Part::Reasoning { text, signature });
        let parts: Vec<_> = shown.into_iter().chain(redacted).collect();
        if !parts.is_empty() {
            self.push(Role::Assistant, parts);
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Message> {
        for (call_id, sealed) in self.call_signatures {
            let calls = self.turns.iter_mut().flat_map(|turn| &mut turn.content);
            for part in calls {
                match part {
                    Part::ToolCall { id, signature, .. } if *id == call_id => {
                        *signature = Some(sealed);
                        break;
                    }
                    _ => {}
                }
            }
        }
        self.turns
    }
}

fn reference(item: &Object) -> Invalid {
    let message = "Tollgate keeps no items; send the item itself instead of a reference to it";
    Invalid::at(item.at(), message)
}
