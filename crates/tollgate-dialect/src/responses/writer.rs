//! Answers for clients: one `response` object, or the events that build it.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatEvent, ChatRequest, Citation, FinishReason, TokenLogprob},
};

use super::{
    answer::{self, Frame, Status},
    citation,
    item::{Body, Call, Item, Words, logprob},
    sealed::Sealed,
};
use crate::{BadAnswer, names::fresh, side::Writer};

/// Writes one answer. Items come one after the other: an item is closed before the next begins.
pub(super) struct ResponseWriter {
    settings: Map<String, Value>,
    frame: Option<Frame>,
    /// Whether events are wanted.
    stream: bool,
    sequence: u64,
    /// Frames that the event being written has made.
    frames: Vec<Bytes>,
    /// Closed items.
    output: Vec<Value>,
    open: Option<Item>,
    /// Whether log-probabilities are to come: they belong into the delta of their text, which has to wait for them.
    waits: bool,
    waiting: Option<String>,
    /// The last text, by item and part: citations may come late.
    last_text: Option<(usize, usize)>,
    calls: HashSet<u32>,
    refused: bool,
    status: Option<Status>,
    usage: Option<Usage>,
}

impl ResponseWriter {
    pub(super) fn new(request: &ChatRequest) -> Self {
        Self {
            settings: answer::settings(request),
            frame: None,
            stream: true,
            sequence: 0,
            frames: Vec::new(),
            output: Vec::new(),
            open: None,
            waits: request.logprobs.is_some(),
            waiting: None,
            last_text: None,
            calls: HashSet::new(),
            refused: false,
            status: None,
            usage: None,
        }
    }

    fn write(&mut self, event: ChatEvent) -> Result<(), BadAnswer> {
        match event {
            ChatEvent::Start { id, model } => return self.start(id, model),
            ChatEvent::Usage { usage } => {
                self.usage = Some(usage);
                return Ok(());
            }
            _ if self.frame.is_none() => return Err(BadAnswer::Misplaced("content before the start")),
            _ if self.status.is_some() => return Err(BadAnswer::Misplaced("content after the end")),
            ChatEvent::Logprobs { tokens } => return self.logprobs(&tokens),
            _ => {}
        }
        self.release()?;
        match event {
            ChatEvent::Text { text } if text.is_empty() => Ok(()),
            ChatEvent::Text { text } if self.waits => {
                self.text_part()?;
                self.waiting = Some(text);
                Ok(())
            }
            ChatEvent::Text { text } => self.text(&text, &[]),
            ChatEvent::Refusal { text } => self.refusal(&text),
            ChatEvent::Reasoning { text } => self.reasoning(&text),
            ChatEvent::ReasoningSignature { signature } => self.sign(&Sealed::Signature(signature)),
            ChatEvent::RedactedReasoning { data } => self.sealed(&Sealed::Redacted(data)),
            ChatEvent::ToolCall {
                index,
                id,
                name,
                arguments,
                signature,
            } => {
                self.begin_call(index, id, name, signature)?;
                self.arguments(&arguments)
            }
            ChatEvent::Citation { citation } => self.citation(&citation),
            ChatEvent::Media { .. } => Err(BadAnswer::Inexpressible("an image or a sound")),
            ChatEvent::Finish { reason, .. } => self.finish(reason),
            ChatEvent::Start { .. } | ChatEvent::Usage { .. } | ChatEvent::Logprobs { .. } => Ok(()),
        }
    }

    fn start(&mut self, id: String, model: String) -> Result<(), BadAnswer> {
        if self.frame.is_some() {
            return Err(BadAnswer::Misplaced("a second start"));
        }
        let id = if id.starts_with("resp_") { id } else { fresh("resp_") };
        let frame = Frame::new(std::mem::take(&mut self.settings), id, model, answer::now());
        let response = frame.response(Status::InProgress, &[], None);
        self.frame = Some(frame);
        self.emit("response.created", json!({ "response": response }))?;
        self.emit("response.in_progress", json!({ "response": response }))
    }

    /// Adds an event to the frames. `fields` are its fields beside type and number.
    fn emit(&mut self, kind: &str, fields: Value) -> Result<(), BadAnswer> {
        if !self.stream {
            return Ok(());
        }
        let mut event = Map::from_iter([
            ("type".to_owned(), json!(kind)),
            ("sequence_number".to_owned(), json!(self.sequence)),
        ]);
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.sequence += 1;
        let frame = serde_json::to_vec(&event).map_err(|_| BadAnswer::NotJson)?;
        self.frames.push(frame.into());
        Ok(())
    }

    /// Adds an event of the open item; `index` names the field that holds the part's index, if it is of a part.
    fn emit_in_item(&mut self, kind: &str, part: Option<(&str, usize)>, fields: Value) -> Result<(), BadAnswer> {
        let Some(item) = &self.open else {
            return Ok(());
        };
        let mut event = Map::from_iter([
            ("item_id".to_owned(), json!(item.id)),
            ("output_index".to_owned(), json!(self.output.len())),
        ]);
        if let Some((name, index)) = part {
            event.insert(name.to_owned(), json!(index));
        }
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.emit(kind, event.into())
    }

    fn open(&mut self, prefix: &str, body: Body) -> Result<(), BadAnswer> {
        self.close(Status::Completed)?;
        let item = Item {
            id: fresh(prefix),
            body,
        };
        let added = json!({ "output_index": self.output.len(), "item": item.json("in_progress") });
        self.open = Some(item);
        self.emit("response.output_item.added", added)
    }

    /// Ends the open item, if there is one.
    fn close(&mut self, status: Status) -> Result<(), BadAnswer> {
        self.close_words()?;
        if let Some(Body::Reasoning { text: Some(text), .. }) = self.open.as_ref().map(|item| &item.body) {
            let text = text.clone();
            let part = Some(("summary_index", 0));
            self.emit_in_item("response.reasoning_summary_text.done", part, json!({ "text": text }))?;
            let summary = json!({ "part": { "type": "summary_text", "text": text } });
            self.emit_in_item("response.reasoning_summary_part.done", part, summary)?;
        }
        self.close_arguments(status)?;
        let Some(item) = self.open.take() else {
            return Ok(());
        };
        let done = item.json(status.as_str());
        let output_index = self.output.len();
        self.output.push(done.clone());
        self.emit(
            "response.output_item.done",
            json!({ "output_index": output_index, "item": done }),
        )?;
        match item.body {
            Body::Call(Call {
                id: call_id,
                signature: Some(signature),
                ..
            }) => self.sealed(&Sealed::Call { call_id, signature }),
            _ => Ok(()),
        }
    }

    fn words(&mut self) -> Option<&mut Vec<Words>> {
        match self.open.as_mut().map(|item| &mut item.body) {
            Some(Body::Message(words)) => Some(words),
            _ => None,
        }
    }

    fn close_words(&mut self) -> Result<(), BadAnswer> {
        let Some(words) = self.words() else {
            return Ok(());
        };
        let Some(last) = words.last() else {
            return Ok(());
        };
        let part = Some(("content_index", words.len() - 1));
        let json = last.json();
        let (kind, fields) = match last {
            Words::Text { .. } => {
                let fields = json!({ "text": json["text"], "logprobs": json["logprobs"] });
                ("response.output_text.done", fields)
            }
            Words::Refusal(refusal) => ("response.refusal.done", json!({ "refusal": refusal })),
        };
        self.emit_in_item(kind, part, fields)?;
        self.emit_in_item("response.content_part.done", part, json!({ "part": json }))
    }

    /// Begins a part of a message, in the open one if there is one.
    fn open_words(&mut self, words: Words) -> Result<(), BadAnswer> {
        if self.words().is_none() {
            self.open("msg_", Body::Message(Vec::new()))?;
        }
        self.close_words()?;
        let output_index = self.output.len();
        let json = words.json();
        let is_text = matches!(words, Words::Text { .. });
        let Some(parts) = self.words() else {
            return Ok(());
        };
        parts.push(words);
        let index = parts.len() - 1;
        if is_text {
            self.last_text = Some((output_index, index));
        }
        let part = Some(("content_index", index));
        self.emit_in_item("response.content_part.added", part, json!({ "part": json }))
    }

    fn text_part(&mut self) -> Result<(), BadAnswer> {
        match self.words().and_then(|words| words.last()) {
            Some(Words::Text { .. }) => Ok(()),
            _ => self.open_words(Words::empty_text()),
        }
    }

    /// Writes the text that waited for its log-probabilities.
    fn release(&mut self) -> Result<(), BadAnswer> {
        match self.waiting.take() {
            Some(text) => self.text(&text, &[]),
            None => Ok(()),
        }
    }

    fn logprobs(&mut self, tokens: &[TokenLogprob]) -> Result<(), BadAnswer> {
        let text = self.waiting.take().unwrap_or_default();
        self.text(&text, tokens)
    }

    fn text(&mut self, more: &str, tokens: &[TokenLogprob]) -> Result<(), BadAnswer> {
        self.text_part()?;
        let Some(words) = self.words() else {
            return Ok(());
        };
        let index = words.len().saturating_sub(1);
        if let Some(Words::Text { text, logprobs, .. }) = words.last_mut() {
            text.push_str(more);
            logprobs.extend(tokens.iter().map(|token| logprob(token, true)));
        }
        let deltas: Vec<_> = tokens.iter().map(|token| logprob(token, false)).collect();
        let fields = json!({ "delta": more, "logprobs": deltas });
        self.emit_in_item("response.output_text.delta", Some(("content_index", index)), fields)
    }

    fn refusal(&mut self, more: &str) -> Result<(), BadAnswer> {
        self.refused = true;
        if !matches!(self.words().and_then(|words| words.last()), Some(Words::Refusal(_))) {
            self.open_words(Words::Refusal(String::new()))?;
        }
        let Some(words) = self.words() else {
            return Ok(());
        };
        let index = words.len().saturating_sub(1);
        if let Some(Words::Refusal(refusal)) = words.last_mut() {
            refusal.push_str(more);
        }
        let part = Some(("content_index", index));
        self.emit_in_item("response.refusal.delta", part, json!({ "delta": more }))
    }

    /// Annotates the last text, though its item may be closed: some providers cite at the end of their answer.
    fn citation(&mut self, said: &Citation) -> Result<(), BadAnswer> {
        let (output_index, content_index) = match self.last_text {
            Some(place) => place,
            None => {
                self.text_part()?;
                self.last_text.unwrap_or_default()
            }
        };
        let count = |text: &str| text.chars().count() as u64;
        let closed = self.output.get_mut(output_index);
        let (item_id, annotations, length) = if let Some(item) = closed {
            let item_id = item["id"].clone();
            let part = &mut item["content"][content_index];
            let length = part["text"].as_str().map_or(0, count);
            (item_id, part["annotations"].as_array_mut(), length)
        } else {
            let item_id = json!(self.open.as_ref().map(|item| item.id.as_str()));
            match self.words().and_then(|words| words.get_mut(content_index)) {
                Some(Words::Text { text, annotations, .. }) => (item_id, Some(annotations), count(text)),
                _ => (item_id, None, 0),
            }
        };
        let Some(annotations) = annotations else {
            return Err(BadAnswer::Misplaced("a citation of no text"));
        };
        let annotation = citation::write(said, length);
        let annotation_index = annotations.len();
        annotations.push(annotation.clone());
        let fields = json!({
            "item_id": item_id,
            "output_index": output_index,
            "content_index": content_index,
            "annotation_index": annotation_index,
            "annotation": annotation,
        });
        self.emit("response.output_text.annotation.added", fields)
    }

    fn reasoning(&mut self, more: &str) -> Result<(), BadAnswer> {
        if !matches!(self.open.as_ref().map(|item| &item.body), Some(Body::Reasoning { .. })) {
            self.open_reasoning()?;
        }
        let part = Some(("summary_index", 0));
        let Some(Body::Reasoning { text, .. }) = self.open.as_mut().map(|item| &mut item.body) else {
            return Ok(());
        };
        let begins = text.is_none();
        text.get_or_insert_default().push_str(more);
        if begins {
            let summary = json!({ "part": { "type": "summary_text", "text": "" } });
            self.emit_in_item("response.reasoning_summary_part.added", part, summary)?;
        }
        self.emit_in_item("response.reasoning_summary_text.delta", part, json!({ "delta": more }))
    }

    fn open_reasoning(&mut self) -> Result<(), BadAnswer> {
        let body = Body::Reasoning {
            text: None,
            sealed: None,
        };
        self.open("rs_", body)
    }

    /// Ends the reasoning that is open, or makes an item of the seal alone.
    fn sign(&mut self, seal: &Sealed) -> Result<(), BadAnswer> {
        if !matches!(self.open.as_ref().map(|item| &item.body), Some(Body::Reasoning { .. })) {
            self.open_reasoning()?;
        }
        if let Some(Body::Reasoning { sealed, .. }) = self.open.as_mut().map(|item| &mut item.body) {
            *sealed = Some(seal.content());
        }
        self.close(Status::Completed)
    }

    fn sealed(&mut self, seal: &Sealed) -> Result<(), BadAnswer> {
        self.open_reasoning()?;
        self.sign(seal)
    }

    fn call(&mut self) -> Option<&mut Call> {
        match self.open.as_mut().map(|item| &mut item.body) {
            Some(Body::Call(call)) => Some(call),
            _ => None,
        }
    }

    /// Begins a call, unless it is the one that is open. Its signature goes before it, if it is known by then.
    fn begin_call(
        &mut self,
        index: u32,
        id: Option<String>,
        name: Option<String>,
        signature: Option<String>,
    ) -> Result<(), BadAnswer> {
        if let Some(call) = self.call().filter(|call| call.index == index) {
            if signature.is_some() {
                call.signature = signature;
            }
            return Ok(());
        }
        if !self.calls.insert(index) {
            return Err(BadAnswer::Misplaced("more of a call that had ended"));
        }
        let name = name.ok_or(BadAnswer::Lacks("the name of a call"))?;
        let id = id.unwrap_or_else(|| fresh("call_"));
        if let Some(signature) = signature {
            let call_id = id.clone();
            self.sealed(&Sealed::Call { call_id, signature })?;
        }
        let call = Call {
            index,
            id,
            name,
            arguments: String::new(),
            signature: None,
        };
        self.open("fc_", Body::Call(call))
    }

    fn arguments(&mut self, more: &str) -> Result<(), BadAnswer> {
        if more.is_empty() {
            return Ok(());
        }
        if let Some(call) = self.call() {
            call.arguments.push_str(more);
        }
        self.emit_in_item("response.function_call_arguments.delta", None, json!({ "delta": more }))
    }

    /// A call that was made without arguments has an empty object of them; one that was cut short may have none.
    fn close_arguments(&mut self, status: Status) -> Result<(), BadAnswer> {
        let Some(call) = self.call() else {
            return Ok(());
        };
        if call.arguments.is_empty() && status == Status::Completed {
            self.arguments("{}")?;
        }
        let Some(call) = self.call() else {
            return Ok(());
        };
        let fields = json!({ "name": call.name, "arguments": call.arguments });
        self.emit_in_item("response.function_call_arguments.done", None, fields)
    }

    fn finish(&mut self, reason: FinishReason) -> Result<(), BadAnswer> {
        let status = Status::of(reason, self.refused);
        self.close(status)?;
        self.status = Some(status);
        Ok(())
    }

    fn response(&self) -> Result<(Status, Value), BadAnswer> {
        let frame = self.frame.as_ref().ok_or(BadAnswer::Lacks("a start"))?;
        let status = self.status.ok_or(BadAnswer::Lacks("a finish reason"))?;
        Ok((status, frame.response(status, &self.output, self.usage.as_ref())))
    }
}

impl Writer for ResponseWriter {
    fn event(&mut self, event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer> {
        self.write(event)?;
        Ok(std::mem::take(&mut self.frames))
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        let (status, response) = self.response()?;
        let kind = format!("response.{}", status.as_str());
        self.emit(&kind, json!({ "response": response }))?;
        Ok(std::mem::take(&mut self.frames))
    }

    fn whole(&mut self, events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer> {
        self.stream = false;
        for event in events {
            self.write(event)?;
        }
        let (_, response) = self.response()?;
        serde_json::to_vec(&response)
            .map(Bytes::from)
            .map_err(|_| BadAnswer::NotJson)
    }
}
