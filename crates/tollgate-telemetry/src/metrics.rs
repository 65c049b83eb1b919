//! Every metric of every role: name, unit, meaning.
//!
//! Names follow OpenTelemetry's generative-AI conventions where these have one. Labels are few and bounded: never a key,
//! a request or a session.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, MeterProvider, UpDownCounter},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// Label names.
pub mod label {
    pub const DIALECT: &str = "dialect";
    pub const DIRECTION: &str = "direction";
    pub const ISSUER: &str = "issuer";
    pub const KIND: &str = "kind";
    pub const MEASURE: &str = "measure";
    pub const MODEL: &str = "gen_ai.request.model";
    pub const OUTCOME: &str = "outcome";
    pub const POLICY: &str = "policy";
    pub const PROVIDER: &str = "gen_ai.provider.name";
    pub const REASON: &str = "reason";
    pub const STAGE: &str = "stage";
    pub const TOKEN_TYPE: &str = "gen_ai.token.type";
}

/// Seconds from a millisecond to ten minutes: a model call is slow, a stage is not.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0,
];

/// The instruments. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Requests that reached a terminal state, by dialect, model and outcome (`answered` or an error code).
    pub requests: Counter<u64>,
    /// Requests under way at this desk.
    pub in_flight: UpDownCounter<i64>,
    /// From acceptance to terminal state.
    pub request_duration: Histogram<f64>,
    /// From acceptance to the first piece of the answer.
    pub time_to_first_token: Histogram<f64>,
    /// Requests sent again because nobody claimed them or the worker was lost, by reason.
    pub resends: Counter<u64>,
    /// Jobs that ended, by model and outcome (`answered` or an error code).
    pub jobs: Counter<u64>,
    /// From a job's submission to its end.
    pub job_duration: Histogram<f64>,
    /// Webhooks that were sent, by outcome: delivered, failed (to be tried again) or given_up.
    pub webhooks: Counter<u64>,
    /// Requests that were answered while a hedge was under way, by model and whether the hedge won or lost.
    pub hedges: Counter<u64>,
    /// Targets that a router ejected, by provider.
    pub ejections: Counter<u64>,
    /// Messages that a stage handled, by stage and outcome.
    pub stage_messages: Counter<u64>,
    /// Time that a stage took for one message.
    pub stage_duration: Histogram<f64>,
    /// Messages that could not be read, by stage.
    pub garbage: Counter<u64>,
    /// Claims that a desk refused, by reason.
    pub claims_refused: Counter<u64>,
    /// Calls to providers, by provider and outcome.
    pub attempts: Counter<u64>,
    /// Time that a provider took.
    pub attempt_duration: Histogram<f64>,
    /// Permits taken, by provider.
    pub permits_used: UpDownCounter<i64>,
    /// Tokens used, by provider and type.
    pub tokens: Counter<u64>,
    /// What guardrails decided, by policy, direction and outcome.
    pub verdicts: Counter<u64>,
    /// Events written to the ledger, by kind.
    pub ledger_events: Counter<u64>,
    /// Events that could not be written and were set aside, by reason.
    pub ledger_quarantined: Counter<u64>,
    /// Attempts whose end nobody saw.
    pub orphans: Counter<u64>,
    /// Calls that settled without a known price.
    pub unpriced: Counter<u64>,
    /// Requests and calls for which a limit had no room or could not be asked, by measure and outcome: refused, refused_away,
    /// allowed_away.
    pub limits: Counter<u64>,
    /// Calls that cost more than was reserved for them.
    pub budget_overruns: Counter<u64>,
    /// Tokens of identity providers that were shown, by issuer and outcome: accepted, or why not.
    pub tokens_shown: Counter<u64>,
    /// Fetches of identity providers' keys, by issuer and outcome.
    pub key_fetches: Counter<u64>,
    /// How long audit took to answer for slices of limits.
    pub lease_duration: Histogram<f64>,
}

impl Metrics {
    pub(crate) fn new(provider: &SdkMeterProvider) -> Self {
        let meter = provider.meter("tollgate");
        let counter = |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        let level =
            |name: &'static str, text: &'static str| meter.i64_up_down_counter(name).with_description(text).build();
        let seconds = |name: &'static str, text: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(text)
                .with_boundaries(SECONDS.to_vec())
                .build()
        };
        Self {
            requests: counter("tollgate.requests", "requests that reached a terminal state"),
            in_flight: level("tollgate.requests.in_flight", "requests under way"),
            request_duration: seconds("gen_ai.server.request.duration", "from acceptance to terminal state"),
            time_to_first_token: seconds(
                "gen_ai.server.time_to_first_token",
                "from acceptance to the first piece",
            ),
            resends: counter("tollgate.resends", "requests sent again by their owner"),
            jobs: counter("tollgate.jobs", "jobs that ended"),
            job_duration: seconds("tollgate.job.duration", "from a job's submission to its end"),
            webhooks: counter("tollgate.webhooks", "webhooks sent"),
            hedges: counter(
                "tollgate.hedges",
                "requests answered while a second attempt was under way",
            ),
            ejections: counter("tollgate.router.ejections", "targets that a router ejected"),
            stage_messages: counter("tollgate.stage.messages", "messages handled by a stage"),
            stage_duration: seconds("tollgate.stage.duration", "time a stage took for one message"),
            garbage: counter("tollgate.stage.garbage", "messages that could not be read"),
            claims_refused: counter("tollgate.claims.refused", "claims that the owner refused"),
            attempts: counter("tollgate.attempts", "calls to providers"),
            attempt_duration: seconds("gen_ai.client.operation.duration", "time a provider took"),
            permits_used: level("tollgate.worker.permits_used", "calls under way in a worker"),
            tokens: counter("gen_ai.client.token.usage", "tokens used"),
            verdicts: counter("tollgate.guardrail.verdicts", "decisions of guardrails"),
            ledger_events: counter("tollgate.ledger.events", "events written to the ledger"),
            ledger_quarantined: counter("tollgate.ledger.quarantined", "ledger events set aside"),
            orphans: counter("tollgate.ledger.orphans", "attempts whose end nobody saw"),
            unpriced: counter("tollgate.ledger.unpriced", "calls that settled without a known price"),
            limits: counter("tollgate.limits", "requests and calls that a limit had no room for"),
            budget_overruns: counter("tollgate.budget.overruns", "calls that cost more than was reserved"),
            tokens_shown: counter(
                "tollgate.identity.tokens",
                "tokens of identity providers that were shown",
            ),
            key_fetches: counter("tollgate.identity.key_fetches", "fetches of identity providers' keys"),
            lease_duration: seconds(
                "tollgate.lease.duration",
                "how long audit took to answer for slices of limits",
            ),
        }
    }

    /// One call to a provider with what it used.
    pub fn record_attempt(&self, provider: &str, outcome: &'static str, seconds: f64, input: u64, output: u64) {
        let provider = KeyValue::new(label::PROVIDER, provider.to_owned());
        let labels = [provider.clone(), KeyValue::new(label::OUTCOME, outcome)];
        self.attempts.add(1, &labels);
        self.attempt_duration.record(seconds, &labels);
        self.tokens
            .add(input, &[provider.clone(), KeyValue::new(label::TOKEN_TYPE, "input")]);
        self.tokens
            .add(output, &[provider, KeyValue::new(label::TOKEN_TYPE, "output")]);
    }
}
