//! Webhooks: submitters are told that their jobs have ended, with a POST that they can verify and that is repeated until
//! they take it. Signed as Standard Webhooks says (<https://www.standardwebhooks.com>), so that its libraries check them.
//!
//! The ends of jobs are a stream, and telling is a consumer of it: whichever replica takes an end acknowledges it once
//! its receiver has. So each is told at least once, with the same `webhook-id` each time.

mod address;
pub(crate) mod notice;

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures::StreamExt;
use opentelemetry::KeyValue;
use reqwest::{Client, StatusCode, Url, header::CONTENT_TYPE, redirect};
use ring::hmac;
use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_bus::{
    Error as BusError, Jobs,
    jobs::{Hints, Taken, Taker},
};
use tollgate_config::schema::WebhookSettings;
use tollgate_proto::v1;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    JobEnd, Millis,
    job::{JobStatus, Progress},
};

use crate::{Error, http::JobBody};

/// Told at once.
const AT_ONCE: usize = 64;
/// Without a hint the stream is looked at this often.
const LOOK: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const MOST_DOUBLINGS: u32 = 16;
const LONGEST_URL: usize = 2048;
/// What the specification asks of a secret, in bytes.
const SHORTEST_SECRET: usize = 24;

/// Sends webhooks.
pub(crate) struct Webhooks {
    settings: WebhookSettings,
    key: hmac::Key,
    /// Reaches public addresses alone.
    public: Client,
    private: Client,
    metrics: Metrics,
}

/// What came of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Delivered,
    /// With the receiver's status, if it gave one.
    Failed(Option<StatusCode>),
}

impl Webhooks {
    /// None when the configuration has no secret to sign with.
    pub(crate) fn new(settings: &WebhookSettings, metrics: Metrics) -> Result<Option<Self>, Error> {
        let Some(secret) = &settings.secret else {
            return Ok(None);
        };
        let secret = secret.resolve()?;
        let secret = secret.expose_secret();
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok();
        let key = key
            .filter(|key| key.len() >= SHORTEST_SECRET)
            .ok_or(Error::WebhookSecret)?;
        let client = || {
            Client::builder()
                .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .timeout(settings.timeout)
        };
        Ok(Some(Self {
            settings: settings.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            public: client().dns_resolver(Arc::new(address::PublicOnly)).build()?,
            private: client().build()?,
            metrics,
        }))
    }

    /// The address, if webhooks may go there; otherwise what is wrong with it.
    pub(crate) fn check(&self, address: &str) -> Result<Url, &'static str> {
        check(&self.settings.private_hosts, address)
    }

    fn count(&self, outcome: &'static str) {
        let attributes = [KeyValue::new(label::OUTCOME, outcome)];
        self.metrics.webhooks.add(1, &attributes);
    }

    async fn send(&self, address: &str, id: &str, body: String) -> Told {
        let Ok(url) = self.check(address) else {
            // It was accepted under another configuration.
            return Told::Failed(None);
        };
        let client = match url.host_str() {
            Some(host) if is_private(&self.settings.private_hosts, host) => &self.private,
            _ => &self.public,
        };
        let time = (Millis::now().0 / 1000).to_string();
        let signature = hmac::sign(&self.key, format!("{id}.{time}.{body}").as_bytes());
        let sent = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", format!("v1,{}", BASE64.encode(signature)))
            .body(body)
            .send();
        match sent.await {
            Ok(response) if response.status().is_success() => Told::Delivered,
            Ok(response) => Told::Failed(Some(response.status())),
            Err(_) => Told::Failed(None),
        }
    }
}

fn is_private(private_hosts: &[String], host: &str) -> bool {
    private_hosts.iter().any(|private| private == host)
}

fn check(private_hosts: &[String], address: &str) -> Result<Url, &'static str> {
    let url = Url::parse(address).ok().filter(|_| address.len() <= LONGEST_URL);
    let url = url.ok_or("expected a URL of up to 2048 characters")?;
    let host = url.host_str().ok_or("the URL has no host")?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("the URL must not hold credentials or a fragment");
    }
    let private = is_private(private_hosts, host);
    if url.scheme() != "https" && !(private && url.scheme() == "http") {
        return Err("expected an https URL");
    }
    let literal = host.trim_matches(['[', ']']).parse();
    if !private && literal.is_ok_and(|literal| !address::is_public(literal)) {
        return Err("the address is not public");
    }
    Ok(url)
}

/// How long to wait after the failure of a delivery; none when it is time to give up. `lot` is from 0 to 1.
fn next(give_up: Duration, told: Told, ended_at: Millis, deliveries: u32, now: Millis, lot: f64) -> Option<Duration> {
    let doublings = deliveries.saturating_sub(1).min(MOST_DOUBLINGS);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let pause = pause.mul_f64(0.5 + 0.5 * lot);
    let over = now.after(pause) > ended_at.after(give_up);
    // The receiver says that it wants no more.
    let gone = told == Told::Failed(Some(StatusCode::GONE));
    (!over && !gone).then_some(pause)
}

/// Tells submitters of ends, of all jobs that have a webhook.
pub(crate) struct Teller {
    webhooks: Arc<Webhooks>,
    jobs: Jobs,
    untold: Taker<JobEnd>,
}

/// What a receiver gets.
#[derive(Serialize)]
struct Event {
    r#type: String,
    timestamp: String,
    /// As `GET /v1/jobs/ID` has it, without the answer.
    data: JobBody,
}

impl Teller {
    pub(crate) async fn new(webhooks: Arc<Webhooks>, jobs: Jobs) -> Result<Self, BusError> {
        let untold = jobs.untold().await?;
        Ok(Self { webhooks, jobs, untold })
    }

    /// Tells until `stop`; what is not told by then, another replica tells.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), BusError> {
        let mut hints = Box::pin(self.jobs.hints(Hints::Ended).await?);
        let (this, tasks, permits) = (Arc::new(self), TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        while !stop.is_cancelled() {
            let free = permits.available_permits();
            let taken = match this.untold.take(free.max(1)).await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "ends of jobs cannot be taken");
                    Vec::new()
                }
            };
            if taken.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = tokio::time::timeout(LOOK, hints.next()) => {}
                }
            }
            for end in taken {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    break;
                };
                let this = Arc::clone(&this);
                tasks.spawn(async move {
                    let _permit = permit;
                    this.tell(end).await;
                });
            }
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    async fn tell(&self, taken: Taken<JobEnd>) {
        let acknowledged = match self.told(&taken).await {
            None => taken.done().await,
            Some(pause) => taken.again(pause).await,
        };
        if let Err(error) = acknowledged {
            tracing::warn!(%error, "an end was not acknowledged; its submitter is told again");
        }
    }

    /// How long to wait before it is told again, if it is.
    async fn told(&self, taken: &Taken<JobEnd>) -> Option<Duration> {
        let end = taken.record.as_ref().ok()?;
        let address = end.webhook.as_deref()?;
        let job = match self.jobs.find(end.id).await {
            Ok(job) => job?,
            Err(error) => {
                tracing::warn!(%error, job.id = %end.id, "a job cannot be read to tell of its end");
                return Some(FIRST_PAUSE);
            }
        };
        let status = JobStatus {
            job,
            progress: Progress::Ended(Box::new(end.clone())),
        };
        let event = Event {
            r#type: format!("job.{}", end.state.as_str()),
            timestamp: end.ended_at.to_datetime().to_rfc3339(),
            data: JobBody::of(v1::Job::of(&status)),
        };
        let body = serde_json::to_string(&event).ok()?;
        let id = format!("evt_{}", end.id.as_uuid().simple());
        let told = self.webhooks.send(address, &id, body).await;
        let pause = match told {
            Told::Delivered => None,
            Told::Failed(_) => {
                let give_up = self.webhooks.settings.give_up;
                next(
                    give_up,
                    told,
                    end.ended_at,
                    taken.deliveries,
                    Millis::now(),
                    rand::random(),
                )
            }
        };
        let outcome = match (told, pause) {
            (Told::Delivered, _) => "delivered",
            (Told::Failed(_), Some(_)) => "failed",
            (Told::Failed(status), None) => {
                let status = status.map(|status| status.as_u16());
                tracing::warn!(job.id = %end.id, status, "a webhook was given up");
                "given_up"
            }
        };
        self.webhooks.count(outcome);
        pause
    }
}

#[cfg(test)]
mod tests;
