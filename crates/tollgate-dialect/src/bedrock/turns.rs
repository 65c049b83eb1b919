//! The conversation: turns of user and assistant that alternate, the user's first.
//!
//! Converse has one place for instructions of the system, before the conversation. (Its model file knows a role `system` for
//! turns, but the models behind it refuse that role.) A later system turn becomes text of the user, between `<system>` tags
//! so that the model can tell whose words they are.
//!
//! What changes no answer is not sent to a model that would refuse the request for it: how finely to look at an image, marks
//! of what to cache, the citations of an earlier answer. Reasoning goes back only to who can have made it.

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::value::RawValue;
use tollgate_types::chat::{self, Cache, Media, Part, Role, SpanUnit};

use super::{
    media::Attachments,
    model::Model,
    tools::NAME,
    wire::{Block, CachePoint, Citation, Location, Message, Reasoning, Speaker, Stretch, TextOnly},
};
use crate::{Invalid, Refused, names::Names, side::Losses};

/// Stands for a user's turn that says nothing, which Converse refuses, and accompanies documents, for which it demands text.
const SILENCE: &str = ".";
/// Stands for the result of a tool that answered nothing.
const NO_RESULT: &str = "(no content)";
/// Answers the further calls when a model has glued several in one.
const SAME_RESULT: &str = "(answered together with the call before)";

/// Most characters of a call's id.
const LONGEST_ID: usize = 64;

/// The conversation as it is sent.
pub(super) struct Written<'a> {
    pub(super) system: Vec<Block<'a>>,
    pub(super) messages: Vec<Message<'a>>,
}

pub(super) fn write<'a>(
    messages: &'a [chat::Message],
    model: Model,
    names: &mut Names,
    losses: &mut Losses,
) -> Result<Written<'a>, Refused> {
    let mut turns = Turns {
        model,
        names,
        losses,
        attachments: Attachments::default(),
        system: Vec::new(),
        turns: Vec::new(),
        calls: HashMap::new(),
    };
    let leading = messages.iter().take_while(|message| is_system(message.role)).count();
    for (place, message) in messages.iter().enumerate() {
        let at = format!("messages[{place}]");
        if message.participant().is_some() {
            turns.losses.cannot(format!("{at}.name"))?;
        }
        for (part_place, part) in message.content.iter().enumerate() {
            let at = format!("{at}.content[{part_place}]");
            match message.role {
                Role::System | Role::Developer if place < leading => turns.system(part, &at)?,
                Role::System | Role::Developer => turns.later_system(part, &at)?,
                Role::User => turns.user(part, &at)?,
                Role::Assistant => turns.assistant(part, &at)?,
                Role::Tool => turns.result(part, &at)?,
            }
        }
        if message.role == Role::User {
            turns.speaks(Speaker::User);
        }
    }
    Ok(turns.finish())
}

const fn is_system(role: Role) -> bool {
    matches!(role, Role::System | Role::Developer)
}

/// A mark that what goes up to here is to be kept, for a model that can.
pub(super) fn cache_point(cache: Option<&Cache>, model: Model) -> Option<CachePoint> {
    let cache = cache.filter(|_| model.caches())?;
    let an_hour = cache.ttl.as_deref() == Some("1h") && model.caches_for_an_hour();
    Some(CachePoint {
        kind: "default",
        ttl: an_hour.then_some("1h"),
    })
}

/// An id of a call as Converse takes it; one that must be changed gets a hash, so that two stay two.
pub(super) fn call_id(id: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if !id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(allowed) {
        return id.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let end = format!("_{:016x}", hasher.finish());
    let plain = id.chars().map(|c| if allowed(c) { c } else { '_' });
    plain.take(LONGEST_ID - end.len()).collect::<String>() + &end
}

/// The objects that a call's arguments are: one, but for models that glue several calls together. None when they are
/// something else.
fn objects(arguments: &str) -> Option<Vec<&RawValue>> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::Deserializer::from_str(arguments)
        .into_iter::<&RawValue>()
        .map(|object| object.ok().filter(|object| object.get().starts_with('{')))
        .collect()
}

/// A turn in the making. Results come first in it: Claude wants them right after the calls.
struct Turn<'a> {
    speaker: Speaker,
    results: Vec<Block<'a>>,
    content: Vec<Block<'a>>,
}

struct Turns<'a, 'l> {
    model: Model,
    names: &'l mut Names,
    losses: &'l mut Losses,
    attachments: Attachments,
    system: Vec<Block<'a>>,
    turns: Vec<Turn<'a>>,
    /// The calls of the assistant's last turn: name, arguments, and how many were glued together.
    calls: HashMap<&'a str, (&'a str, &'a str, usize)>,
}

impl<'a> Turns<'a, '_> {
    fn turn(&mut self, speaker: Speaker) -> &mut Turn<'a> {
        if self.turns.last().is_none_or(|turn| turn.speaker != speaker) {
            if speaker == Speaker::Assistant {
                self.calls.clear();
            }
            self.turns.push(Turn {
                speaker,
                results: Vec::new(),
                content: Vec::new(),
            });
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last]
    }

    fn speaks(&mut self, speaker: Speaker) {
        self.turn(speaker);
    }

    fn push(&mut self, speaker: Speaker, block: Block<'a>, cache: Option<&Cache>) {
        let mark = cache_point(cache, self.model).map(Block::CachePoint);
        self.turn(speaker).content.extend([block].into_iter().chain(mark));
    }

    fn system(&mut self, part: &'a Part, at: &str) -> Result<(), Refused> {
        match part {
            Part::Text { text, .. } if text.is_empty() => Ok(()),
            Part::Text { text, cache, .. } => {
                self.system.push(Block::Text(text.into()));
                let mark = cache_point(cache.as_ref(), self.model);
                self.system.extend(mark.map(Block::CachePoint));
                Ok(())
            }
            _ => Ok(self.losses.cannot(format!("{at}: a system turn with more than text"))?),
        }
    }

    fn later_system(&mut self, part: &'a Part, at: &str) -> Result<(), Refused> {
        match part {
            Part::Text { text, .. } if text.trim().is_empty() => Ok(()),
            Part::Text { text, cache, .. } => {
                let text = format!("<system>\n{text}\n</system>");
                self.push(Speaker::User, Block::Text(text.into()), cache.as_ref());
                Ok(())
            }
            _ => Ok(self.losses.cannot(format!("{at}: a system turn with more than text"))?),
        }
    }

    fn user(&mut self, part: &'a Part, at: &str) -> Result<(), Refused> {
        let (block, cache) = match part {
            Part::Text { text, cache, .. } => (text_block(text), cache),
            Part::Image { media, cache, .. } => (Attachments::image(media, at, self.losses)?, cache),
            Part::Audio { media, cache } => (Attachments::audio(media, at, self.losses)?, cache),
            Part::File { media, filename, cache } => (self.document(media, filename.as_deref(), at)?, cache),
            _ => return Err(Invalid::at(at, "only an assistant's turn may hold this").into()),
        };
        if let Some(block) = block {
            self.push(Speaker::User, block, cache.as_ref());
        }
        Ok(())
    }

    fn document(
        &mut self,
        media: &'a Media,
        filename: Option<&'a str>,
        at: &str,
    ) -> Result<Option<Block<'a>>, Refused> {
        self.attachments.document(media, filename, at, self.losses)
    }

    fn assistant(&mut self, part: &'a Part, at: &str) -> Result<(), Refused> {
        match part {
            Part::Text { text, cache, citations } => {
                let block = self.cited(text, citations).or_else(|| text_block(text));
                if let Some(block) = block {
                    self.push(Speaker::Assistant, block, cache.as_ref());
                }
            }
            Part::Refusal { text } => {
                if let Some(block) = text_block(text) {
                    self.push(Speaker::Assistant, block, None);
                }
            }
            Part::Reasoning { text, signature } => {
                let signature = signature.as_deref().filter(|signature| !signature.is_empty());
                // Claude refuses reasoning that it has not signed.
                if signature.is_some() || !self.model.is_claude() {
                    let reasoning = Reasoning::ReasoningText { text, signature };
                    self.push(Speaker::Assistant, Block::ReasoningContent(reasoning), None);
                }
            }
            Part::RedactedReasoning { data } => {
                let block = Block::ReasoningContent(Reasoning::RedactedContent(data));
                self.push(Speaker::Assistant, block, None);
            }
            // A signature over a call is another provider's.
            Part::ToolCall {
                id,
                name,
                arguments,
                cache,
                ..
            } => self.call(id, name, arguments, cache.as_ref(), at)?,
            Part::Image { .. } | Part::Audio { .. } | Part::File { .. } => {
                self.losses.cannot(format!("{at}: media in an assistant's turn"))?;
            }
            Part::ToolResult { .. } => {
                return Err(Invalid::at(at, "an assistant's turn may hold no results of tools").into());
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        id: &'a str,
        name: &'a str,
        arguments: &'a str,
        cache: Option<&Cache>,
        at: &str,
    ) -> Result<(), Refused> {
        self.turn(Speaker::Assistant);
        if let Some((known, same, _)) = self.calls.get(id) {
            return if (*known, *same) == (name, arguments) {
                Ok(())
            } else {
                Err(Invalid::at(format!("{at}.id"), "another call of this turn has the same id").into())
            };
        }
        let inputs = match objects(arguments) {
            Some(inputs) => inputs,
            None => {
                self.losses.cannot(format!("{at}: arguments that are no JSON object"))?;
                objects("").unwrap_or_default()
            }
        };
        self.calls.insert(id, (name, arguments, inputs.len()));
        let last = inputs.len().saturating_sub(1);
        for (number, input) in inputs.into_iter().enumerate() {
            let block = Block::ToolUse {
                tool_use_id: glued_id(id, number),
                name: self.names.wire(name, NAME),
                input,
            };
            self.push(Speaker::Assistant, block, cache.filter(|_| number == last));
        }
        Ok(())
    }

    fn result(&mut self, part: &'a Part, at: &str) -> Result<(), Refused> {
        let Part::ToolResult {
            call_id: id,
            content,
            is_error,
            cache,
        } = part
        else {
            return Err(Invalid::at(at, "a turn of tools may hold results only").into());
        };
        let status = is_error.then_some("error");
        let mut blocks = Vec::new();
        let mut marked = cache.as_ref();
        for (place, part) in content.iter().enumerate() {
            let at = format!("{at}.content[{place}]");
            let (block, cache) = match part {
                Part::Text { text, cache, .. } => (text_block(text), cache),
                Part::Image { media, cache, .. } => (Attachments::image(media, &at, self.losses)?, cache),
                Part::File { media, filename, cache } => (self.document(media, filename.as_deref(), &at)?, cache),
                _ => {
                    self.losses
                        .cannot(format!("{at}: a tool's result that is no text, image or document"))?;
                    continue;
                }
            };
            blocks.extend(block);
            // A result can be marked only as a whole.
            marked = marked.or(cache.as_ref());
        }
        if blocks.is_empty() {
            blocks.push(Block::Text(NO_RESULT.into()));
        }
        let glued = self.calls.get(id.as_str()).map_or(1, |(_, _, glued)| *glued);
        let first = Block::ToolResult {
            tool_use_id: call_id(id),
            content: blocks,
            status,
        };
        let further = (1..glued).map(|number| Block::ToolResult {
            tool_use_id: glued_id(id, number),
            content: vec![Block::Text(SAME_RESULT.into())],
            status,
        });
        let mark = cache_point(marked, self.model).map(Block::CachePoint);
        let results = [first].into_iter().chain(further).chain(mark);
        self.turn(Speaker::User).results.extend(results);
        Ok(())
    }

    /// A text with what it rests on, for a model that cites.
    fn cited(&self, text: &'a str, citations: &'a [chat::Citation]) -> Option<Block<'a>> {
        let cites = matches!(self.model, Model::Claude(..) | Model::Unknown);
        if citations.is_empty() || text.trim().is_empty() || !cites {
            return None;
        }
        Some(Block::CitationsContent {
            content: [TextOnly { text }],
            citations: citations.iter().map(citation).collect(),
        })
    }

    fn finish(mut self) -> Written<'a> {
        if self.turns.first().is_none_or(|turn| turn.speaker != Speaker::User) {
            let turn = Turn {
                speaker: Speaker::User,
                results: Vec::new(),
                content: Vec::new(),
            };
            self.turns.insert(0, turn);
        }
        if let Some(last) = self.turns.last_mut().filter(|turn| turn.speaker == Speaker::Assistant)
            && let Some(Block::Text(text)) = last.content.last_mut()
        {
            // Claude refuses to continue a text that ends in white space.
            let end = text.trim_end().len();
            match text {
                Cow::Borrowed(text) => *text = &text[..end],
                Cow::Owned(text) => text.truncate(end),
            }
        }
        Written {
            system: self.system,
            messages: self.turns.into_iter().map(Turn::finish).collect(),
        }
    }
}

impl<'a> Turn<'a> {
    fn finish(self) -> Message<'a> {
        let Self {
            speaker,
            results: mut content,
            content: rest,
        } = self;
        content.extend(rest);
        let has = |wanted: fn(&Block<'_>) -> bool| content.iter().any(wanted);
        let is_mute = !has(|block| !matches!(block, Block::CachePoint(_)));
        let needs_text =
            has(|block| matches!(block, Block::Document { .. })) && !has(|block| matches!(block, Block::Text(_)));
        if is_mute || needs_text {
            content.push(Block::Text(SILENCE.into()));
        }
        Message { role: speaker, content }
    }
}

/// The id of one of several calls that were glued together.
fn glued_id(id: &str, number: usize) -> String {
    match number {
        0 => call_id(id),
        _ => call_id(&format!("{id}_{}", number + 1)),
    }
}

/// Converse refuses text without a word.
fn text_block(text: &str) -> Option<Block<'_>> {
    (!text.trim().is_empty()).then(|| Block::Text(text.into()))
}

fn citation(citation: &chat::Citation) -> Citation<'_> {
    let place = citation.document.zip(citation.source).map(|(document_index, span)| {
        let stretch = Stretch {
            document_index,
            start: span.start,
            end: span.end,
        };
        match span.unit {
            SpanUnit::Character => Location::DocumentChar(stretch),
            SpanUnit::Page => Location::DocumentPage(stretch),
            SpanUnit::Block => Location::DocumentChunk(stretch),
        }
    });
    let web = citation.url.as_deref().map(|url| Location::Web { url });
    Citation {
        title: citation.title.as_deref(),
        source_content: citation.quote.as_deref().map(|text| [TextOnly { text }]),
        location: place.or(web),
    }
}
