//! Whose reasoning a sealed piece of it is.
//!
//! Signatures, thought signatures and encrypted reasoning can be read by the family of models that made them alone, and
//! the others refuse a conversation that has one of them. A conversation may move from one family to another (a fallback,
//! a route), so a seal that goes to a client of another dialect carries its origin, and a request takes to a provider
//! only what that provider's family has sealed. The rest is left out, which the families' guides allow.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::{
    Dialect,
    chat::{ChatEvent, ChatRequest, Part},
};

use crate::{BadAnswer, Invalid, bedrock::model::Model, gemini, side::Writer};

/// Stands before the family's name in a seal.
const MARK: &str = "tollgate.from.";
/// What every seal that was written here for a client of another dialect begins with.
const OURS: &str = "tollgate.";

/// Models that read each other's seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Claude, wherever it is hosted: its signatures hold across platforms.
    Claude,
    Gemini,
    Openai,
    /// Any other on Bedrock.
    Bedrock,
}

impl Family {
    const ALL: [Self; 4] = [Self::Claude, Self::Gemini, Self::Openai, Self::Bedrock];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Gemini => "gemini",
            Self::Openai => "openai",
            Self::Bedrock => "bedrock",
        }
    }

    /// The family behind a provider.
    pub(crate) fn of(provider: Dialect, model: &str) -> Self {
        match provider {
            Dialect::Anthropic => Self::Claude,
            Dialect::Bedrock => match Model::of(model) {
                Model::Nova | Model::Plain | Model::Open => Self::Bedrock,
                // An inference profile's name may tell nothing; most are of Claude.
                _ => Self::Claude,
            },
            Dialect::OpenaiResponses => Self::Openai,
            // In OpenAI's chat dialect Gemini alone seals anything.
            Dialect::Gemini | Dialect::OpenaiChat | Dialect::Native => Self::Gemini,
        }
    }

    /// The family whose seals a client of the dialect holds without a mark, because it may have them from the family
    /// itself.
    const fn usual(client: Dialect) -> Option<Self> {
        match client {
            Dialect::Anthropic => Some(Self::Claude),
            Dialect::Gemini => Some(Self::Gemini),
            Dialect::OpenaiResponses => Some(Self::Openai),
            Dialect::OpenaiChat | Dialect::Native | Dialect::Bedrock => None,
        }
    }
}

/// A writer for a client, which marks what the provider's family has sealed.
pub(crate) struct Marked {
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) family: Family,
    pub(crate) client: Dialect,
}

impl Writer for Marked {
    fn event(&mut self, mut event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer> {
        mark(&mut event, self.family, self.client);
        self.writer.event(event)
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        self.writer.end()
    }

    fn whole(&mut self, mut events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer> {
        for event in &mut events {
            mark(event, self.family, self.client);
        }
        self.writer.whole(events)
    }
}

fn mark(event: &mut ChatEvent, family: Family, client: Dialect) {
    let (ChatEvent::ReasoningSignature { signature: seal }
    | ChatEvent::RedactedReasoning { data: seal }
    | ChatEvent::ToolCall {
        signature: Some(seal), ..
    }) = event
    else {
        return;
    };
    if Family::usual(client) != Some(family) {
        *seal = format!("{MARK}{}:{seal}", family.as_str());
    }
}

/// The family that a seal names, and the seal as that family gave it out.
fn marked(seal: &str) -> Option<(Family, &str)> {
    let (name, seal) = seal.strip_prefix(MARK)?.split_once(':')?;
    let family = Family::ALL.into_iter().find(|family| family.as_str() == name)?;
    Some((family, seal))
}

/// Takes the marks off, and what `family` has not sealed out. Words of reasoning stay, without their seal.
pub(crate) fn settle(request: &mut ChatRequest, client: Dialect, family: Family) {
    let usual = Family::usual(client);
    for message in &mut request.messages {
        message.content.retain_mut(|part| match part {
            Part::Reasoning { text, signature } => {
                settle_one(signature, usual.or(Some(Family::Claude)), family);
                signature.is_some() || !text.is_empty()
            }
            Part::RedactedReasoning { data } => {
                let mut seal = Some(std::mem::take(data));
                settle_one(&mut seal, usual.or(Some(Family::Claude)), family);
                *data = seal.unwrap_or_default();
                !data.is_empty()
            }
            Part::ToolCall { signature, .. } => {
                settle_one(signature, usual.or(Some(Family::Gemini)), family);
                true
            }
            _ => true,
        });
    }
}

/// `usual` is the family of a seal without a mark.
fn settle_one(seal: &mut Option<String>, usual: Option<Family>, family: Family) {
    let Some(text) = seal else { return };
    let (origin, plain) = match marked(text) {
        Some((origin, plain)) => (Some(origin), plain.to_owned()),
        None => (usual, std::mem::take(text)),
    };
    *seal = (origin == Some(family)).then_some(plain);
}

/// The same for a request that goes through as it is: `None` when there is nothing to take out.
pub(crate) fn settle_bytes(body: &[u8], dialect: Dialect) -> Result<Option<Bytes>, Invalid> {
    let begins = match dialect {
        Dialect::Gemini => STANDARD.encode(gemini::FOREIGN),
        _ => OURS.to_owned(),
    };
    if memchr::memmem::find(body, begins.as_bytes()).is_none() {
        return Ok(None);
    }
    let mut body: Value =
        serde_json::from_slice(body).map_err(|_| Invalid::new("the request body is not valid JSON"))?;
    let changed = match dialect {
        Dialect::Anthropic => each_list(&mut body, "messages", "content", anthropic_block),
        Dialect::Gemini => each_list(&mut body, "contents", "parts", gemini_part),
        Dialect::OpenaiResponses => match body.get_mut("input") {
            Some(Value::Array(items)) => retain(items, responses_item),
            _ => false,
        },
        _ => false,
    };
    Ok(changed.then(|| body.to_string().into()))
}

/// What becomes of an item in a list.
enum Fate {
    Kept,
    Changed,
    Removed,
}

fn each_list(body: &mut Value, turns: &str, items: &str, fate: fn(&mut Value) -> Fate) -> bool {
    let turns = body.get_mut(turns).and_then(Value::as_array_mut);
    let lists = turns.into_iter().flatten().filter_map(|turn| turn.get_mut(items));
    let mut changed = false;
    for list in lists.filter_map(Value::as_array_mut) {
        changed |= retain(list, fate);
        if list.is_empty() {
            // The turn stays, so that roles go on to alternate; both dialects know this part by its text.
            list.push(if items == "parts" {
                json!({ "text": "." })
            } else {
                json!({ "type": "text", "text": "." })
            });
        }
    }
    changed
}

fn retain(list: &mut Vec<Value>, fate: fn(&mut Value) -> Fate) -> bool {
    let mut changed = false;
    list.retain_mut(|item| {
        let fate = fate(item);
        changed |= !matches!(fate, Fate::Kept);
        !matches!(fate, Fate::Removed)
    });
    changed
}

fn anthropic_block(block: &mut Value) -> Fate {
    let field = match block["type"].as_str() {
        Some("thinking") => "signature",
        Some("redacted_thinking") => "data",
        _ => return Fate::Kept,
    };
    match block[field].as_str().and_then(marked) {
        None => Fate::Kept,
        Some((Family::Claude, seal)) => {
            block[field] = seal.to_owned().into();
            Fate::Changed
        }
        Some(_) => Fate::Removed,
    }
}

fn gemini_part(part: &mut Value) -> Fate {
    let Some(field) = ["thoughtSignature", "thought_signature"]
        .into_iter()
        .find(|name| part.get(name).is_some())
    else {
        return Fate::Kept;
    };
    let seal = gemini::signature_in(part[field].as_str().unwrap_or_default().to_owned());
    match marked(&seal) {
        None => return Fate::Kept,
        Some((Family::Gemini, seal)) => part[field] = seal.to_owned().into(),
        Some(_) if part["thought"] == true => return Fate::Removed,
        Some(_) if part.get("functionCall").is_some() => part[field] = gemini::NO_SIGNATURE.into(),
        Some(_) => {
            part.as_object_mut().map(|part| part.shift_remove(field));
        }
    }
    Fate::Changed
}

fn responses_item(item: &mut Value) -> Fate {
    let ours = item["encrypted_content"]
        .as_str()
        .is_some_and(|content| content.starts_with(OURS));
    if ours && item["type"] == "reasoning" {
        Fate::Removed
    } else {
        Fate::Kept
    }
}

#[cfg(test)]
mod tests {
    use tollgate_types::{
        Operation,
        chat::{Message, Role},
        provider::{OnUnsupported, Quirks},
    };

    use super::*;
    use crate::{Order, Prepared, translate, view};

    fn sealed(seal: &str) -> ChatRequest {
        let call = Part::ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
            signature: Some(seal.to_owned()),
            cache: None,
        };
        let reasoning = Part::Reasoning {
            text: "hm".to_owned(),
            signature: Some(seal.to_owned()),
        };
        let redacted = Part::RedactedReasoning { data: seal.to_owned() };
        ChatRequest {
            messages: vec![Message::new(Role::Assistant, vec![reasoning, redacted, call])],
            ..ChatRequest::default()
        }
    }

    fn seals(request: &ChatRequest) -> Vec<&str> {
        let parts = request.messages.iter().flat_map(|message| &message.content);
        parts
            .filter_map(|part| match part {
                Part::Reasoning { signature, .. } | Part::ToolCall { signature, .. } => signature.as_deref(),
                Part::RedactedReasoning { data } => Some(data.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_seal_goes_back_to_its_family_and_to_no_other() {
        for client in [
            Dialect::OpenaiChat,
            Dialect::OpenaiResponses,
            Dialect::Anthropic,
            Dialect::Gemini,
            Dialect::Native,
        ] {
            for family in Family::ALL {
                let mut event = ChatEvent::ReasoningSignature {
                    signature: "c2ln".to_owned(),
                };
                mark(&mut event, family, client);
                let ChatEvent::ReasoningSignature { signature } = event else {
                    panic!("it is what it was")
                };
                for target in Family::ALL {
                    let mut request = sealed(&signature);
                    settle(&mut request, client, target);
                    let expected: &[&str] = if target == family { &["c2ln"; 3] } else { &[] };
                    assert_eq!(seals(&request), expected, "{client:?} {family:?} {target:?}");
                }
            }
        }
    }

    #[test]
    fn a_seal_without_a_mark_is_the_dialects_own() {
        let kept = |client, target| {
            let mut request = sealed("c2ln");
            settle(&mut request, client, target);
            seals(&request).len()
        };
        assert_eq!(kept(Dialect::Anthropic, Family::Claude), 3);
        assert_eq!(kept(Dialect::Anthropic, Family::Gemini), 0);
        assert_eq!(kept(Dialect::Gemini, Family::Gemini), 3);
        // Clients of OpenAI's chat dialect hold Claude's reasoning and Gemini's calls.
        assert_eq!(kept(Dialect::OpenaiChat, Family::Claude), 2);
        assert_eq!(kept(Dialect::OpenaiChat, Family::Gemini), 1);
    }

    fn passed(dialect: Dialect, body: &Value) -> Value {
        let body = body.to_string();
        let path = Some(("m", false));
        let view = view(dialect, Operation::Chat, path, body.as_bytes()).unwrap();
        let order = Order {
            client: dialect,
            provider: dialect,
            view: &view,
            body: body.as_bytes(),
            model: "m",
            quirks: Quirks::default(),
            unsupported: OnUnsupported::Refuse,
        };
        let Prepared::Call(call) = translate(&order).unwrap() else {
            panic!("a chat is a call")
        };
        serde_json::from_slice(&call.body).unwrap()
    }

    #[test]
    fn requests_that_pass_as_they_are_lose_foreign_seals_alone() {
        let turn = |blocks: Value| {
            json!({ "model": "m", "max_tokens": 9, "messages": [
                { "role": "user", "content": "what of tollgate.from.gemini: ?" },
                { "role": "assistant", "content": blocks },
            ] })
        };
        let body = turn(json!([
            { "type": "thinking", "thinking": "a", "signature": "tollgate.from.gemini:x" },
            { "type": "thinking", "thinking": "b", "signature": "own" },
            { "type": "redacted_thinking", "data": "tollgate.from.claude:y" },
            { "type": "text", "text": "tollgate.from.gemini:", "new_field": 1 },
        ]));
        let expected = turn(json!([
            { "type": "thinking", "thinking": "b", "signature": "own" },
            { "type": "redacted_thinking", "data": "y" },
            { "type": "text", "text": "tollgate.from.gemini:", "new_field": 1 },
        ]));
        assert_eq!(passed(Dialect::Anthropic, &body), expected);

        let foreign = gemini::signature_out("tollgate.from.claude:x");
        let own = gemini::signature_out("tollgate.from.gemini:c2ln");
        let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }, { "role": "model", "parts": [
            { "text": "hm", "thought": true, "thoughtSignature": foreign },
            { "text": "so", "thoughtSignature": foreign },
            { "functionCall": { "name": "f", "args": {} }, "thoughtSignature": foreign },
            { "functionCall": { "name": "g", "args": {} }, "thoughtSignature": own },
        ] }] });
        let expected = json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }, { "role": "model", "parts": [
            { "text": "so" },
            { "functionCall": { "name": "f", "args": {} }, "thoughtSignature": gemini::NO_SIGNATURE },
            { "functionCall": { "name": "g", "args": {} }, "thoughtSignature": "c2ln" },
        ] }] });
        assert_eq!(passed(Dialect::Gemini, &body), expected);

        let body = json!({ "model": "m", "input": [
            { "role": "user", "content": "hi" },
            { "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA" },
            { "type": "reasoning", "id": "rs_2", "summary": [],
              "encrypted_content": "tollgate.signature:tollgate.from.claude:x" },
        ] });
        let mut expected = body.clone();
        expected["input"].as_array_mut().unwrap().pop();
        assert_eq!(passed(Dialect::OpenaiResponses, &body), expected);
    }
}
