//! The ledger stream: workers and ingress write events to it, audit reads them.
//!
//! Events are JSON, so that an operator can read them with any NATS client and other consumers can follow the stream.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{Consumer, pull::Config},
        context::PublishErrorKind,
        message::PublishMessage,
        stream::LastRawMessageErrorKind,
    },
};
use sha2::{Digest, Sha256};
use tollgate_types::{
    RequestId,
    ledger::{Attempt, LedgerEvent},
};

use crate::{Error, pull, subject};

/// Writes events. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    jetstream: jetstream::Context,
}

impl Ledger {
    pub(crate) const fn new(jetstream: jetstream::Context) -> Self {
        Self { jetstream }
    }

    /// Writes an event and waits until the stream has stored it. A repeat of the same message within the duplicate window is
    /// a success, which makes a retry after a lost acknowledgement safe.
    pub async fn publish(&self, event: &LedgerEvent) -> Result<(), Error> {
        self.store(event, PublishMessage::build()).await.map(drop)
    }

    /// Writes that a call is about to be made, and says at which place in the stream.
    ///
    /// It is a compare-and-set: the stream takes the first for an attempt id and refuses any other with
    /// [`Error::AlreadyStarted`], however much later it comes. With a `fence` it is one for the request: refused if another
    /// attempt of the request has started since that place, 0 for none.
    pub async fn start(&self, attempt: &Attempt, fence: Option<u64>) -> Result<u64, Error> {
        let message = match fence {
            None => PublishMessage::build().expected_last_subject_sequence(0),
            Some(last) => PublishMessage::build()
                .expected_last_subject_sequence(last)
                .header(subject::EXPECTED_IN, starts_of(attempt.request_id).as_str()),
        };
        self.store(&LedgerEvent::Started(attempt.clone()), message).await
    }

    async fn store(&self, event: &LedgerEvent, message: PublishMessage) -> Result<u64, Error> {
        let about = event.about();
        let subject = format!("{}.{}.{about}", subject::LEDGER, event.kind());
        let failed = |source: async_nats::Error| Error::Publish {
            subject: subject.clone(),
            source,
        };
        let payload = serde_json::to_vec(event).map_err(|error| failed(error.into()))?;
        let mut traced = HeaderMap::new();
        tollgate_telemetry::carry_nats(&mut traced);
        let mut message = message
            .message_id(format!("{}:{about}", event.kind()))
            .payload(payload.into());
        for (name, values) in traced.iter() {
            for value in values {
                message = message.header(name.clone(), value.clone());
            }
        }
        let stored = self
            .jetstream
            .send_publish(subject.clone(), message)
            .await
            .map_err(|error| failed(error.into()))?
            .await;
        match stored {
            Ok(stored) => Ok(stored.sequence),
            Err(error) => Err(match error.kind() {
                PublishErrorKind::WrongLastSequence => Error::AlreadyStarted,
                PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => failed(error.into()),
                _ => Error::Refused {
                    subject,
                    source: error.into(),
                },
            }),
        }
    }

    /// The call of a request that was started last.
    pub async fn last_start(&self, request_id: RequestId) -> Result<Option<LastStart>, Error> {
        let stream = self.jetstream.get_stream_no_info(subject::LEDGER_STREAM).await;
        let stream = stream.map_err(|error| Error::Ledger(error.into()))?;
        let last = async |subject: String| match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Error::Ledger(error.into())),
        };
        let Some(message) = last(starts_of(request_id)).await? else {
            return Ok(None);
        };
        let Ok(LedgerEvent::Started(attempt)) = serde_json::from_slice::<LedgerEvent>(&message.payload) else {
            return Ok(None);
        };
        let settled = format!("{}.settled.{request_id}.{}", subject::LEDGER, attempt.attempt_id);
        Ok(Some(LastStart {
            sequence: message.sequence,
            settled: last(settled).await?.is_some(),
            attempt,
        }))
    }

    /// As [`Ledger::publish`], repeated until the stream has stored it or `give_up` has passed.
    pub async fn publish_until(&self, event: &LedgerEvent, give_up: Duration) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + give_up;
        let mut pause = Duration::from_millis(50);
        loop {
            match self.publish(event).await {
                Err(error @ (Error::Publish { .. } | Error::Refused { .. }))
                    if tokio::time::Instant::now() + pause < deadline =>
                {
                    tracing::warn!(error = %error_chain(&error), kind = event.kind(), "a ledger event waits for the stream");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                done => return done,
            }
        }
    }
}

/// The subjects of all `started` of a request.
fn starts_of(request_id: RequestId) -> String {
    format!("{}.started.{request_id}.*", subject::LEDGER)
}

/// A call that was started.
pub struct LastStart {
    pub attempt: Attempt,
    /// Its place in the stream.
    pub sequence: u64,
    pub settled: bool,
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Reads events, in the stream's order, each until it is acknowledged.
pub struct LedgerConsumer {
    jetstream: jetstream::Context,
    consumer: Consumer<Config>,
}

/// Tells how far the ledger has been read, by all that read it as audit.
#[derive(Clone)]
pub struct LedgerProgress {
    jetstream: jetstream::Context,
    consumer: Consumer<Config>,
}

impl LedgerProgress {
    /// The place of the last event that is stored.
    pub async fn stored(&self) -> Result<u64, Error> {
        let stream = self.jetstream.get_stream_no_info(subject::LEDGER_STREAM).await;
        let stream = stream.map_err(|error| Error::Ledger(error.into()))?;
        let info = stream.get_info().await.map_err(|error| Error::Ledger(error.into()))?;
        Ok(info.state.last_sequence)
    }

    /// The place up to which every event has been acknowledged.
    pub async fn acknowledged(&self) -> Result<u64, Error> {
        let info = self.consumer.get_info().await;
        let info = info.map_err(|error| Error::Ledger(error.into()))?;
        Ok(info.ack_floor.stream_sequence)
    }

    /// Removes what is stored up to this place.
    pub async fn trim(&self, up_to: u64) -> Result<(), Error> {
        let stream = self.jetstream.get_stream_no_info(subject::LEDGER_STREAM).await;
        let stream = stream.map_err(|error| Error::Ledger(error.into()))?;
        let purged = stream.purge().sequence(up_to.saturating_add(1)).await;
        purged.map(drop).map_err(|error| Error::Ledger(error.into()))
    }
}

/// An event as the stream delivered it.
pub struct LedgerDelivery {
    /// Its place in the stream.
    pub sequence: u64,
    pub subject: String,
    pub event: Result<LedgerEvent, Garbage>,
    message: jetstream::Message,
}

/// A message on a ledger subject that is no event. Its content is not kept: it may be anything.
#[derive(Debug, Clone)]
pub struct Garbage {
    /// Size in bytes.
    pub size: usize,
    pub sha256: [u8; 32],
    pub reason: String,
}

impl LedgerConsumer {
    pub(crate) async fn open(jetstream: &jetstream::Context) -> Result<Self, Error> {
        let consumer = jetstream
            .get_consumer_from_stream(subject::LEDGER_CONSUMER, subject::LEDGER_STREAM)
            .await
            .map_err(|error| Error::Ledger(error.into()))?;
        Ok(Self {
            jetstream: jetstream.clone(),
            consumer,
        })
    }

    /// To be asked how far the events have been read.
    #[must_use]
    pub fn progress(&self) -> LedgerProgress {
        LedgerProgress {
            jetstream: self.jetstream.clone(),
            consumer: self.consumer.clone(),
        }
    }

    /// Up to `max` events; fewer, or none, when `wait` has passed.
    pub async fn fetch(&mut self, max: usize, wait: Duration) -> Result<Vec<LedgerDelivery>, Error> {
        let mut found = pull::soon(&self.consumer, wait).await.map_err(Error::Ledger)?;
        if !found.is_empty() && max > 1 {
            // The first came; take what else is there without waiting for more.
            found.extend(pull::at_once(&self.consumer, max - 1).await.map_err(Error::Ledger)?);
        }
        found.into_iter().map(LedgerDelivery::read).collect()
    }
}

impl LedgerDelivery {
    fn read(message: jetstream::Message) -> Result<Self, Error> {
        let sequence = message.info().map_err(Error::Ledger)?.stream_sequence;
        let subject = message.subject.to_string();
        let event = serde_json::from_slice::<LedgerEvent>(&message.payload)
            .map_err(|error| format!("not an event: {:?} at column {}", error.classify(), error.column()))
            .and_then(|event| {
                let expected = format!("{}.{}.{}", subject::LEDGER, event.kind(), event.about());
                // Versions before jobs wrote the attempt alone.
                let older = expected.rsplit_once('.').zip(subject.rsplit_once('.'));
                let is_older = older.is_some_and(|((_, about), (kind, found))| {
                    about == found && kind == format!("{}.{}", subject::LEDGER, event.kind())
                });
                if expected == subject || is_older {
                    Ok(event)
                } else {
                    Err("the event belongs on another subject".to_owned())
                }
            })
            .map_err(|reason| Garbage {
                size: message.payload.len(),
                sha256: Sha256::digest(&message.payload).into(),
                reason,
            });
        Ok(Self {
            sequence,
            subject,
            event,
            message,
        })
    }

    /// Tells the stream that the event's effect is durable.
    pub async fn ack(self) -> Result<(), Error> {
        self.message.ack().await.map_err(Error::Ledger)
    }
}
