//! Providers that speak their wire formats strictly, with scripted trouble and their own count: OpenAI's Chat Completions,
//! Responses and embeddings, Anthropic's Messages, Gemini's generateContent and Bedrock's Converse.
//!
//! Tests point Tollgate at it and then compare two books: what this provider says it was called for and would bill,
//! and what Tollgate's ledger says. It shares no code with Tollgate's dialects, so that a mistake in one cannot be
//! cancelled by the same mistake in the other.
//!
//! # Endpoints
//! - `POST /v1/chat/completions`, `/openai/deployments/{name}/chat/completions`, `/v1/responses`, `/v1/embeddings`,
//!   `GET /v1/models`: OpenAI and Azure. `POST /v1/messages`, `/v1/messages/count_tokens`: Anthropic.
//!   `POST /v1beta/models/{model}:{method}` and the same below `/v1/projects/…`: Gemini and Vertex AI.
//!   `POST /model/{model}/converse` and `/converse-stream`: Bedrock. Any key but `sk-invalid` is good.
//! - `GET /stats`: [`Stats`]. `GET /calls?since=N`: the log as [`Call`]s, from call number N on; the last 100,000 are kept unless told.
//! - `GET /script`, `PUT /script`: the [`Script`]; a bad one is a 400 that says what is wrong.
//! - `POST /reset`: zeroes counts and log, and starts the script's sequence of trouble anew.
//!
//! # Directives
//! Words in the last user message steer that call alone, and such a call with a trouble draws nothing from the script:
//! `#sim:status=429`, `#sim:cut` or `#sim:cut=3` (chunks), `#sim:error` or `#sim:error=3` (an error inside the 200),
//! `#sim:stall`, `#sim:ok` (no trouble), `#sim:delay_ms=500`, `#sim:chunk_delay_ms=20`, `#sim:chunk_tokens=4`,
//! `#sim:words=200`, `#sim:cached_tokens=10`, `#sim:cache_write_tokens=10`, `#sim:retry_after_s=2`, `#sim:omit_usage`,
//! `#sim:calls=2` (parallel tool calls), `#sim:think` or `#sim:think=5` (words of reasoning), `#sim:refuse`, `#sim:filter`,
//! `#sim:error_kind=context_length`, `content_policy`, `overloaded` or `quota`. An unknown one is a 400.

mod answer;
mod anthropic;
mod ask;
mod bedrock;
mod call;
mod check;
mod count;
mod embed;
mod error;
mod format;
mod gemini;
mod openai;
mod play;
mod responses;
mod routes;
mod script;
mod serve;
mod tokens;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub use self::{
    count::{Call, Outcome, Stats},
    script::{Rule, Script, ScriptError},
    serve::run,
};
use self::{
    count::{Counter, LOG_LENGTH, Ticket},
    script::Behaviour,
    trouble::{Draws, Trouble},
};

/// A handle to one provider's state; clones share it.
#[derive(Clone)]
pub struct Simulator {
    shared: Arc<Shared>,
}

struct Shared {
    counter: Counter,
    active: Mutex<Arc<Active>>,
}

/// A script in force, with how far its sequence of trouble has come. A call keeps the one it began with.
pub(crate) struct Active {
    script: Script,
    draws: Mutex<Draws>,
}

impl Active {
    fn new(script: Script) -> Arc<Self> {
        let draws = Mutex::new(Draws::new(&script));
        Arc::new(Self { script, draws })
    }

    /// The trouble of the next call under this rule.
    fn draw(&self, rule: Option<usize>, behaviour: &Behaviour) -> Trouble {
        lock(&self.draws).next(rule, behaviour)
    }
}

impl Simulator {
    /// A provider with this script and nothing counted. The script is taken as it is: [`Script::validate`] tells
    /// whether it makes sense; rates out of range count as the nearest in range.
    pub fn new(script: Script) -> Self {
        Self::keeping(LOG_LENGTH, script)
    }

    /// The same with a log of so many calls, of about 200 bytes each.
    pub fn keeping(log_length: usize, script: Script) -> Self {
        Self {
            shared: Arc::new(Shared {
                counter: Counter::new(log_length),
                active: Mutex::new(Active::new(script)),
            }),
        }
    }

    /// The totals so far.
    pub fn stats(&self) -> Stats {
        self.shared.counter.stats()
    }

    /// The log, oldest call first, as far as it is kept.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_since(0)
    }

    /// The log from this call on, counted from 0 since the start or the last reset.
    pub fn calls_since(&self, number: u64) -> Vec<Call> {
        self.shared.counter.calls(number)
    }

    /// Replaces the script for calls to come, and starts its sequence of trouble anew. As in [`Simulator::new`],
    /// the script is not validated.
    pub fn set_script(&self, script: Script) {
        *lock(&self.shared.active) = Active::new(script);
    }

    /// Zeroes counts and log, and starts the script's sequence of trouble anew. Calls still open are forgotten.
    pub fn reset(&self) {
        self.shared.counter.reset();
        let mut active = lock(&self.shared.active);
        *active = Active::new(active.script.clone());
    }

    fn active(&self) -> Arc<Active> {
        lock(&self.shared.active).clone()
    }

    fn open(&self, id: Option<String>, stop: CancellationToken) -> Ticket {
        self.shared.counter.open(id, stop)
    }
}

/// Locks plain data, which stays valid if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
