//! Screens answers on their way back: guardrail takes the worker's line, and has one of its own to the owner.
//!
//! Nothing unchecked is passed on. A text that could still turn into a match is held back until it cannot.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use tollgate_bus::{
    Courier,
    delivery::{Boxed, Line, LineEnd, Piece, Recipient, line},
};
use tollgate_dialect::text::{self, Slot, SlotKind};
use tollgate_telemetry::Metrics;
use tollgate_types::{
    Dialect, ErrorCode, Failure, RequestId,
    envelope::{Claim, Refusal},
};

use crate::{
    Denied, Session, Verdict, Window,
    stage::{Checked, Policies, check_body, record},
};

/// Stands between workers and owners.
pub(crate) struct Screening {
    pub(crate) policies: Policies,
    pub(crate) courier: Courier,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: TaskTracker,
}

impl Recipient for Screening {
    fn claim(&self, mut claim: Claim) -> Boxed<'_, Result<Line, Refusal>> {
        Box::pin(async move {
            let policy = claim.policy.take().ok_or(Refusal::Gone)?;
            let session = self.policies.get(&policy).ok_or(Refusal::Unreachable)?.answer.session();
            let screen = Screen {
                answer: Answer::new(claim.dialect, claim.stream, session),
                policy,
                metrics: self.metrics.clone(),
                frames: 0,
            };
            let owner = claim.owner.clone();
            let owner = self.courier.claim(&owner, claim).await?;
            let (mut line, end) = line();
            line.hold = owner.hold.clone();
            self.tasks.spawn(screen.pass_on(end, owner));
            Ok(line)
        })
    }

    fn conclude(&self, _: RequestId, _: u32, _: Failure) -> Boxed<'_, bool> {
        // Stages tell the owner itself.
        Box::pin(std::future::ready(false))
    }
}

struct Screen {
    answer: Answer,
    policy: String,
    metrics: Metrics,
    frames: u64,
}

impl Screen {
    /// Ends when either side does; dropping both lines tells the other.
    async fn pass_on(mut self, mut worker: LineEnd, owner: Line) {
        loop {
            let piece = tokio::select! {
                () = owner.hung_up.cancelled() => return,
                piece = worker.pieces.recv() => piece,
            };
            let checked = match piece {
                None => return,
                Some(Piece::Frame { payload, .. }) => self.answer.frame(&payload).map(|frames| (frames, None)),
                Some(Piece::End { failure: None, used }) => self
                    .answer
                    .rest()
                    .map(|frames| (frames, Some(Piece::End { failure: None, used }))),
                Some(last) => Ok((Vec::new(), Some(last))),
            };
            let (frames, last) = checked.unwrap_or_else(|Denied { .. }| {
                let failure = Failure::new(ErrorCode::PolicyDenied, "the answer was denied by a guardrail policy");
                self.answer.verdict = "deny";
                (
                    Vec::new(),
                    Some(Piece::End {
                        failure: Some(failure),
                        used: None,
                    }),
                )
            });
            for payload in frames {
                if owner
                    .pieces
                    .send(Piece::Frame {
                        seq: self.frames,
                        payload,
                    })
                    .await
                    .is_err()
                {
                    return;
                }
                self.frames += 1;
            }
            if let Some(last) = last {
                record(&self.metrics, &self.policy, "answer", self.answer.verdict);
                let released = matches!(last, Piece::Released(_));
                if owner.pieces.send(last).await.is_ok() && released {
                    // The worker goes on when it sees us hang up, so the owner has to have done so first.
                    owner.hung_up.cancelled().await;
                }
                return;
            }
        }
    }
}

/// The checks of one answer.
struct Answer {
    dialect: Dialect,
    streamed: bool,
    session: Session,
    held: BTreeMap<Slot, Held>,
    verdict: &'static str,
}

/// Text of one slot that has arrived and not gone out, and the last frame that brought some, on which made frames are
/// modelled.
struct Held {
    text: Pending,
    like: Value,
}

enum Pending {
    Text(Box<Window>),
    /// Arguments are JSON: a match may hide behind an escape, so they are checked when they are whole.
    Arguments(String),
}

impl Answer {
    fn new(dialect: Dialect, streamed: bool, session: Session) -> Self {
        Self {
            dialect,
            streamed,
            session,
            held: BTreeMap::new(),
            verdict: "allow",
        }
    }

    /// The frames that may go out for one that has come in.
    fn frame(&mut self, payload: &[u8]) -> Result<Vec<Bytes>, Denied> {
        if !self.streamed {
            let payload = without_tokens(payload);
            return match check_body(&payload, &mut self.session) {
                Checked::Allow => Ok(vec![payload]),
                Checked::Change(body) => {
                    self.verdict = "change";
                    Ok(vec![body])
                }
                Checked::Deny | Checked::Unreadable => Err(Denied { rule: 0 }),
            };
        }
        let Ok(mut frame) = serde_json::from_slice::<Value>(payload) else {
            return Err(Denied { rule: 0 });
        };
        text::withhold_tokens(&mut frame);
        let finished = text::finished(self.dialect, &frame);
        let (mut denied, mut touched) = (None, Vec::new());
        let (held, session) = (&mut self.held, &mut self.session);
        text::visit_frame(self.dialect, &mut frame, &mut |slot, text| {
            let out = match &slot.kind {
                SlotKind::Whole => check_whole(session, text),
                kind => {
                    let last = finished.contains(&slot.choice);
                    let held = held.entry(slot.clone()).or_insert_with(|| Held::new(kind, session));
                    touched.push(slot);
                    held.push(session, text).and_then(|mut out| {
                        if last {
                            out.push_str(&held.finish(session)?);
                        }
                        Ok(out)
                    })
                }
            };
            match out {
                Ok(out) => *text = out,
                Err(reason) => denied = Some(reason),
            }
        });
        if let Some(denied) = denied {
            return Err(denied);
        }
        for slot in touched {
            if let Some(held) = self.held.get_mut(&slot) {
                held.like = frame.clone();
            }
        }
        let mut frames = self.flush(|slot| finished.contains(&slot.choice))?;
        frames.push(frame.to_string().into());
        Ok(frames)
    }

    /// What is still held when the answer is complete.
    fn rest(&mut self) -> Result<Vec<Bytes>, Denied> {
        self.flush(|_| true)
    }

    fn flush(&mut self, which: impl Fn(&Slot) -> bool) -> Result<Vec<Bytes>, Denied> {
        let mut frames = Vec::new();
        for (slot, held) in self.held.iter_mut().filter(|(slot, _)| which(slot)) {
            let text = held.finish(&mut self.session)?;
            if !text.is_empty() {
                let frame = text::frame_with(self.dialect, &held.like, slot, text);
                frames.push(frame.to_string().into());
            }
        }
        Ok(frames)
    }
}

impl Held {
    fn new(kind: &SlotKind, session: &Session) -> Self {
        let text = match kind {
            SlotKind::Arguments(_) => Pending::Arguments(String::new()),
            SlotKind::Text(_) | SlotKind::Whole => Pending::Text(Box::new(Window::new(session))),
        };
        Self {
            text,
            like: Value::Null,
        }
    }

    fn push(&mut self, session: &mut Session, text: &str) -> Result<String, Denied> {
        match &mut self.text {
            Pending::Text(window) => window.push(session, text),
            Pending::Arguments(json) => {
                json.push_str(text);
                Ok(String::new())
            }
        }
    }

    fn finish(&mut self, session: &mut Session) -> Result<String, Denied> {
        match &mut self.text {
            Pending::Text(window) => window.finish(session),
            Pending::Arguments(json) => {
                let mut json = std::mem::take(json);
                let mut denied = None;
                text::visit_nested(&mut json, &mut |text| match session.check(text) {
                    Verdict::Allow => {}
                    Verdict::Change(masked) => *text = masked,
                    Verdict::Deny { rule } => denied = Some(Denied { rule }),
                });
                denied.map_or(Ok(json), Err)
            }
        }
    }
}

/// A whole answer without the log-probabilities of its tokens, if it has any.
fn without_tokens(payload: &[u8]) -> Bytes {
    let mentions = |name: &[u8]| payload.windows(name.len()).any(|word| word == name);
    if mentions(b"\"logprobs")
        && let Ok(mut body) = serde_json::from_slice::<Value>(payload)
    {
        text::withhold_tokens(&mut body);
        return body.to_string().into();
    }
    Bytes::copy_from_slice(payload)
}

/// A text that is complete in itself.
fn check_whole(session: &mut Session, text: &str) -> Result<String, Denied> {
    match session.check(text) {
        Verdict::Allow => Ok(text.to_owned()),
        Verdict::Change(masked) => Ok(masked),
        Verdict::Deny { rule } => Err(Denied { rule }),
    }
}
