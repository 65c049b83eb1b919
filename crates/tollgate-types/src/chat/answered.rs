//! An answer put together from its pieces.

use super::{ChatEvent, Citation, FinishReason, Media, Part, TokenLogprob};
use crate::Usage;

/// A whole answer. Its content is the assistant's turn, should the conversation go on.
#[derive(Clone, PartialEq, Default)]
pub struct Answered {
    pub id: String,
    pub model: String,
    pub content: Vec<Part>,
    pub finish: Option<FinishReason>,
    pub stop_sequence: Option<String>,
    pub usage: Option<Usage>,
    pub logprobs: Vec<TokenLogprob>,
}

impl Answered {
    /// Puts the pieces together in their order.
    #[must_use]
    pub fn of(events: impl IntoIterator<Item = ChatEvent>) -> Self {
        let mut whole = Self::default();
        // Index of the call that each tool call in `content` is for.
        let mut calls: Vec<(u32, usize)> = Vec::new();
        // Whether the last reasoning is signed, and so ended.
        let mut signed = false;
        for event in events {
            match event {
                ChatEvent::Start { id, model } => (whole.id, whole.model) = (id, model),
                ChatEvent::Text { text } => whole.text(text),
                ChatEvent::Refusal { text } => match whole.content.last_mut() {
                    Some(Part::Refusal { text: said }) => said.push_str(&text),
                    _ => whole.content.push(Part::Refusal { text }),
                },
                ChatEvent::Reasoning { text } => {
                    match whole.content.last_mut() {
                        Some(Part::Reasoning { text: said, .. }) if !signed => said.push_str(&text),
                        _ => whole.content.push(Part::Reasoning { text, signature: None }),
                    }
                    signed = false;
                }
                ChatEvent::ReasoningSignature { signature } => {
                    match whole.content.last_mut() {
                        Some(Part::Reasoning { signature: place, .. }) if !signed => *place = Some(signature),
                        _ => whole.content.push(Part::Reasoning {
                            text: String::new(),
                            signature: Some(signature),
                        }),
                    }
                    signed = true;
                }
                ChatEvent::RedactedReasoning { data } => whole.content.push(Part::RedactedReasoning { data }),
                ChatEvent::ToolCall {
                    index,
                    id,
                    name,
                    arguments,
                    signature,
                } => {
                    let known = calls.iter().find(|(call, _)| *call == index).map(|(_, place)| *place);
                    match known.and_then(|place| whole.content.get_mut(place)) {
                        Some(Part::ToolCall { arguments: said, .. }) => said.push_str(&arguments),
                        _ => {
                            calls.push((index, whole.content.len()));
                            whole.content.push(Part::ToolCall {
                                id: id.unwrap_or_default(),
                                name: name.unwrap_or_default(),
                                arguments,
                                signature,
                                cache: None,
                            });
                        }
                    }
                }
                ChatEvent::Citation { citation } => whole.citation(citation),
                ChatEvent::Logprobs { tokens } => whole.logprobs.extend(tokens),
                ChatEvent::Media { media_type, data } => {
                    let is_sound = media_type.starts_with("audio/");
                    let media = Media::Inline { media_type, data };
                    whole.content.push(if is_sound {
                        Part::Audio { media, cache: None }
                    } else {
                        Part::Image {
                            media,
                            detail: None,
                            cache: None,
                        }
                    });
                }
                ChatEvent::Finish { reason, stop_sequence } => {
                    whole.finish = Some(reason);
                    whole.stop_sequence = stop_sequence;
                }
                ChatEvent::Usage { usage } => whole.usage = Some(usage),
            }
        }
        whole
    }

    fn text(&mut self, text: String) {
        match self.content.last_mut() {
            Some(Part::Text { text: said, .. }) => said.push_str(&text),
            _ => self.content.push(Part::text(text)),
        }
    }

    fn citation(&mut self, citation: Citation) {
        match self.content.last_mut() {
            Some(Part::Text { citations, .. }) => citations.push(citation),
            _ => self.content.push(Part::Text {
                text: String::new(),
                cache: None,
                citations: vec![citation],
            }),
        }
    }

    /// All text together.
    #[must_use]
    pub fn all_text(&self) -> String {
        let texts = self.content.iter().filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_together_in_their_order() {
        let call = |index, id: Option<&str>, arguments: &str| ChatEvent::ToolCall {
            index,
            id: id.map(str::to_owned),
            name: id.map(str::to_owned),
            arguments: arguments.to_owned(),
            signature: None,
        };
        let reasoning = |text: &str| ChatEvent::Reasoning { text: text.to_owned() };
        let whole = Answered::of([
            reasoning("a"),
            reasoning("b"),
            ChatEvent::ReasoningSignature {
                signature: "s".to_owned(),
            },
            reasoning("c"),
            ChatEvent::Text { text: "x".to_owned() },
            ChatEvent::Text { text: "y".to_owned() },
            call(0, Some("one"), "{"),
            call(1, Some("two"), ""),
            call(0, None, "}"),
        ]);
        let kinds: Vec<_> = whole
            .content
            .iter()
            .map(|part| match part {
                Part::Reasoning { text, signature } => format!("{text}:{}", signature.as_deref().unwrap_or_default()),
                Part::Text { text, .. } => text.clone(),
                Part::ToolCall { id, arguments, .. } => format!("{id}{arguments}"),
                _ => String::new(),
            })
            .collect();
        assert_eq!(kinds, ["ab:s", "c:", "xy", "one{}", "two"]);
        assert_eq!(whole.all_text(), "xy");
    }
}
