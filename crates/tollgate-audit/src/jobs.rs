//! The durable lane in the database: which jobs there are and how they ended, without what they ask or were answered.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tollgate_proto::v1;
use tollgate_types::{ErrorCode, Failure, Job, JobEnd, JobId, KeyId, Millis};
use uuid::Uuid;

use crate::{
    Error, Store,
    rows::{TIME_LIMIT, bigint, tags},
};

/// A time that Postgres can hold.
fn time(at: Millis) -> DateTime<Utc> {
    at.min(TIME_LIMIT).to_datetime()
}

impl Store {
    /// Writes accepted jobs. Repeats change nothing.
    pub async fn record_jobs(&self, jobs: &[Job]) -> Result<(), Error> {
        // Sorted, so that two writers lock rows in the same order.
        let jobs: Vec<&Job> = jobs
            .iter()
            .map(|job| (job.id, job))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect();
        let texts = |text: fn(&Job) -> &str| -> Vec<String> { jobs.iter().map(|job| clean(text(job))).collect() };
        sqlx::query_file!(
            "queries/jobs_accepted.sql",
            &jobs.iter().map(|job| job.id.as_uuid()).collect::<Vec<_>>(),
            &jobs.iter().map(|job| job.caller.key_id.as_uuid()).collect::<Vec<_>>(),
            &texts(|job| &job.caller.key_name),
            &jobs.iter().map(|job| tags(&job.caller)).collect::<Vec<_>>(),
            &jobs
                .iter()
                .map(|job| job.batch.as_deref().map(clean))
                .collect::<Vec<_>>() as &[Option<String>],
            &texts(|job| job.priority.as_str()),
            &texts(|job| &job.view.model),
            &texts(|job| job.dialect.as_str()),
            &texts(|job| job.view.operation.as_str()),
            &jobs.iter().map(|job| time(job.submitted_at)).collect::<Vec<_>>(),
            &jobs.iter().map(|job| job.not_before.map(time)).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
            &jobs.iter().map(|job| time(job.deadline)).collect::<Vec<_>>(),
        )
        .execute(&self.pool)
        .await?;
        let dropped = jobs
            .iter()
            .filter_map(|job| Some((job.id.as_uuid(), time(job.dropped_at?))));
        let (ids, times): (Vec<_>, Vec<_>) = dropped.unzip();
        if !ids.is_empty() {
            sqlx::query_file!("queries/jobs_dropped.sql", &ids, &times)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Writes how jobs ended. Repeats change nothing.
    pub async fn record_job_ends(&self, ends: &[JobEnd]) -> Result<(), Error> {
        let ends: Vec<&JobEnd> = ends
            .iter()
            .map(|end| (end.id, end))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect();
        let texts = |text: fn(&JobEnd) -> &str| -> Vec<String> { ends.iter().map(|end| clean(text(end))).collect() };
        let code = |end: &&JobEnd| end.failure.as_ref().map(|failure| failure.code.as_str().to_owned());
        sqlx::query_file!(
            "queries/jobs_ended.sql",
            &ends.iter().map(|end| end.id.as_uuid()).collect::<Vec<_>>(),
            &texts(|end| end.state.as_str()),
            &ends.iter().map(code).collect::<Vec<_>>() as &[Option<String>],
            &ends
                .iter()
                .map(|end| bigint(end.failed_calls.into()))
                .collect::<Vec<_>>(),
            &ends.iter().map(|end| time(end.ended_at)).collect::<Vec<_>>(),
            &ends.iter().map(|end| end.caller.key_id.as_uuid()).collect::<Vec<_>>(),
            &texts(|end| &end.caller.key_name),
            &ends.iter().map(|end| tags(&end.caller)).collect::<Vec<_>>(),
            &texts(|end| &end.model),
            &texts(|end| end.dialect.as_str()),
            &ends.iter().map(|end| time(end.submitted_at)).collect::<Vec<_>>(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The answer to a question after a key's jobs.
    pub async fn list_jobs(&self, query: &v1::ListJobsQuery) -> v1::ListJobsAnswer {
        let failure = match self.listed(query).await {
            Ok(answer) => return answer,
            Err(failure) => failure,
        };
        v1::ListJobsAnswer {
            failure: Some(failure.into()),
            ..v1::ListJobsAnswer::default()
        }
    }

    /// How many of a key's jobs of a batch are in which state.
    pub async fn count_jobs(&self, query: &v1::CountJobsQuery) -> v1::CountJobsAnswer {
        let counted = self.counted(query).await;
        counted.unwrap_or_else(|failure| v1::CountJobsAnswer {
            failure: Some(failure.into()),
            ..v1::CountJobsAnswer::default()
        })
    }

    async fn counted(&self, query: &v1::CountJobsQuery) -> Result<v1::CountJobsAnswer, Failure> {
        let key = query.key_id.parse::<KeyId>();
        let key = key.map_err(|_| Failure::new(ErrorCode::InvalidRequest, "key_id: is no key id"))?;
        let counts = sqlx::query_file!("queries/jobs_count.sql", key.as_uuid(), clean(&query.batch))
            .fetch_one(&self.pool)
            .await
            .map_err(unread)?;
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        Ok(v1::CountJobsAnswer {
            waiting: count(counts.waiting),
            answered: count(counts.answered),
            not_answered: count(counts.not_answered),
            overdue: count(counts.overdue),
            failure: None,
        })
    }

    async fn listed(&self, query: &v1::ListJobsQuery) -> Result<v1::ListJobsAnswer, Failure> {
        let invalid = |message: &str| Failure::new(ErrorCode::InvalidRequest, message);
        let key: KeyId = query.key_id.parse().map_err(|_| invalid("key_id: is no key id"))?;
        let state = match query.state() {
            v1::JobState::Unspecified => None,
            v1::JobState::Waiting | v1::JobState::Running => Some("waiting"),
            v1::JobState::Answered => Some("answered"),
            v1::JobState::Denied => Some("denied"),
            v1::JobState::Failed => Some("failed"),
            v1::JobState::Cancelled => Some("cancelled"),
        };
        let (before, id) =
            after(&query.page_token).ok_or_else(|| invalid("page_token: is not one that was given out"))?;
        let limit = i64::from(query.limit.clamp(1, 1000));
        let batch = (!query.batch.is_empty()).then(|| clean(&query.batch));
        let rows = sqlx::query_file_as!(
            Row,
            "queries/jobs_list.sql",
            key.as_uuid(),
            batch,
            state,
            before,
            id,
            limit + 1
        )
        .fetch_all(&self.pool)
        .await
        .map_err(unread)?;
        let full = usize::try_from(limit).unwrap_or(usize::MAX);
        let next_page_token = match rows.get(full.saturating_sub(1)) {
            Some(last) if rows.len() > full => {
                format!("{}.{}", last.submitted_at.timestamp_micros(), last.job_id.simple())
            }
            _ => String::new(),
        };
        Ok(v1::ListJobsAnswer {
            jobs: rows.into_iter().take(full).map(Into::into).collect(),
            next_page_token,
            failure: None,
        })
    }
}

fn unread(error: sqlx::Error) -> Failure {
    tracing::warn!(%error, "jobs were not listed");
    Failure::new(ErrorCode::Unavailable, "the list of jobs cannot be read at the moment")
}

/// Where a list goes on; from the end of time without a token.
fn after(token: &str) -> Option<(DateTime<Utc>, Uuid)> {
    if token.is_empty() {
        return Some((TIME_LIMIT.to_datetime(), Uuid::max()));
    }
    let (micros, id) = token.split_once('.')?;
    let time = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
    Some((time, Uuid::try_parse(id).ok()?))
}

/// Postgres has no NUL in a text.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

struct Row {
    job_id: Uuid,
    tags: Value,
    batch: Option<String>,
    priority: String,
    model: String,
    submitted_at: DateTime<Utc>,
    not_before: Option<DateTime<Utc>>,
    deadline_at: DateTime<Utc>,
    state: String,
    error_code: Option<String>,
    failed_calls: i64,
    ended_at: Option<DateTime<Utc>>,
}

impl From<Row> for v1::Job {
    fn from(row: Row) -> Self {
        let millis = |time: Option<DateTime<Utc>>| time.map_or(0, |time| Millis::from(time).0);
        let state = match row.state.as_str() {
            "answered" => v1::JobState::Answered,
            "denied" => v1::JobState::Denied,
            "failed" => v1::JobState::Failed,
            "cancelled" => v1::JobState::Cancelled,
            _ => v1::JobState::Waiting,
        };
        let priority = match row.priority.as_str() {
            "high" => v1::JobPriority::High,
            "low" => v1::JobPriority::Low,
            _ => v1::JobPriority::Normal,
        };
        let tags = row.tags.as_object().into_iter().flatten();
        Self {
            id: JobId::from(row.job_id).to_string(),
            state: state.into(),
            model: row.model,
            priority: priority.into(),
            batch: row.batch.unwrap_or_default(),
            tags: tags
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
            submitted_unix_ms: millis(Some(row.submitted_at)),
            not_before_unix_ms: millis(row.not_before),
            deadline_unix_ms: millis(Some(row.deadline_at)),
            ended_unix_ms: millis(row.ended_at),
            next_try_unix_ms: 0,
            failed_calls: u32::try_from(row.failed_calls).unwrap_or(u32::MAX),
            error: row.error_code.map(|code| v1::JobError {
                code,
                message: String::new(),
            }),
            answer: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_one_of_ours_or_refused() {
        let id = Uuid::from_u128(7);
        let token = format!("1767225600000001.{}", id.simple());
        let (time, found) = after(&token).unwrap();
        assert_eq!((time.timestamp_micros(), found), (1_767_225_600_000_001, id));
        for bad in [
            "x",
            "1",
            "1.",
            ".1",
            "1.zz",
            "99999999999999999999.00000000000000000000000000000007",
        ] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }
}
