//! The durable lane's streams: jobs that were accepted, how they ended, and notes on what they are doing.
//!
//! Two compare-and-sets hold the lane together, both decided by JetStream: a job is stored once for each id, however
//! often it is submitted, and it ends once, whoever says so first. Both streams keep what they have until its age is over,
//! also when it has been acknowledged, because a stream that forgets ids forgets claims.

mod records;

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, AckKind,
        consumer::{AckPolicy, Consumer, pull::Config},
        context::PublishErrorKind,
        message::PublishMessage,
        object_store::{self, ObjectStore},
        stream::{self, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message as _;
use tollgate_proto::v1;
use tollgate_types::{Job, JobEnd, JobId, JobNote, Millis, Payload, job::Priority};

use crate::{Error, connection::Storage, payload, pull, subject};

pub use records::{Asked, JobQuestion, JobQuestions, JobRecords, RecordDelivery};

/// A job that its dispatcher does not report on for this long is given to another.
pub const JOB_LEASE: Duration = Duration::from_secs(30);
const NOTES_MAX_BYTES: i64 = 64 << 20;
const NOTES_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Jobs that wait for their time count as delivered; there may be many.
const MOST_PENDING: i64 = 1_000_000;
const AUDIT_PENDING: i64 = 20_000;
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Creates or updates what the lane needs.
pub(crate) async fn init(jetstream: &jetstream::Context, storage: &Storage) -> Result<(), Error> {
    let set_up = |what: &'static str| move |source: async_nats::Error| Error::SetUp { what, source };
    let kept = stream::Config {
        retention: RetentionPolicy::Limits,
        // A full stream refuses new jobs; it never drops an old one.
        discard: DiscardPolicy::New,
        max_age: storage.retention,
        max_bytes: storage.bytes,
        duplicate_window: DUPLICATE_WINDOW,
        num_replicas: storage.replicas,
        ..Default::default()
    };
    let jobs = stream::Config {
        name: subject::JOB_STREAM.to_owned(),
        description: Some("accepted jobs".to_owned()),
        subjects: vec![format!("{}.*.*", subject::JOBS)],
        ..kept.clone()
    };
    let ends = stream::Config {
        name: subject::JOB_END_STREAM.to_owned(),
        description: Some("how jobs ended".to_owned()),
        subjects: vec![format!("{}.*", subject::JOB_END)],
        ..kept
    };
    for config in [jobs, ends, notes()] {
        let made = jetstream.create_or_update_stream(config).await;
        made.map_err(|error| set_up("a stream of jobs")(error.into()))?;
    }
    for priority in Priority::ALL {
        let config = Config {
            durable_name: Some(priority.as_str().to_owned()),
            filter_subject: format!("{}.{}.*", subject::JOBS, priority.as_str()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: JOB_LEASE,
            max_ack_pending: MOST_PENDING,
            ..Default::default()
        };
        let made = jetstream.create_consumer_on_stream(config, subject::JOB_STREAM).await;
        made.map_err(|error| set_up("a consumer of jobs")(error.into()))?;
    }
    for (stream, name, max_ack_pending) in [
        (subject::JOB_STREAM, subject::LEDGER_CONSUMER, AUDIT_PENDING),
        (subject::JOB_END_STREAM, subject::LEDGER_CONSUMER, AUDIT_PENDING),
        (subject::JOB_END_STREAM, subject::WEBHOOK_CONSUMER, MOST_PENDING),
    ] {
        let config = Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: JOB_LEASE,
            max_ack_pending,
            ..Default::default()
        };
        let made = jetstream.create_consumer_on_stream(config, stream).await;
        made.map_err(|error| set_up("a consumer of what becomes of jobs")(error.into()))?;
    }
    if jetstream.get_object_store(subject::JOB_BUCKET).await.is_err() {
        let made = jetstream
            .create_object_store(object_store::Config {
                bucket: subject::JOB_BUCKET.to_owned(),
                description: Some("large bodies of jobs and of their answers".to_owned()),
                max_age: storage.retention,
                max_bytes: storage.bytes,
                num_replicas: storage.replicas,
                ..Default::default()
            })
            .await;
        made.map_err(|error| set_up("the store for jobs")(error.into()))?;
    }
    Ok(())
}

/// The stream of notes. It is in memory, where a write costs nothing, so that it has to be made anew after a restart of the
/// server.
fn notes() -> stream::Config {
    stream::Config {
        name: subject::JOB_NOTE_STREAM.to_owned(),
        description: Some("what jobs are doing".to_owned()),
        subjects: vec![format!("{}.*", subject::JOB_NOTE)],
        storage: StorageType::Memory,
        discard: DiscardPolicy::Old,
        max_age: NOTES_MAX_AGE,
        max_messages_per_subject: 1,
        max_bytes: NOTES_MAX_BYTES,
        num_replicas: 1,
        ..Default::default()
    }
}

/// The lane, for who submits, dispatches and asks. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    client: Client,
    jetstream: jetstream::Context,
    jobs: stream::Stream,
    ends: stream::Stream,
    notes: stream::Stream,
    store: ObjectStore,
    inline_limit: usize,
}

impl Jobs {
    pub(crate) async fn open(
        client: Client,
        jetstream: &jetstream::Context,
        inline_limit: usize,
    ) -> Result<Self, Error> {
        let stream = async |name: &str| {
            let found = jetstream.get_stream(name).await;
            found.map_err(|error| Error::Jobs(error.into()))
        };
        let store = jetstream.get_object_store(subject::JOB_BUCKET).await;
        Ok(Self {
            client,
            jobs: stream(subject::JOB_STREAM).await?,
            ends: stream(subject::JOB_END_STREAM).await?,
            notes: jetstream
                .get_or_create_stream(notes())
                .await
                .map_err(|error| Error::Jobs(error.into()))?,
            store: store.map_err(|error| Error::PayloadStore(error.into()))?,
            jetstream: jetstream.clone(),
            inline_limit,
        })
    }

    /// Stores a job, and returns once it is on disk: true when it is new, false when its id is known.
    pub async fn submit(&self, job: &Job) -> Result<bool, Error> {
        let subject = format!("{}.{}.{}", subject::JOBS, job.priority.as_str(), job.id);
        // The same id under another priority is the same job.
        let any = format!("{}.*.{}", subject::JOBS, job.id);
        let message = PublishMessage::build()
            .message_id(format!("job:{}", job.id))
            .header(subject::EXPECTED_IN, any.as_str());
        let bytes = v1::JobRecord::from(job.clone()).encode_to_vec();
        let new = self.store_first(subject, message, bytes).await?;
        if new {
            // Whoever misses it looks by himself before long.
            let _ = self.client.publish(subject::JOB_HINT, Bytes::new()).await;
        }
        Ok(new)
    }

    /// Ends a job: false when it had ended.
    pub async fn finish(&self, end: &JobEnd) -> Result<bool, Error> {
        let subject = format!("{}.{}", subject::JOB_END, end.id);
        let bytes = v1::JobEndRecord::from(end.clone()).encode_to_vec();
        // Without a message id: two ends of one job are two messages, and the second must be told that it is one.
        self.store_first(subject, PublishMessage::build(), bytes).await
    }

    /// Forgets a job that has ended: what is left in the streams tells that its id is taken.
    pub async fn forget(&self, job: Job, end: JobEnd, at: Millis) -> Result<(), Error> {
        let bodies = [Some(&job.payload), end.answer.as_ref()].map(|body| body.cloned());
        let (job, end) = (job.dropped(at), end.dropped());
        let subject = format!("{}.{}", subject::JOB_END, end.id);
        let bytes = v1::JobEndRecord::from(end).encode_to_vec();
        self.replace(&self.ends, subject, bytes).await?;
        let subject = format!("{}.{}.{}", subject::JOBS, job.priority.as_str(), job.id);
        let bytes = v1::JobRecord::from(job).encode_to_vec();
        self.replace(&self.jobs, subject, bytes).await?;
        for body in bodies.into_iter().flatten() {
            payload::forget(&self.store, &body).await;
        }
        Ok(())
    }

    /// Stores a record in the place of the last one of its subject, which is erased.
    async fn replace(&self, stream: &stream::Stream, subject: String, bytes: Vec<u8>) -> Result<(), Error> {
        let failed = |error: async_nats::Error| Error::Jobs(error);
        let last = match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(last) => last,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        let message = PublishMessage::build()
            .expected_last_subject_sequence(last.sequence)
            .payload(bytes.into());
        let sent = self.jetstream.send_publish(subject, message).await;
        sent.map_err(|error| failed(error.into()))?
            .await
            .map_err(|error| failed(error.into()))?;
        stream
            .delete_message(last.sequence)
            .await
            .map_err(|error| failed(error.into()))?;
        Ok(())
    }

    async fn store_first(&self, subject: String, message: PublishMessage, bytes: Vec<u8>) -> Result<bool, Error> {
        let failed = |source: async_nats::Error| Error::Publish {
            subject: subject.clone(),
            source,
        };
        let message = message.expected_last_subject_sequence(0).payload(bytes.into());
        let sent = self.jetstream.send_publish(subject.clone(), message).await;
        match sent.map_err(|error| failed(error.into()))?.await {
            Ok(stored) => Ok(!stored.duplicate),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The job of this id.
    pub async fn find(&self, id: JobId) -> Result<Option<Job>, Error> {
        let found = last(&self.jobs, format!("{}.*.{id}", subject::JOBS)).await?;
        found.map(|bytes| decode::<v1::JobRecord, Job>(&bytes)).transpose()
    }

    /// How the job of this id ended, if it has.
    pub async fn end_of(&self, id: JobId) -> Result<Option<JobEnd>, Error> {
        let found = last(&self.ends, format!("{}.{id}", subject::JOB_END)).await?;
        found
            .map(|bytes| decode::<v1::JobEndRecord, JobEnd>(&bytes))
            .transpose()
    }

    /// What is known of a job that has not ended. Nothing is a fair answer.
    pub async fn note_of(&self, id: JobId) -> JobNote {
        let found = last(&self.notes, format!("{}.{id}", subject::JOB_NOTE)).await;
        if found.is_err()
            && let Err(error) = self.jetstream.get_or_create_stream(notes()).await
        {
            tracing::debug!(%error, "the stream of notes is away");
        }
        let note = found.ok().flatten();
        let note = note.and_then(|bytes| decode::<v1::JobNoteRecord, JobNote>(&bytes).ok());
        note.unwrap_or_default()
    }

    /// Notes what a job is doing.
    pub async fn note(&self, id: JobId, note: JobNote) {
        let subject = format!("{}.{id}", subject::JOB_NOTE);
        let bytes = v1::JobNoteRecord::from(note).encode_to_vec();
        if let Err(error) = self.client.publish(subject, bytes.into()).await {
            tracing::debug!(%error, job.id = %id, "a note was not written");
        }
    }

    /// `body` as something to be kept with a job: as it is, or stored under a name made of the id and `part`.
    pub async fn check_in(&self, id: JobId, part: &str, body: Bytes) -> Result<Payload, Error> {
        payload::check_in(&self.store, self.inline_limit, format!("{id}-{part}"), body).await
    }

    /// The bytes of a payload that was kept with a job.
    pub async fn fetch(&self, payload: &Payload) -> Result<Bytes, Error> {
        payload::fetch(&self.store, payload).await
    }

    /// Asks audit which jobs there are.
    pub async fn ask_for_list(&self, query: v1::ListJobsQuery) -> Result<v1::ListJobsAnswer, Error> {
        self.ask(subject::JOB_LIST, &query).await
    }

    /// Asks audit how many jobs there are.
    pub async fn ask_for_count(&self, query: v1::CountJobsQuery) -> Result<v1::CountJobsAnswer, Error> {
        self.ask(subject::JOB_COUNT, &query).await
    }

    async fn ask<A: prost::Message + Default>(
        &self,
        subject: &'static str,
        query: &impl prost::Message,
    ) -> Result<A, Error> {
        let asked = self.client.request(subject, query.encode_to_vec().into()).await;
        let answer = asked.map_err(|error| Error::Jobs(error.into()))?;
        A::decode(answer.payload).map_err(|_| Error::Unreadable("not an answer".to_owned()))
    }

    /// Jobs of one priority, to be dispatched.
    pub async fn due(&self, priority: Priority) -> Result<Taker<Job>, Error> {
        let found = self.jobs.get_consumer(priority.as_str()).await;
        Ok(Taker::new(found.map_err(Error::Jobs)?, decode::<v1::JobRecord, Job>))
    }

    /// Ends of jobs, for their submitters to be told.
    pub async fn untold(&self) -> Result<Taker<JobEnd>, Error> {
        let found = self.ends.get_consumer(subject::WEBHOOK_CONSUMER).await;
        Ok(Taker::new(
            found.map_err(Error::Jobs)?,
            decode::<v1::JobEndRecord, JobEnd>,
        ))
    }

    /// Says that something was submitted, ended or noted: about one job, or any. It may say so when nothing was, and may
    /// miss what happens while the connection is down.
    pub async fn hints(&self, about: Hints) -> Result<impl Stream<Item = Option<JobId>> + Send + use<>, Error> {
        let subjects = match about {
            Hints::Submitted => vec![subject::JOB_HINT.to_owned()],
            Hints::Ended => vec![format!("{}.*", subject::JOB_END)],
            Hints::Of(id) => vec![
                format!("{}.{id}", subject::JOB_END),
                format!("{}.{id}", subject::JOB_NOTE),
            ],
        };
        let mut all = Vec::new();
        for subject in subjects {
            let subscribed = self.client.subscribe(subject.clone()).await;
            all.push(subscribed.map_err(|source| Error::Subscribe {
                subject,
                source: source.into(),
            })?);
        }
        Ok(futures::stream::select_all(all).map(|message| message.subject.rsplit('.').next()?.parse().ok()))
    }
}

/// What to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hints {
    Submitted,
    Ended,
    Of(JobId),
}

/// Asked of the stream's leader, so that what was stored a moment ago is seen.
pub(crate) async fn last(stream: &stream::Stream, subject: String) -> Result<Option<Bytes>, Error> {
    match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => Ok(Some(message.payload)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(Error::Jobs(error.into())),
    }
}

fn decode<W, T>(bytes: &[u8]) -> Result<T, Error>
where
    W: prost::Message + Default,
    T: TryFrom<W, Error = tollgate_proto::Invalid>,
{
    let wire = W::decode(bytes).map_err(|_| Error::Unreadable("not a record".to_owned()))?;
    T::try_from(wire).map_err(|invalid| Error::Unreadable(invalid.to_string()))
}

/// Takes records from a stream of the lane; each is with one taker at a time.
pub struct Taker<T> {
    consumer: Consumer<Config>,
    decode: fn(&[u8]) -> Result<T, Error>,
}

/// A record that was taken. Dropped, it is delivered again after [`JOB_LEASE`].
pub struct Taken<T> {
    /// [`Error::Unreadable`] when it is none; such a one is to be acknowledged, or it comes for ever.
    pub record: Result<T, Error>,
    /// How often it was delivered, with this time.
    pub deliveries: u32,
    message: jetstream::Message,
}

impl<T> Taker<T> {
    pub(crate) const fn new(consumer: Consumer<Config>, decode: fn(&[u8]) -> Result<T, Error>) -> Self {
        Self { consumer, decode }
    }

    /// Up to `max` records that are due, and none when none is.
    pub async fn take(&self, max: usize) -> Result<Vec<Taken<T>>, Error> {
        let mut taken = Vec::new();
        for message in pull::at_once(&self.consumer, max).await.map_err(Error::Jobs)? {
            let deliveries = message.info().map_err(Error::Jobs)?.delivered;
            taken.push(Taken {
                deliveries: u32::try_from(deliveries).unwrap_or(1),
                record: (self.decode)(&message.payload),
                message,
            });
        }
        Ok(taken)
    }
}

impl<T> Taken<T> {
    /// Nothing is left to do.
    pub async fn done(&self) -> Result<(), Error> {
        self.message.double_ack().await.map_err(Error::Jobs)
    }

    /// Still at it: the lease begins anew.
    pub async fn extend(&self) -> Result<(), Error> {
        self.message.ack_with(AckKind::Progress).await.map_err(Error::Jobs)
    }

    /// Gives it back, to come again after `wait`.
    pub async fn again(&self, wait: Duration) -> Result<(), Error> {
        let wait = (!wait.is_zero()).then_some(wait);
        self.message.ack_with(AckKind::Nak(wait)).await.map_err(Error::Jobs)
    }
}
