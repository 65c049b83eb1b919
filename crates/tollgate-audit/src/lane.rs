//! From the streams of the durable lane to the tables, and answers to who asks what is there.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tollgate_bus::jobs::{Asked, JobQuestions, JobRecords, RecordDelivery};
use tollgate_types::{Job, JobEnd};

use crate::{Error, Store, consume::chain};

/// Records in one statement.
const BATCH: usize = 500;
const IDLE: Duration = Duration::from_millis(200);
const TROUBLE: Duration = Duration::from_secs(1);

/// The durable lane's part of audit.
pub(crate) struct Lane {
    pub(crate) store: Store,
    pub(crate) records: JobRecords,
    pub(crate) questions: JobQuestions,
}

impl Lane {
    /// Works until `stop`. Neither a stream nor a database that is away ends it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self {
            store,
            records,
            mut questions,
        } = self;
        let answering = async {
            while let Some(Some(question)) = stop.run_until_cancelled(questions.next()).await {
                match &question.asked {
                    Asked::List(query) => {
                        let answer = store.list_jobs(query).await;
                        question.answer(answer).await;
                    }
                    Asked::Count(query) => {
                        let answer = store.count_jobs(query).await;
                        question.answer(answer).await;
                    }
                }
            }
        };
        let writing = async {
            // What is on its way is not given up at `stop`: it would lie unacknowledged until its time is over.
            while !stop.is_cancelled() {
                let pause = match write(&store, &records).await {
                    Ok(0) => IDLE,
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::warn!(error, "records of jobs wait");
                        TROUBLE
                    }
                };
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        };
        tokio::join!(answering, writing);
    }
}

/// A record of the lane that has a table.
trait Kept: Clone + Send + Sync {
    fn keep(store: &Store, records: &[Self]) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Kept for Job {
    fn keep(store: &Store, records: &[Self]) -> impl Future<Output = Result<(), Error>> + Send {
        store.record_jobs(records)
    }
}

impl Kept for JobEnd {
    fn keep(store: &Store, records: &[Self]) -> impl Future<Output = Result<(), Error>> + Send {
        store.record_job_ends(records)
    }
}

/// Writes what is there and acknowledges it; how much it was.
async fn write(store: &Store, records: &JobRecords) -> Result<usize, String> {
    let accepted = records.accepted(BATCH).await.map_err(|error| chain(&error))?;
    let count = accepted.len();
    keep_all(store, accepted).await?;
    let ended = records.ended(BATCH).await.map_err(|error| chain(&error))?;
    let count = count + ended.len();
    keep_all(store, ended).await?;
    Ok(count)
}

async fn keep_all<T: Kept>(store: &Store, deliveries: Vec<RecordDelivery<T>>) -> Result<(), String> {
    let readable = deliveries.iter().filter_map(|delivery| match &delivery.record {
        Ok(record) => Some(record.clone()),
        Err(error) => {
            tracing::error!(%error, sequence = delivery.sequence, "a record of a job cannot be read and was passed over");
            None
        }
    });
    let readable: Vec<T> = readable.collect();
    if !readable.is_empty() {
        match T::keep(store, &readable).await {
            Ok(()) => {}
            // One of them is at fault: the others are written one by one.
            Err(error) if error.refusal().is_some() => {
                for record in &readable {
                    match T::keep(store, std::slice::from_ref(record)).await {
                        Err(error) if error.refusal().is_none() => return Err(chain(&error)),
                        Err(error) => tracing::error!(error = chain(&error), "a record of a job was refused"),
                        Ok(()) => {}
                    }
                }
            }
            Err(error) => return Err(chain(&error)),
        }
    }
    for delivery in deliveries {
        if let Err(error) = delivery.ack().await {
            tracing::warn!(error = chain(&error), "cannot acknowledge, it will come again");
        }
    }
    Ok(())
}
