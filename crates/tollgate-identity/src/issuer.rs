//! An issuer, and what is known of its keys.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey};
use opentelemetry::KeyValue;
use reqwest::Client;
use tokio::sync::Mutex;
use tollgate_config::schema;
use tollgate_telemetry::{Metrics, label};

use crate::{
    Refused,
    claims::Claims,
    jwks::{Keys, Unread},
    verify,
};

/// An issuer is asked no more often, whatever keys tokens name.
const PAUSE: Duration = Duration::from_secs(5);

struct Held {
    keys: Keys,
    since: Instant,
}

pub(crate) struct Issuer {
    pub(crate) settings: schema::Issuer,
    client: Client,
    metrics: Metrics,
    held: RwLock<Option<Held>>,
    /// When the issuer was asked last, whatever came of it.
    asked: Mutex<Option<Instant>>,
}

impl Issuer {
    pub(crate) fn new(settings: &schema::Issuer, client: Client, metrics: Metrics) -> Self {
        Self {
            settings: settings.clone(),
            client,
            metrics,
            held: RwLock::new(None),
            asked: Mutex::new(None),
        }
    }

    /// The claims of a token, if all of it is in order.
    pub(crate) async fn verify(self: &Arc<Self>, token: &str) -> Result<Claims, Refused> {
        let header = verify::header(token)?;
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        verify::claims(&self.settings, token, header.alg, &key)
    }

    /// A key by its id. One that is not known is asked for, since keys change; those that grow old are fetched again beside the
    /// request.
    async fn key(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Refused> {
        if let (Some(age), Some(key)) = self.look(id, algorithm) {
            if age > self.settings.refresh && self.is_due() == Some(true) {
                // A task of its own, which ends within the time of a fetch.
                std::mem::drop(tokio::spawn(Arc::clone(self).refresh()));
            }
            return Ok(key);
        }
        match self.is_due() {
            // Goes on when the one who waits for it leaves: others wait for it too.
            Some(true) => drop(tokio::spawn(Arc::clone(self).refresh()).await),
            Some(false) => {}
            None => drop(self.asked.lock().await),
        }
        match self.look(id, algorithm) {
            (_, Some(key)) => Ok(key),
            (Some(_), None) => Err(Refused::UnknownKey),
            (None, None) => Err(Refused::Away),
        }
    }

    /// Whether the issuer may be asked now; none while it is being asked.
    fn is_due(&self) -> Option<bool> {
        let asked = self.asked.try_lock().ok()?;
        Some(asked.is_none_or(|last| last.elapsed() >= PAUSE))
    }

    /// The age of the keys in hand, and the one that is looked for.
    fn look(&self, id: Option<&str>, algorithm: Algorithm) -> (Option<Duration>, Option<DecodingKey>) {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let held = held.as_ref().filter(|held| held.since.elapsed() < self.settings.keep);
        let key = held.and_then(|held| held.keys.find(id, algorithm)).cloned();
        (held.map(|held| held.since.elapsed()), key)
    }

    async fn refresh(self: Arc<Self>) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        let fetched = Keys::fetch(&self.client, &self.settings).await;
        // From its end: one that does not answer is not asked without a pause.
        *asked = Some(Instant::now());
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        let labels = [
            KeyValue::new(label::ISSUER, self.settings.name.clone()),
            KeyValue::new(label::OUTCOME, outcome),
        ];
        self.metrics.key_fetches.add(1, &labels);
        match fetched {
            Ok(keys) => {
                let since = Instant::now();
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Held { keys, since });
            }
            Err(error) => self.complain(&error),
        }
    }

    #[cfg(test)]
    pub(crate) async fn forget_when_asked(&self) {
        *self.asked.lock().await = None;
    }

    fn complain(&self, error: &Unread) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(issuer = self.settings.name, %error, cause, "the keys of an issuer cannot be had");
    }
}
