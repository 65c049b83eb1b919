//! Clients in both lanes, and what they were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate_types::{JobId, RequestId};

use super::stack::Stack;

const TIMEOUT: Duration = Duration::from_secs(40);
/// A submitter whose ingress has died tries the next one after this.
const PAUSE: Duration = Duration::from_millis(100);
const SUBMITTERS: usize = 8;
/// Models: with all targets at the provider that things happen to, and with one elsewhere.
pub(super) const ALONE: &str = "chaos";
pub(super) const SPARED: &str = "spared";

/// What the clients know.
pub(super) struct Load {
    client: Client,
    doors: Vec<String>,
    key: String,
    seed: u64,
    jobs_per_second: f64,
    clients: usize,
    number: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Requests that were answered whole, and how often each.
    answered: BTreeMap<RequestId, u32>,
    /// Clear refusals by code.
    refused: BTreeMap<String, u64>,
    /// Connections that broke before the end was clear, and what the client heard of one.
    broken: (u64, String),
    /// Answers that are not those of their question.
    wrong: u64,
    /// Requests for a model with a second provider that nothing happens to, and how many of them failed.
    spared: (u64, u64),
    /// Accepted jobs with what they ask.
    jobs: BTreeMap<JobId, String>,
}

/// The counts of the interactive lane.
pub(super) struct Told {
    pub(super) answered: BTreeSet<RequestId>,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) broken: (u64, String),
    pub(super) wrong: u64,
    pub(super) spared: (u64, u64),
}

enum Heard {
    Answered(RequestId, String),
    Refused(String),
    Broken(String),
}

impl Load {
    pub(super) fn new(stack: &Stack, seed: u64, jobs_per_second: f64, clients: usize) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::builder().timeout(TIMEOUT).build()?,
            doors: stack.doors.clone(),
            key: stack.key.clone(),
            seed,
            jobs_per_second,
            clients,
            number: AtomicU64::new(0),
            known: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accepted_jobs(&self) -> BTreeMap<JobId, String> {
        self.lock().jobs.clone()
    }

    pub(super) fn told(&self) -> Told {
        let known = self.lock();
        Told {
            answered: known.answered.keys().copied().collect(),
            refused: known.refused.clone(),
            broken: known.broken.clone(),
            wrong: known.wrong,
            spared: known.spared,
        }
    }

    /// Asks in both lanes until `calm`; then what is under way comes to its end.
    pub(super) async fn drive(self: Arc<Self>, calm: CancellationToken) {
        let mut clients = JoinSet::new();
        for index in 0..self.clients {
            let (this, calm) = (Arc::clone(&self), calm.clone());
            let rng = StdRng::seed_from_u64(self.seed.wrapping_add(index as u64));
            clients.spawn(async move { this.converse(rng, calm).await });
        }
        for index in 0..SUBMITTERS {
            let (this, calm) = (Arc::clone(&self), calm.clone());
            let rng = StdRng::seed_from_u64(self.seed.wrapping_sub(index as u64 + 1));
            clients.spawn(async move { this.submit(rng, calm).await });
        }
        while clients.join_next().await.is_some() {}
    }

    fn next(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    async fn converse(&self, mut rng: StdRng, calm: CancellationToken) {
        while !calm.is_cancelled() {
            let text = format!("question {}", self.next());
            let (door, stream) = (rng.random_range(0..self.doors.len()), rng.random_bool(0.5));
            let model = if rng.random_bool(0.5) { ALONE } else { SPARED };
            let heard = self.ask(door, model, &text, stream).await;
            let mut pause = Duration::ZERO;
            {
                let mut known = self.lock();
                let spared = (model == SPARED).then_some(&mut known.spared);
                if let Some((all, failed)) = spared {
                    *all += 1;
                    *failed += u64::from(!matches!(heard, Heard::Answered(..)));
                }
                match heard {
                    Heard::Answered(id, said) => {
                        *known.answered.entry(id).or_default() += 1;
                        known.wrong += u64::from(said != format!("You said: {text}"));
                    }
                    Heard::Refused(code) => {
                        *known.refused.entry(code).or_default() += 1;
                        pause = PAUSE;
                    }
                    Heard::Broken(how) => {
                        known.broken = (known.broken.0 + 1, format!("{how}, {text}"));
                        pause = PAUSE;
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// As through a balancer: where nobody listens, the next one is asked.
    async fn ask(&self, door: usize, model: &str, text: &str, stream: bool) -> Heard {
        let body = json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": text }] });
        let body = body.to_string();
        let mut sent = Err("nobody listens".to_owned());
        for door in self.doors.iter().cycle().skip(door).take(self.doors.len()) {
            let request = self.client.post(format!("{door}/v1/chat/completions"));
            match request.bearer_auth(&self.key).body(body.clone()).send().await {
                Err(error) if error.is_connect() => {}
                other => {
                    sent = other.map_err(|error| format!("no answer: {error:?}"));
                    break;
                }
            }
        }
        let response = match sent {
            Ok(response) => response,
            Err(how) => return Heard::Broken(how),
        };
        let id = response
            .headers()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok()?.parse().ok());
        let body = match response.text().await {
            Ok(body) => body,
            Err(error) => return Heard::Broken(format!("half an answer: {error:?}")),
        };
        let read = if stream { streamed(&body) } else { whole(&body) };
        match (read, id) {
            (Some(Ok(said)), Some(id)) => Heard::Answered(id, said),
            (Some(Err(code)), _) => Heard::Refused(code),
            _ => Heard::Broken("an answer without an end".to_owned()),
        }
    }

    async fn submit(&self, mut rng: StdRng, calm: CancellationToken) {
        let pause = Duration::from_secs_f64(SUBMITTERS as f64 / self.jobs_per_second.max(0.001));
        while !calm.is_cancelled() {
            let begun = tokio::time::Instant::now();
            let number = self.next();
            let text = format!("job {number}");
            let priority = ["low", "normal", "high"][rng.random_range(0..3)];
            let body = json!({
                "url": "/v1/chat/completions",
                "body": { "model": ALONE, "messages": [{ "role": "user", "content": text }] },
                "idempotency_key": format!("chaos-{number}"), "priority": priority, "batch": "chaos",
            });
            // The same key until some ingress says that it has it. Who stops asking has not been promised anything.
            while !calm.is_cancelled() {
                let door = &self.doors[rng.random_range(0..self.doors.len())];
                if let Some(id) = self.submit_once(door, &body).await {
                    self.lock().jobs.insert(id, text);
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep_until(begun + pause).await;
        }
    }

    async fn submit_once(&self, door: &str, body: &Value) -> Option<JobId> {
        let request = self.client.post(format!("{}/v1/jobs", door)).bearer_auth(&self.key);
        let response = request.body(body.to_string()).send().await.ok()?;
        let accepted = response.status().is_success();
        let job: Value = serde_json::from_str(&response.text().await.ok()?).ok()?;
        job["id"].as_str()?.parse().ok().filter(|_| accepted)
    }

    /// What a job was answered; empty when it was not.
    pub(super) async fn answer(&self, id: JobId) -> anyhow::Result<String> {
        let url = format!("{}/v1/jobs/{id}", self.doors[0]);
        let text = self.client.get(url).bearer_auth(&self.key).send().await?.text().await?;
        let job: Value = serde_json::from_str(&text)?;
        let said = job
            .pointer("/response/choices/0/message/content")
            .and_then(Value::as_str);
        Ok(said.unwrap_or_default().to_owned())
    }
}

fn code(value: &Value) -> Option<String> {
    value.pointer("/error/code").and_then(Value::as_str).map(str::to_owned)
}

fn whole(body: &str) -> Option<Result<String, String>> {
    let body: Value = serde_json::from_str(body).ok()?;
    match code(&body) {
        Some(code) => Some(Err(code)),
        None => Some(Ok(body.pointer("/choices/0/message/content")?.as_str()?.to_owned())),
    }
}

fn streamed(body: &str) -> Option<Result<String, String>> {
    if !body.starts_with("data: ") {
        return whole(body);
    }
    let mut said = String::new();
    for data in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return Some(Ok(said));
        }
        let event: Value = serde_json::from_str(data).ok()?;
        if let Some(code) = code(&event) {
            return Some(Err(code));
        }
        said.push_str(
            event
                .pointer("/choices/0/delta/content")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
    }
    None
}
