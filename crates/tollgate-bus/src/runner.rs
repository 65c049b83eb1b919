//! The stage runner: reads the queue for a stage, runs it, and carries its outcome out. Written once for all stages.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::Subscriber;
use futures::StreamExt;
use opentelemetry::KeyValue;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_proto::v1;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{Envelope, Failure};
use tracing::Instrument;

use crate::{Bus, Courier, Error, Hop};

/// How long a round trip may take that proves a subscription.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a stage decided about an envelope.
pub enum Outcome {
    /// It goes on to this stage.
    Forward(Hop, Box<Envelope>),
    /// The request ends here, with this failure.
    Conclude(Box<Envelope>, Failure),
    /// The stage has seen to everything.
    Done,
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Forward(..) => "forward",
            Self::Conclude(..) => "conclude",
            Self::Done => "done",
        }
    }
}

/// A step of a request's way.
pub trait Stage: Send + Sync + 'static {
    /// For logs, spans and metrics.
    const NAME: &'static str;

    /// Handles one envelope.
    fn handle(&self, envelope: Envelope) -> impl Future<Output = Outcome> + Send;
}

/// A stage that runs in this process, seen by [`Bus::send`].
pub(crate) trait LocalStage: Send + Sync {
    /// Starts on the envelope, or gives it back when the stage is full.
    fn try_start(&self, envelope: Envelope) -> Result<(), Box<Envelope>>;
}

/// Runs a stage.
pub struct Runner<S> {
    shared: Arc<Shared<S>>,
    hop: Hop,
    subscriber: Subscriber,
}

struct Shared<S> {
    stage: S,
    bus: Bus,
    courier: Courier,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl<S: Stage> Runner<S> {
    /// Subscribes the stage to its subject and proves it by a round trip. `concurrency` bounds the envelopes in hand.
    pub async fn subscribe(
        stage: S,
        hop: Hop,
        concurrency: usize,
        bus: Bus,
        courier: Courier,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let subject = hop.subject();
        let subscriber = bus
            .client()
            .queue_subscribe(subject.clone(), hop.queue().to_owned())
            .await
            .map_err(|source| Error::Subscribe {
                subject: subject.clone(),
                source: source.into(),
            })?;
        prove_round_trip(&bus, &subject).await?;
        let shared = Arc::new(Shared {
            stage,
            bus,
            courier,
            metrics,
            permits: Arc::new(Semaphore::new(concurrency)),
            tasks: TaskTracker::new(),
        });
        Ok(Self {
            shared,
            hop,
            subscriber,
        })
    }

    /// Handles envelopes until `stop`, then those that have arrived already, and returns when the last is done.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        self.shared
            .bus
            .offer(self.hop.clone(), Arc::new(Local(Arc::clone(&self.shared))));
        let ended = self.pull(&stop).await;
        self.shared.bus.withdraw(&self.hop);
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        ended
    }

    async fn pull(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut stopping = false;
        loop {
            // The permit comes first: what cannot be handled stays in the queue.
            let Ok(permit) = Arc::clone(&self.shared.permits).acquire_owned().await else {
                return Ok(());
            };
            let message = tokio::select! {
                message = self.subscriber.next() => message,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    if let Err(error) = self.subscriber.drain().await {
                        tracing::warn!(%error, "the subscription was not drained");
                    }
                    continue;
                }
            };
            match message {
                Some(message) => self.shared.start_message(&message, permit),
                None if stopping => return Ok(()),
                None => return Err(Error::Closed(self.hop.subject())),
            }
        }
    }
}

impl<S: Stage> Shared<S> {
    fn start_message(self: &Arc<Self>, message: &async_nats::Message, permit: OwnedSemaphorePermit) {
        let decoded = v1::Envelope::decode(message.payload.clone())
            .map_err(|_| "not an envelope".to_owned())
            .and_then(|wire| Envelope::try_from(wire).map_err(|invalid| invalid.to_string()));
        match decoded {
            Ok(envelope) => {
                let span = span::<S>(&envelope);
                tollgate_telemetry::adopt_nats(&span, message.headers.as_ref());
                self.start(envelope, permit, span);
            }
            Err(reason) => {
                self.metrics.garbage.add(1, &[KeyValue::new(label::STAGE, S::NAME)]);
                tracing::warn!(
                    stage = S::NAME,
                    size = message.payload.len(),
                    reason,
                    "unreadable message dropped"
                );
            }
        }
    }

    fn start(self: &Arc<Self>, envelope: Envelope, permit: OwnedSemaphorePermit, span: tracing::Span) {
        let this = Arc::clone(self);
        // A stage that panics loses its envelope alone; the owner misses the claim and sends it again.
        self.tasks.spawn(
            async move {
                let _permit = permit;
                this.handle(envelope).await;
            }
            .instrument(span),
        );
    }

    async fn handle(&self, envelope: Envelope) {
        let begun = Instant::now();
        let outcome = self.stage.handle(envelope).await;
        let stage = KeyValue::new(label::STAGE, S::NAME);
        self.metrics
            .stage_duration
            .record(begun.elapsed().as_secs_f64(), std::slice::from_ref(&stage));
        self.metrics
            .stage_messages
            .add(1, &[stage, KeyValue::new(label::OUTCOME, outcome.name())]);
        match outcome {
            Outcome::Forward(hop, envelope) => {
                if let Err(error) = self.bus.send(&hop, *envelope).await {
                    // The owner will miss the claim.
                    tracing::warn!(%error, %hop, "an envelope was not sent on");
                }
            }
            Outcome::Conclude(envelope, failure) => {
                self.courier
                    .conclude(&envelope.owner, envelope.request_id, envelope.generation, failure)
                    .await;
            }
            Outcome::Done => {}
        }
    }
}

struct Local<S>(Arc<Shared<S>>);

impl<S: Stage> LocalStage for Local<S> {
    fn try_start(&self, envelope: Envelope) -> Result<(), Box<Envelope>> {
        match Arc::clone(&self.0.permits).try_acquire_owned() {
            Ok(permit) => {
                let span = span::<S>(&envelope);
                self.0.start(envelope, permit, span);
                Ok(())
            }
            Err(_) => Err(Box::new(envelope)),
        }
    }
}

fn span<S: Stage>(envelope: &Envelope) -> tracing::Span {
    tracing::info_span!(
        "stage",
        otel.name = S::NAME,
        request.id = %envelope.request_id,
        request.generation = envelope.generation,
    )
}

/// A message to ourselves on the same connection comes back only after the server has seen the subscription before it.
async fn prove_round_trip(bus: &Bus, subject: &str) -> Result<(), Error> {
    let client = bus.client();
    let inbox = client.new_inbox();
    let unconfirmed = || Error::Unconfirmed(subject.to_owned());
    let mut echo = client.subscribe(inbox.clone()).await.map_err(|_| unconfirmed())?;
    client
        .publish(inbox, bytes::Bytes::new())
        .await
        .map_err(|_| unconfirmed())?;
    match tokio::time::timeout(PROBE_TIMEOUT, echo.next()).await {
        Ok(Some(_)) => Ok(()),
        _ => Err(unconfirmed()),
    }
}
