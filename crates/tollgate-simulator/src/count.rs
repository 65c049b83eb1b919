//! The provider's own count: what was called, what came of it, and what it would be billed for.
//!
//! Tests hold Tollgate's ledger against this count, so it must never lose a call: a [`Ticket`] is opened when a
//! request has been read in full, and a ticket that is dropped before its end is a client that hung up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// How many calls the log keeps unless told; older ones are dropped from the log, not from the stats.
pub(crate) const LOG_LENGTH: usize = 100_000;

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Still running.
    Open,
    /// Answered to the end.
    Ok,
    /// A scripted error, as a status or inside a 200.
    Error,
    /// Failed authentication or validation.
    Refused,
    /// The simulator broke the answer off: by script, at the end of a stall, or because it was stopped.
    Cut,
    /// The client closed before the end.
    HungUp,
}

/// The totals. `calls` is the sum of the six outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Every chat request read in full, whatever came of it.
    pub calls: u64,
    /// Prompt tokens billed, of ended calls.
    pub input_tokens: u64,
    /// Answer tokens billed, of ended calls.
    pub output_tokens: u64,
    /// See [`Outcome::Ok`].
    pub ok: u64,
    /// See [`Outcome::Error`].
    pub errors: u64,
    /// See [`Outcome::Cut`].
    pub cut: u64,
    /// See [`Outcome::HungUp`].
    pub hung_up: u64,
    /// See [`Outcome::Refused`].
    pub refused: u64,
    /// See [`Outcome::Open`].
    pub open: u64,
}

impl Stats {
    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Open => &mut self.open,
            Outcome::Ok => &mut self.ok,
            Outcome::Error => &mut self.errors,
            Outcome::Refused => &mut self.refused,
            Outcome::Cut => &mut self.cut,
            Outcome::HungUp => &mut self.hung_up,
        }
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The request's `x-client-request-id`.
    pub id: Option<String>,
    /// The wire format that it spoke.
    #[serde(default)]
    pub format: String,
    /// The model asked for; `None` if the request was refused before it was known.
    pub model: Option<String>,
    /// The HTTP status; 0 while none has been sent, and for ever if the client left before.
    pub status: u16,
    /// How the call stands.
    pub outcome: Outcome,
    /// Prompt tokens billed.
    pub input_tokens: u64,
    /// Answer tokens billed.
    pub output_tokens: u64,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// When the request had been read, in Unix milliseconds.
    pub started_ms: u64,
    /// When the call ended, in Unix milliseconds.
    pub ended_ms: Option<u64>,
}

/// The stats and the log, shared by all connections.
#[derive(Clone)]
pub(crate) struct Counter {
    inner: Arc<Mutex<Inner>>,
    log_length: usize,
}

#[derive(Default)]
struct Inner {
    stats: Stats,
    log: VecDeque<Call>,
    /// How many calls have been dropped from the front of the log.
    forgotten: u64,
    /// Counts resets: a ticket from before one must not change the new counts.
    epoch: u64,
    /// Counts calls over resets, for ids that never repeat.
    serial: u64,
}

impl Inner {
    /// The log's line for a call, if it is still there.
    fn line(&mut self, number: u64) -> Option<&mut Call> {
        let place = number.checked_sub(self.forgotten)?;
        self.log.get_mut(usize::try_from(place).ok()?)
    }
}

impl Counter {
    pub(crate) fn new(log_length: usize) -> Self {
        Self {
            inner: Arc::default(),
            log_length,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The data is plain counts, valid after any panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// The log from the call with this number on; the first call after a reset is 0.
    pub(crate) fn calls(&self, since: u64) -> Vec<Call> {
        let inner = self.lock();
        let skip = usize::try_from(since.saturating_sub(inner.forgotten)).unwrap_or(usize::MAX);
        inner.log.iter().skip(skip).cloned().collect()
    }

    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        *inner = Inner {
            epoch: inner.epoch + 1,
            serial: inner.serial,
            ..Inner::default()
        };
    }

    /// Opens a call. `stop` tells a simulator that was stopped from a client that left.
    pub(crate) fn open(&self, id: Option<String>, stop: CancellationToken) -> Ticket {
        let mut inner = self.lock();
        inner.stats.calls += 1;
        inner.stats.open += 1;
        inner.log.push_back(Call {
            id,
            format: String::new(),
            model: None,
            status: 0,
            outcome: Outcome::Open,
            input_tokens: 0,
            output_tokens: 0,
            stream: false,
            started_ms: now_ms(),
            ended_ms: None,
        });
        let number = inner.forgotten + inner.log.len() as u64 - 1;
        if inner.log.len() > self.log_length {
            inner.log.pop_front();
            inner.forgotten += 1;
        }
        inner.serial += 1;
        Ticket {
            counter: self.clone(),
            stop,
            epoch: inner.epoch,
            number,
            serial: inner.serial,
            input_tokens: 0,
            output_tokens: 0,
            ended: false,
        }
    }
}

/// An open call. It ends exactly once: by [`Ticket::end`], or by being dropped.
pub(crate) struct Ticket {
    counter: Counter,
    stop: CancellationToken,
    epoch: u64,
    number: u64,
    serial: u64,
    input_tokens: u64,
    output_tokens: u64,
    ended: bool,
}

impl Ticket {
    /// The call's number since the simulator was made, from 1.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Notes what the request asks for.
    pub(crate) fn asked(&self, model: Option<String>, stream: bool) {
        self.change(|call| {
            call.model = model;
            call.stream = stream;
        });
    }

    /// Notes the wire format.
    pub(crate) fn format(&self, name: &str) {
        self.change(|call| call.format = name.to_owned());
    }

    /// Notes the status line.
    pub(crate) fn status(&self, status: u16) {
        self.change(|call| call.status = status);
    }

    /// From here on the prompt is billed.
    pub(crate) fn bill_prompt(&mut self, tokens: u64) {
        self.input_tokens = tokens;
    }

    /// Adds answer tokens that have been written.
    pub(crate) fn bill_answer(&mut self, tokens: u64) {
        self.output_tokens += tokens;
    }

    /// Ends the call. Errors and refusals cost nothing.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (input, output) = match outcome {
            Outcome::Error | Outcome::Refused => (0, 0),
            _ => (self.input_tokens, self.output_tokens),
        };
        let mut inner = self.counter.lock();
        if inner.epoch != self.epoch {
            return;
        }
        inner.stats.open -= 1;
        inner.stats.input_tokens += input;
        inner.stats.output_tokens += output;
        *inner.stats.of(outcome) += 1;
        if let Some(call) = inner.line(self.number) {
            call.outcome = outcome;
            call.input_tokens = input;
            call.output_tokens = output;
            call.ended_ms = Some(now_ms());
        }
    }

    /// Changes this call's line, if the log still has it.
    fn change(&self, edit: impl FnOnce(&mut Call)) {
        let mut inner = self.counter.lock();
        if inner.epoch != self.epoch {
            return;
        }
        if let Some(call) = inner.line(self.number) {
            edit(call);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let stopped = self.stop.is_cancelled();
        self.end(if stopped { Outcome::Cut } else { Outcome::HungUp });
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
