//! The lane as audit sees it: its records, and questions after them.

use async_nats::{
    Client,
    jetstream::{
        self,
        consumer::{Consumer, pull::Config},
    },
};
use futures::{StreamExt, stream::SelectAll};
use prost::Message as _;
use tollgate_proto::v1;
use tollgate_types::{Job, JobEnd};

use super::decode;
use crate::{Error, pull, subject};

/// What audit reads of the lane.
pub struct JobRecords {
    jobs: Consumer<Config>,
    ends: Consumer<Config>,
}

/// A record of the lane with the means to acknowledge it.
pub struct RecordDelivery<T> {
    /// Its place in the stream.
    pub sequence: u64,
    pub record: Result<T, Error>,
    message: jetstream::Message,
}

impl<T> RecordDelivery<T> {
    /// Tells the stream that the record's effect is durable.
    pub async fn ack(self) -> Result<(), Error> {
        self.message.ack().await.map_err(Error::Jobs)
    }
}

impl JobRecords {
    pub(crate) async fn open(jetstream: &jetstream::Context) -> Result<Self, Error> {
        let consumer = async |stream: &str| {
            let found = jetstream
                .get_consumer_from_stream(subject::LEDGER_CONSUMER, stream)
                .await;
            found.map_err(|error| Error::Jobs(error.into()))
        };
        Ok(Self {
            jobs: consumer(subject::JOB_STREAM).await?,
            ends: consumer(subject::JOB_END_STREAM).await?,
        })
    }

    /// Up to `max` accepted jobs.
    pub async fn accepted(&self, max: usize) -> Result<Vec<RecordDelivery<Job>>, Error> {
        records::<v1::JobRecord, Job>(&self.jobs, max).await
    }

    /// Up to `max` ends of jobs.
    pub async fn ended(&self, max: usize) -> Result<Vec<RecordDelivery<JobEnd>>, Error> {
        records::<v1::JobEndRecord, JobEnd>(&self.ends, max).await
    }
}

async fn records<W, T>(consumer: &Consumer<Config>, max: usize) -> Result<Vec<RecordDelivery<T>>, Error>
where
    W: prost::Message + Default,
    T: TryFrom<W, Error = tollgate_proto::Invalid>,
{
    let mut found = Vec::new();
    for message in pull::at_once(consumer, max).await.map_err(Error::Jobs)? {
        found.push(RecordDelivery {
            sequence: message.info().map_err(Error::Jobs)?.stream_sequence,
            record: decode::<W, T>(&message.payload),
            message,
        });
    }
    Ok(found)
}

/// Questions after a key's jobs, for audit to answer.
pub struct JobQuestions {
    client: Client,
    questions: SelectAll<async_nats::Subscriber>,
}

/// One of them.
pub struct JobQuestion {
    pub asked: Asked,
    client: Client,
    reply: async_nats::Subject,
}

/// What is asked.
pub enum Asked {
    /// To be answered with a [`v1::ListJobsAnswer`].
    List(v1::ListJobsQuery),
    /// To be answered with a [`v1::CountJobsAnswer`].
    Count(v1::CountJobsQuery),
}

impl JobQuestions {
    pub(crate) async fn open(client: Client) -> Result<Self, Error> {
        let mut questions = SelectAll::new();
        for subject in [subject::JOB_LIST, subject::JOB_COUNT] {
            let subscribed = client
                .queue_subscribe(subject, subject::LEDGER_CONSUMER.to_owned())
                .await;
            questions.push(subscribed.map_err(|source| Error::Subscribe {
                subject: subject.to_owned(),
                source: source.into(),
            })?);
        }
        Ok(Self { client, questions })
    }

    /// The next one that can be read. `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<JobQuestion> {
        loop {
            let message = self.questions.next().await?;
            let asked = match message.subject.as_str() {
                subject::JOB_LIST => v1::ListJobsQuery::decode(message.payload).map(Asked::List),
                _ => v1::CountJobsQuery::decode(message.payload).map(Asked::Count),
            };
            if let (Ok(asked), Some(reply)) = (asked, message.reply) {
                return Some(JobQuestion {
                    asked,
                    client: self.client.clone(),
                    reply,
                });
            }
        }
    }
}

impl JobQuestion {
    /// Sends the answer to whoever asked.
    pub async fn answer(self, answer: impl prost::Message) {
        if let Err(error) = self.client.publish(self.reply, answer.encode_to_vec().into()).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}
