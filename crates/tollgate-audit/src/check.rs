//! The whole ledger, row by row, for who compares it with a provider's own log.

use tollgate_types::{AttemptId, JobId, RequestId};

use crate::{Error, Store};

/// An attempt as the ledger has it.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    pub attempt_id: AttemptId,
    pub request_id: RequestId,
    /// `open`, `settled` or `orphaned`.
    pub state: String,
    pub outcome: Option<String>,
    pub usage_source: Option<String>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
}

impl Store {
    /// Every attempt, in no order.
    pub async fn all_attempts(&self) -> Result<Vec<AttemptRow>, Error> {
        let rows = sqlx::query_file!("queries/check_attempts.sql")
            .fetch_all(&self.pool)
            .await?;
        let attempts = rows.into_iter().map(|row| AttemptRow {
            attempt_id: AttemptId::of(row.attempt_id),
            request_id: RequestId::of(row.request_id),
            state: row.state,
            outcome: row.outcome,
            usage_source: row.usage_source,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
        });
        Ok(attempts.collect())
    }

    /// Sums and leases that are not what the ledger says, by name.
    pub async fn wrong_sums(&self) -> Result<Vec<String>, Error> {
        Ok(sqlx::query_file_scalar!("queries/check_sums.sql")
            .fetch_all(&self.pool)
            .await?)
    }

    /// Every accepted job and its state, in no order.
    pub async fn all_jobs(&self) -> Result<Vec<(JobId, String)>, Error> {
        let rows = sqlx::query_file!("queries/check_jobs.sql")
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| (JobId::of(row.job_id), row.state)).collect())
    }
}
