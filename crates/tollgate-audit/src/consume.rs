//! From the stream to the tables: fetch, write, and only then acknowledge.
//!
//! A database that is away is waited for with the batch in hand; the stream keeps what we have not acknowledged, and
//! what it delivers twice in the meantime changes nothing. An event that the database can never take is set aside, so
//! that it holds up nobody.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tollgate_bus::ledger::{Garbage, LedgerConsumer, LedgerDelivery};
use tollgate_telemetry::{Metrics, Readiness, label};
use tollgate_types::ledger::LedgerEvent;

use crate::{Error, Store};

/// How long a fetch waits for a first event.
const FETCH_WAIT: Duration = Duration::from_secs(1);

/// After this a write is given up and tried again: a wire may be cut without either end hearing of it.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Moves events from the stream to the store.
pub(crate) struct Consume {
    pub(crate) store: Store,
    pub(crate) consumer: LedgerConsumer,
    /// Events in a transaction, at most.
    pub(crate) batch: usize,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
}

impl Consume {
    /// Works until `stop`. Neither a stream nor a database that is away ends it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pause = Pause::default();
        let mut database_seen = false;
        while !stop.is_cancelled() {
            if !database_seen {
                match within_limit(self.store.ping()).await {
                    Ok(()) => database_seen = true,
                    Err(error) => {
                        self.trouble(chain(&error), "the ledger's database is away", &mut pause, &stop)
                            .await;
                        continue;
                    }
                }
            }
            // Not given up at `stop`: what is on its way would lie unacknowledged until its time is over.
            match self.consumer.fetch(self.batch, FETCH_WAIT).await {
                Ok(deliveries) => {
                    if !self.absorb(deliveries, &stop).await {
                        break;
                    }
                    self.readiness.set(true);
                    pause = Pause::default();
                }
                Err(error) => {
                    self.trouble(chain(&error), "the ledger stream is away", &mut pause, &stop)
                        .await
                }
            }
        }
        self.readiness.set(false);
    }

    /// Writes what was delivered, however long the database is away, and acknowledges it. False when `stop` came first.
    async fn absorb(&self, deliveries: Vec<LedgerDelivery>, stop: &CancellationToken) -> bool {
        let mut pause = Pause::default();
        let messages: Vec<Message<'_>> = deliveries.iter().map(Message::from).collect();
        while let Err(error) = write(&self.store, &self.metrics, &messages).await {
            self.trouble(
                chain(&error),
                "the ledger's database is away, events wait",
                &mut pause,
                stop,
            )
            .await;
            if stop.is_cancelled() {
                return false;
            }
        }
        for delivery in deliveries {
            let sequence = delivery.sequence;
            if let Err(error) = delivery.ack().await {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    ledger.sequence = sequence,
                    "cannot acknowledge, it will come again"
                );
            }
        }
        true
    }

    async fn trouble(&self, error: String, what: &str, pause: &mut Pause, stop: &CancellationToken) {
        self.readiness.set(false);
        let wait = pause.next();
        tracing::warn!(error, wait_ms = wait.as_millis(), "{what}");
        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

/// What a delivery says, apart from the means to acknowledge it.
pub(crate) struct Message<'a> {
    pub(crate) sequence: u64,
    pub(crate) subject: &'a str,
    pub(crate) event: &'a Result<LedgerEvent, Garbage>,
}

impl<'a> From<&'a LedgerDelivery> for Message<'a> {
    fn from(delivery: &'a LedgerDelivery) -> Self {
        Self {
            sequence: delivery.sequence,
            subject: &delivery.subject,
            event: &delivery.event,
        }
    }
}

/// Writes messages, and sets aside those that are no events or cannot be recorded. An error means that the database is
/// away and that all of them are to be tried again.
pub(crate) async fn write(store: &Store, metrics: &Metrics, messages: &[Message<'_>]) -> Result<(), Error> {
    let events: Vec<(u64, LedgerEvent)> = messages
        .iter()
        .filter_map(|message| Some((message.sequence, message.event.as_ref().ok()?.clone())))
        .collect();
    match within_limit(store.record(&events)).await {
        Ok(recorded) => metrics.unpriced.add(recorded.unpriced, &[]),
        // One of them is at fault: find it.
        Err(error) if error.refusal().is_some() => {
            for message in messages {
                write_one(store, metrics, message).await?;
            }
        }
        Err(error) => return Err(error),
    }
    for message in messages {
        match message.event {
            Ok(event) => metrics.ledger_events.add(1, &[label_of(label::KIND, event.kind())]),
            Err(garbage) => set_aside(store, metrics, message, garbage, "unreadable").await?,
        }
    }
    Ok(())
}

async fn write_one(store: &Store, metrics: &Metrics, message: &Message<'_>) -> Result<(), Error> {
    let Ok(event) = message.event else { return Ok(()) };
    let refused = match within_limit(store.record(&[(message.sequence, event.clone())])).await {
        Ok(recorded) => {
            metrics.unpriced.add(recorded.unpriced, &[]);
            return Ok(());
        }
        Err(error) => error,
    };
    let Some(reason) = refused.refusal() else {
        return Err(refused);
    };
    // The bytes are not at hand any more; an event is written by the same code everywhere, so these are the same.
    let bytes = serde_json::to_vec(event).unwrap_or_default();
    let garbage = Garbage {
        size: bytes.len(),
        sha256: Sha256::digest(&bytes).into(),
        reason,
    };
    set_aside(store, metrics, message, &garbage, "refused").await
}

async fn set_aside(
    store: &Store,
    metrics: &Metrics,
    message: &Message<'_>,
    garbage: &Garbage,
    kind: &'static str,
) -> Result<(), Error> {
    let Garbage { size, sha256, reason } = garbage;
    within_limit(store.quarantine(message.sequence, message.subject, *size, *sha256, reason)).await?;
    metrics.ledger_quarantined.add(1, &[label_of(label::REASON, kind)]);
    tracing::error!(
        ledger.sequence = message.sequence,
        reason,
        "a ledger event cannot be recorded and was set aside"
    );
    Ok(())
}

fn label_of(name: &'static str, value: &'static str) -> opentelemetry::KeyValue {
    opentelemetry::KeyValue::new(name, value)
}

async fn within_limit<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(WRITE_LIMIT, work).await.unwrap_or(Err(Error::Timeout))
}

/// Waits of 100 ms, doubled up to 5 s.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(100 << self.0.min(6)).min(Duration::from_secs(5));
        self.0 += 1;
        wait
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds() {
        let mut pause = Pause::default();
        let waits: Vec<u128> = (0..9).map(|_| pause.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }
}
