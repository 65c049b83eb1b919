//! What `tollgate.yaml` says, once it has been read and found free of mistakes.
//!
//! Each role reads only the section it needs. Values here are typed and checked: a name is a valid name, a URL is a URL,
//! a reference between sections points to something that exists.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use chrono::{DateTime, Utc};
pub use tollgate_types::grant::{Grant, Permission, Tenant};
use tollgate_types::{
    Dialect, Role,
    provider::{OnUnsupported, Quirks},
};

use crate::SecretRef;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub bus: Bus,
    pub ingress: Ingress,
    pub keys: Vec<Key>,
    pub issuers: Vec<Issuer>,
    pub models: Vec<Model>,
    pub providers: Vec<Provider>,
    pub guardrail: Guardrail,
    pub router: Router,
    pub worker: Worker,
    pub audit: Audit,
    pub telemetry: Telemetry,
}

impl Config {
    /// Of each provider, its name, that of its price list, and its region.
    pub fn price_lists(&self) -> impl Iterator<Item = (String, String, Option<String>)> {
        let list = |one: &Provider| (one.name.clone(), one.price_list.clone(), one.region.clone());
        self.providers.iter().map(list)
    }
}

/// `bus`: how to reach NATS. Overridden by `NATS_URL`.
#[derive(Debug, Clone)]
pub struct Bus {
    /// `nats://host:port`, several separated by commas.
    pub url: String,
    /// Largest payload, in bytes, that travels inside a message; larger ones go through the object store.
    pub inline_limit: usize,
    /// Copies that JetStream keeps of each stream.
    pub replicas: usize,
    /// How long the ledger stream keeps what it holds.
    pub retention: Duration,
    /// How long jobs and their answers are kept.
    pub job_retention: Duration,
    /// What the ledger stream may hold, in bytes.
    pub ledger_storage: usize,
    /// What each of the stores of the durable lane may hold: jobs, their ends, large bodies, files.
    pub job_storage: usize,
}

/// `ingress`: the doors, and the desk where answers are awaited.
#[derive(Debug, Clone)]
pub struct Ingress {
    pub http_listen: SocketAddr,
    pub grpc_listen: SocketAddr,
    /// Where workers and guardrails deliver answers. Not for clients.
    pub delivery_listen: SocketAddr,
    /// The address under which they reach it, `http://host:port`; by default `delivery_listen` itself.
    pub delivery_advertise: Option<String>,
    /// Requests under way at once; one more is refused.
    pub max_in_flight: usize,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Most objects and arrays inside one another in a request body.
    pub max_depth: usize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// Most bytes in the headers of a request.
    pub max_header_bytes: usize,
    /// Bytes of request bodies held at once over all requests.
    pub max_buffered_bytes: usize,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long to wait for a worker to claim a request before sending it again.
    pub claim_timeout: Duration,
    /// How often a request is sent again before it fails.
    pub max_resends: u32,
    pub jobs: JobSettings,
    pub webhooks: WebhookSettings,
    pub limits: LimitSettings,
}

/// `ingress.limits`: what budgets and rate limits go by.
#[derive(Debug, Clone, Copy)]
pub struct LimitSettings {
    /// Tokens of an answer for which its request sets no limit.
    pub assumed_output: u64,
    /// Calls to models without a price are refused also where no budget applies.
    pub refuse_unpriced: bool,
}

/// `ingress.webhooks`: telling submitters that their jobs have ended.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// `whsec_` and the base64 of at least 24 bytes. Without it, webhooks are refused.
    pub secret: Option<SecretRef>,
    /// Hosts that may be in private networks and be called over plain http.
    pub private_hosts: Vec<String>,
    /// How long a receiver may take.
    pub timeout: Duration,
    /// How long after its job's end a webhook is tried again.
    pub give_up: Duration,
}

/// `ingress.jobs`: how durable requests are dispatched.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Jobs that one ingress replica has under way at once; 0 leaves them to other replicas.
    pub concurrency: usize,
    /// How long a job may wait in all, and how long it does unless its submitter says less.
    pub deadline: Duration,
    /// Calls that may fail before the job does, of those that a provider answered or broke off. A provider that cannot be
    /// reached, is busy or limits us does not count: the job waits.
    pub max_failed_calls: u32,
    /// Pause before the second try; it doubles with each.
    pub min_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
    /// Most jobs in one call of `SubmitBatch`, and most lines of a batch's file.
    pub max_batch: usize,
    /// Largest file of a batch, in bytes.
    pub max_file_bytes: usize,
}

/// An entry of `keys`. The secret itself is never in the file.
#[derive(Debug, Clone)]
pub struct Key {
    pub name: String,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    pub expires_at: Option<DateTime<Utc>>,
    pub tenant: Tenant,
    pub grant: Grant,
}

/// An entry of `issuers`: an identity provider whose tokens are accepted as keys are.
#[derive(Debug, Clone)]
pub struct Issuer {
    pub name: String,
    /// The tokens' `iss`, letter for letter.
    pub issuer: String,
    /// One of them is in the tokens' `aud`.
    pub audiences: Vec<String>,
    /// Where its keys are; what its discovery document says, if not given.
    pub jwks_url: Option<String>,
    /// The claim by which reports and the audit log name the holder.
    pub name_claim: String,
    pub organisation: Option<Claimed>,
    pub team: Option<Claimed>,
    /// The claim that has the holder's roles or groups: a name or several, as a list or with spaces between them.
    pub role_claim: String,
    /// Roles by the values of that claim.
    pub roles: BTreeMap<String, Role>,
    /// The role of who has none of those; he is refused without it.
    pub default_role: Option<Role>,
    /// What no token may go beyond.
    pub grant: Grant,
    /// How far its clock and ours may differ.
    pub leeway: Duration,
    /// How old its keys become before they are fetched again.
    pub refresh: Duration,
    /// How old they may become when they cannot be.
    pub keep: Duration,
}

/// Where a token's organisation or team comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the same for all tokens.
    Fixed(String),
    /// The claim of this name says it.
    Claim(String),
}

/// An entry of `models`: a public name and the targets that serve it, best first.
#[derive(Debug, Clone)]
pub struct Model {
    pub name: String,
    pub targets: Vec<ModelTarget>,
    /// Tried instead, when a prompt is too long for one of `targets`.
    pub context_length_targets: Vec<ModelTarget>,
    /// Tried instead, when a provider's own rules refuse a prompt.
    pub content_policy_targets: Vec<ModelTarget>,
    /// Whether a slow request is asked of a second target too.
    pub hedge: Option<Hedge>,
}

/// `hedge` of a model: when a request that a client waits for is asked of a second target beside the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Hedge {
    /// It has waited longer than this share of the model's last requests did, for the first piece of their answers.
    pub percentile: f64,
    /// It has waited at least this long.
    pub min_delay: Duration,
    /// Hedges are at most this share of the model's requests.
    pub max_share: f64,
}

/// An entry of a model's `targets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTarget {
    /// Name of an entry of `providers`.
    pub provider: String,
    /// The name by which that provider knows the model.
    pub model: String,
}

/// An entry of `providers`. Only the provider's own worker reads its secrets.
#[derive(Debug, Clone)]
pub struct Provider {
    pub name: String,
    /// Never [`Dialect::Native`].
    pub dialect: Dialect,
    /// `https://host/v1`; plain `http` is accepted for loopback and private hosts only.
    pub base_url: String,
    pub auth: Auth,
    pub quirks: Quirks,
    pub unsupported: OnUnsupported,
    /// Whose price sheets hold for it; by default its preset's, or its own name.
    pub price_list: String,
    /// Where it serves, for prices that depend on it.
    pub region: Option<String>,
    /// Azure: deployments are named in the path, with this version of the API.
    pub api_version: Option<String>,
    /// Calls under way at once in each worker process.
    pub concurrency: usize,
    /// How long to wait for the provider's answer to begin.
    pub first_byte_timeout: Duration,
    /// How long an answer may pause.
    pub idle_timeout: Duration,
}

/// How a provider is shown who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// `Authorization: Bearer <key>`.
    Bearer(SecretRef),
    /// The key in a header of its own, such as `x-api-key`.
    Header { name: String, key: SecretRef },
    /// AWS Signature Version 4.
    Aws(AwsCredentials),
    /// A token of Google's OAuth: for the service account whose JSON key this is, or for the machine's own account.
    Google(Option<SecretRef>),
}

impl Auth {
    /// The secrets that a worker reads for it.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::None | Self::Google(None) => Vec::new(),
            Self::Bearer(key) | Self::Header { key, .. } | Self::Google(Some(key)) => vec![key],
            Self::Aws(aws) => {
                let keys = [&aws.access_key_id, &aws.secret_access_key].into_iter();
                keys.chain(&aws.session_token).collect()
            }
        }
    }
}

/// With what calls to AWS are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    pub region: String,
    pub access_key_id: SecretRef,
    pub secret_access_key: SecretRef,
    pub session_token: Option<SecretRef>,
}

/// `guardrail`: the checks, by policy.
#[derive(Debug, Clone)]
pub struct Guardrail {
    /// Where answers are delivered for screening.
    pub delivery_listen: SocketAddr,
    pub delivery_advertise: Option<String>,
    /// Requests checked at once.
    pub concurrency: usize,
    /// Always has one named `default`.
    pub policies: Vec<Policy>,
}

/// An entry of `guardrail.policies`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub prompt: Checks,
    pub answer: Checks,
}

/// What to look for on one way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// Phrases that must not occur; letter case and spacing do not matter.
    pub deny: Vec<String>,
    pub mask: Vec<Mask>,
}

impl Checks {
    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.mask.is_empty()
    }
}

/// A kind of personal data that is replaced by a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// `email`
    Email,
    /// `card`: payment card numbers whose checksum is right.
    Card,
}

/// `router`.
#[derive(Debug, Clone)]
pub struct Router {
    /// Requests routed at once.
    pub concurrency: usize,
    /// Calls to providers that one request may cause.
    pub max_attempts: usize,
    /// How often a target is tried again for the same request, after all others.
    pub retries: usize,
    /// Such retries, as a share of a model's requests.
    pub retry_share: f64,
    pub health: HealthSettings,
}

/// `router.health`: when a target that fails gets no requests for a while.
#[derive(Debug, Clone)]
pub struct HealthSettings {
    /// How far back failures count.
    pub window: Duration,
    /// Fewer failures in a window than this are no reason.
    pub min_failures: u32,
    /// Nor is a smaller share of its requests.
    pub failure_share: f64,
    /// How long, the first time; twice as long each time in a row.
    pub ejection: Duration,
    pub max_ejection: Duration,
    /// Over this time the target gets a growing share of its requests again.
    pub recovery: Duration,
}

/// `worker`: what all providers' workers share.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Largest answer that is not streamed, in bytes.
    pub max_answer_bytes: usize,
    /// Largest single event of a stream, in bytes.
    pub max_event_bytes: usize,
    /// How long to wait for the ledger to take an event before a call.
    pub ledger_timeout: Duration,
}

/// `audit`: the ledger.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Overridden by `DATABASE_URL`.
    pub database_url: Option<SecretRef>,
    /// Reports over gRPC.
    pub grpc_listen: SocketAddr,
    /// Events written in one transaction.
    pub batch: usize,
    /// How long an event stays in the ledger stream after it was written to the database.
    pub keep_events: Duration,
    /// How many months calls are in the ledger; for ever if not given. What they cost stays in the sums.
    pub keep_months: Option<u32>,
    /// How long after its deadline an attempt that has not settled becomes an orphan.
    pub orphan_grace: Duration,
    /// How often to look for orphans.
    pub orphan_interval: Duration,
    /// Connections to the database.
    pub max_connections: u32,
    /// Connections beside these for reports.
    pub report_connections: u32,
    /// How long a report may take.
    pub report_timeout: Duration,
}

/// `telemetry`.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Filter in `tracing`'s syntax. Overridden by `RUST_LOG`.
    pub log: String,
    pub log_format: LogFormat,
    /// Where spans and metrics are pushed over gRPC; nowhere by default. Overridden by `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<String>,
    /// Health and metrics: `/healthz`, `/readyz`, `/metrics`.
    pub admin_listen: SocketAddr,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
