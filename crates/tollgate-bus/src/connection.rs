//! The connection to NATS, what it needs to find there, and sending an envelope to its next stage.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_nats::{
    Client, HeaderMap, ServerAddr,
    jetstream::{
        self,
        consumer::{AckPolicy, pull},
        object_store,
        stream::{self, DiscardPolicy, RetentionPolicy},
    },
};
use prost::Message as _;
use tollgate_config::schema;
use tollgate_proto::v1;
use tollgate_types::{AttemptId, Envelope, KeyRecord, LimitRecord};

use crate::{
    Error, Hop, Jobs, Ledger, Payloads,
    batches::{self, Batches},
    jobs,
    presence::{self, Found, Presence},
    quota::{Notices, NoticesToSend, Quota, QuotaQuestions},
    registry::{PriceList, Record, Registry},
    runner::LocalStage,
    subject,
    targets::Targets,
};

/// Below this a server drops settings silently that we rest on, or loses acknowledged messages.
const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 3);
const OLDEST_SERVER_TEXT: &str = "2.12.3";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TRIES: u32 = 40;
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Room for what an ack costs at the worst: a disk that syncs each message.
const ACK_WAIT: Duration = Duration::from_secs(30);
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
const PAYLOAD_MAX_BYTES: i64 = 2 << 30;
const PAYLOAD_MAX_AGE: Duration = Duration::from_secs(3600);

/// A connection to NATS. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    jetstream: jetstream::Context,
    settings: Arc<schema::Bus>,
    local: Arc<RwLock<HashMap<Hop, Arc<dyn LocalStage>>>>,
}

/// How what the durable lane keeps is kept.
pub(crate) struct Storage {
    pub(crate) replicas: usize,
    pub(crate) retention: Duration,
    /// For each store.
    pub(crate) bytes: i64,
}

fn bytes(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Bus {
    /// Connects under `name`. Waits some twenty seconds for a server that is still starting; refuses one that is too old.
    pub async fn connect(settings: &schema::Bus, name: &str) -> Result<Self, Error> {
        let servers = settings
            .url
            .split(',')
            .map(|server| server.trim().parse::<ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| Error::Address {
                url: redacted(&settings.url),
                source,
            })?;
        // The client does not take them from the address by itself.
        let credentials = servers.iter().find_map(|server| {
            Some((
                server.username()?.to_owned(),
                server.password().unwrap_or_default().to_owned(),
            ))
        });
        let mut tries = 0;
        let client = loop {
            let mut options = async_nats::ConnectOptions::new()
                .name(name)
                .connection_timeout(CONNECT_TIMEOUT);
            if let Some((user, password)) = &credentials {
                options = options.user_and_password(user.clone(), password.clone());
            }
            match options.connect(&servers).await {
                Ok(client) => break client,
                Err(source) if tries == CONNECT_TRIES => {
                    return Err(Error::Connect {
                        url: redacted(&settings.url),
                        source,
                    });
                }
                Err(error) => {
                    tracing::info!(%error, "waiting for NATS");
                    tries += 1;
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
            }
        };
        let (major, minor, patch) = OLDEST_SERVER;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(Error::TooOld {
                found: client.server_info().version,
                needed: OLDEST_SERVER_TEXT,
            });
        }
        let jetstream = jetstream::ContextBuilder::new()
            .ack_timeout(ACK_WAIT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            settings: Arc::new(settings.clone()),
            local: Arc::default(),
        })
    }

    /// Creates or updates the streams, the consumer and the payload store. Safe to repeat and to do twice at once.
    pub async fn init(&self) -> Result<(), Error> {
        let ledger = self
            .jetstream
            .create_or_update_stream(stream::Config {
                name: subject::LEDGER_STREAM.to_owned(),
                description: Some("ledger events, until audit has written them and longer".to_owned()),
                subjects: vec![format!("{}.>", subject::LEDGER)],
                // Kept after the ack: one subject per attempt is what makes `started` a claim.
                retention: RetentionPolicy::Limits,
                // A full stream refuses new calls; it never drops an old event.
                discard: DiscardPolicy::New,
                max_age: self.settings.retention,
                max_bytes: bytes(self.settings.ledger_storage),
                duplicate_window: DUPLICATE_WINDOW,
                num_replicas: self.settings.replicas,
                ..Default::default()
            })
            .await;
        ledger.map_err(|source| Error::SetUp {
            what: "the ledger stream",
            source: source.into(),
        })?;
        self.jetstream
            .create_consumer_on_stream(
                pull::Config {
                    durable_name: Some(subject::LEDGER_CONSUMER.to_owned()),
                    ack_policy: AckPolicy::Explicit,
                    ack_wait: ACK_WAIT,
                    max_ack_pending: 20_000,
                    ..Default::default()
                },
                subject::LEDGER_STREAM,
            )
            .await
            .map_err(|source| Error::SetUp {
                what: "the ledger's consumer",
                source: source.into(),
            })?;
        if self.jetstream.get_object_store(subject::PAYLOAD_BUCKET).await.is_err() {
            self.jetstream
                .create_object_store(object_store::Config {
                    bucket: subject::PAYLOAD_BUCKET.to_owned(),
                    description: Some("request bodies over the message limit".to_owned()),
                    max_age: PAYLOAD_MAX_AGE,
                    max_bytes: PAYLOAD_MAX_BYTES,
                    num_replicas: self.settings.replicas,
                    ..Default::default()
                })
                .await
                .map_err(|source| Error::SetUp {
                    what: "the payload store",
                    source: source.into(),
                })?;
        }
        Box::pin(self.targets()).await?;
        Box::pin(self.registry::<KeyRecord>()).await?;
        Box::pin(self.registry::<LimitRecord>()).await?;
        Box::pin(self.registry::<PriceList>()).await?;
        let storage = Storage {
            replicas: self.settings.replicas,
            retention: self.settings.job_retention,
            bytes: bytes(self.settings.job_storage),
        };
        Box::pin(batches::init(&self.jetstream, &storage)).await?;
        Box::pin(jobs::init(&self.jetstream, &storage)).await
    }

    /// Sends an envelope to its next stage: directly when that runs in this process and has room, else through NATS.
    pub async fn send(&self, hop: &Hop, envelope: Envelope) -> Result<(), Error> {
        let local = self
            .local
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(hop)
            .cloned();
        let envelope = match local {
            Some(stage) => match stage.try_start(envelope) {
                Ok(()) => return Ok(()),
                Err(envelope) => *envelope,
            },
            None => envelope,
        };
        let mut headers = HeaderMap::new();
        tollgate_telemetry::carry_nats(&mut headers);
        let subject = hop.subject();
        let bytes = v1::Envelope::from(envelope).encode_to_vec();
        self.client
            .publish_with_headers(subject.clone(), headers, bytes.into())
            .await
            .map_err(|source| Error::Publish {
                subject,
                source: source.into(),
            })
    }

    pub(crate) fn offer(&self, hop: Hop, stage: Arc<dyn LocalStage>) {
        self.local
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hop, stage);
    }

    pub(crate) fn withdraw(&self, hop: &Hop) {
        self.local.write().unwrap_or_else(PoisonError::into_inner).remove(hop);
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Writes ledger events.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.jetstream.clone())
    }

    /// Reads ledger events, as audit.
    pub async fn ledger_consumer(&self) -> Result<crate::ledger::LedgerConsumer, Error> {
        crate::ledger::LedgerConsumer::open(&self.jetstream).await
    }

    /// Keeps payloads that are too large for a message.
    pub async fn payloads(&self) -> Result<Payloads, Error> {
        Payloads::open(&self.jetstream, self.settings.inline_limit).await
    }

    /// The durable lane.
    pub async fn jobs(&self) -> Result<Jobs, Error> {
        Box::pin(Jobs::open(
            self.client.clone(),
            &self.jetstream,
            self.settings.inline_limit,
        ))
        .await
    }

    /// Reads the durable lane's records, as audit.
    pub async fn job_records(&self) -> Result<jobs::JobRecords, Error> {
        Box::pin(jobs::JobRecords::open(&self.jetstream)).await
    }

    /// Batches in files.
    pub async fn batches(&self) -> Result<Batches, Error> {
        Box::pin(Batches::open(&self.jetstream)).await
    }

    /// What is known of targets.
    pub async fn targets(&self) -> Result<Targets, Error> {
        Targets::open(&self.jetstream, self.settings.replicas).await
    }

    /// What operators have entered of one kind.
    pub async fn registry<T: Record>(&self) -> Result<Registry<T>, Error> {
        Registry::open(&self.jetstream, self.settings.replicas).await
    }

    /// Asks for slices of limits.
    #[must_use]
    pub fn quota(&self) -> Quota {
        Quota::new(self.client.clone())
    }

    /// Takes questions for slices of limits, as audit.
    pub async fn quota_questions(&self) -> Result<QuotaQuestions, Error> {
        QuotaQuestions::open(self.client.clone()).await
    }

    /// Answers for an attempt of a job, as its worker, until the guard goes.
    pub async fn answer_for(&self, attempt: AttemptId) -> Result<Presence, Error> {
        presence::answer_for(&self.client, attempt).await
    }

    /// Asks whether an attempt of a job is under way.
    pub async fn ask_after(&self, attempt: AttemptId) -> Found {
        presence::ask_after(&self.client, attempt).await
    }

    /// Takes questions after jobs, as audit.
    pub async fn job_questions(&self) -> Result<jobs::JobQuestions, Error> {
        jobs::JobQuestions::open(self.client.clone()).await
    }

    /// Has webhooks sent, as audit.
    #[must_use]
    pub fn notices(&self) -> Notices {
        Notices::new(self.client.clone())
    }

    /// Takes webhooks that are to be sent, as an ingress.
    pub async fn notices_to_send(&self) -> Result<NoticesToSend, Error> {
        NoticesToSend::open(self.client.clone()).await
    }

    /// Whether the connection is up at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Sends what is buffered; the last step of a shutdown.
    pub async fn flush(&self) {
        if let Err(error) = self.client.flush().await {
            tracing::warn!(%error, "the queue was not flushed");
        }
    }
}

/// The URL without the user and password that it may hold.
fn redacted(url: &str) -> String {
    url.split(',')
        .map(|one| match one.rsplit_once('@') {
            Some((_, host)) => format!("nats://…@{host}"),
            None => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}
