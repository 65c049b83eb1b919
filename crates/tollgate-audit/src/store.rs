//! The ledger's tables: writing a batch of events in one transaction, so that writing it again changes nothing.
//!
//! Tables are written in one order (attempts, corrections, abandonments, requests, audit events) and rows sorted by id, so that two
//! audit processes with overlapping batches wait for each other and never in a circle.

use std::{collections::BTreeSet, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tollgate_pricing::PriceLists;
use tollgate_types::{
    Caller, Millis,
    ledger::{Attempt, Conclusion, LedgerEvent, Settlement},
};
use uuid::Uuid;

use crate::{
    Error, chain,
    price::{Charge, Shelf},
    rows::{self, Batch, Ends, Starts},
};

/// How long to wait for a connection; a database that is away shows after this.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// Longest reason that is kept with a message that could not be recorded, in characters.
const REASON_LIMIT: usize = 500;

/// What a batch changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Attempts that are open now and were unknown before.
    pub opened: u64,
    /// Attempts that settled now.
    pub settled: u64,
    /// Those among `settled` for which no price is known.
    pub unpriced: u64,
    /// Settlements that came after their attempt was orphaned.
    pub corrected: u64,
    /// Attempts that are now known to be abandoned, or earlier than was known.
    pub abandoned: u64,
    /// Requests that reached their terminal state.
    pub concluded: u64,
}

/// The ledger in Postgres. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) lists: Arc<PriceLists>,
    pub(crate) shelf: Shelf,
}

impl Store {
    /// A store that connects when it is first used, with at most `max_connections` to the database. Needs a runtime.
    pub fn connect(database_url: &str, max_connections: u32) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(database_url)?.application_name("tollgate-audit");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_LIMIT)
            .after_connect(|connection, _| {
                // An event is acknowledged once it is committed; a server that was told to be quick and not sure would lose
                // the last ones when it is killed.
                let sure = sqlx::query_scalar!(
                    "SELECT set_config('synchronous_commit', 'on', false)
                     WHERE current_setting('synchronous_commit') = 'off'"
                );
                Box::pin(async move { sure.fetch_optional(connection).await.map(drop) })
            });
        Ok(Self {
            pool: pool.connect_lazy_with(options),
            lists: Arc::default(),
            shelf: Shelf::default(),
        })
    }

    /// The same database for reports: it changes nothing, and a query that takes longer than `limit` ends with an error that
    /// [took too long](Error::took_too_long).
    pub fn connect_reports(database_url: &str, max_connections: u32, limit: Duration) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(database_url)?.application_name("tollgate-reports");
        let limit = limit.as_millis().to_string();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_LIMIT)
            .after_connect(move |connection, _| {
                let limit = limit.clone();
                Box::pin(async move {
                    // What is compiled for a report of sums takes longer than its rows.
                    sqlx::query_scalar!(
                        "SELECT set_config('default_transaction_read_only', 'on', false) || set_config('jit', 'off', false)
                             || set_config('statement_timeout', $1, false)",
                        limit,
                    )
                    .fetch_one(connection)
                    .await
                    .map(drop)
                })
            });
        Ok(Self {
            pool: pool.connect_lazy_with(options),
            lists: Arc::default(),
            shelf: Shelf::default(),
        })
    }

    /// The same, with price lists for providers; a provider without one is billed by the list of its own name.
    #[must_use]
    pub fn with_price_lists(self, lists: PriceLists) -> Self {
        Self {
            lists: Arc::new(lists),
            ..self
        }
    }

    /// Whether the database answers and has the ledger's tables.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query_scalar!("SELECT count(*) FROM attempts WHERE false")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Writes events, each with its sequence in the stream, in one transaction. Events of the same attempt may come in
    /// any order, in one batch or several, and any number of times.
    pub async fn record(&self, events: &[(u64, LedgerEvent)]) -> Result<Recorded, Error> {
        let batch = Batch::gather(events)?;
        let mut transaction = self.pool.begin().await?;
        let mut recorded = self.write_attempts(&mut transaction, &batch).await?;
        recorded.abandoned = write_abandonments(&mut transaction, &batch).await?;
        recorded.concluded = write_requests(&mut transaction, &batch).await?;
        chain::follow(&mut transaction, batch.administrations.values().copied()).await?;
        transaction.commit().await?;
        Ok(recorded)
    }

    async fn write_attempts(&self, connection: &mut PgConnection, batch: &Batch<'_>) -> Result<Recorded, Error> {
        if batch.attempts.is_empty() {
            return Ok(Recorded::default());
        }
        let book = self.shelf.book(connection).await?;
        let charged = |attempt: &Attempt, end: &Settlement| rows::charge(&book, &self.lists, attempt, end);
        let priced: Vec<Priced<'_>> = batch
            .attempts
            .values()
            .map(|(attempt, end)| (*attempt, end.map(|end| (end, charged(attempt, end)))))
            .collect();
        let changed = upsert(connection, &priced).await?;
        let mut recorded = Recorded::default();
        let mut late = Vec::new();
        for (attempt, end) in &priced {
            match (changed.contains(&attempt.attempt_id.as_uuid()), end) {
                (true, None) => recorded.opened += 1,
                (true, Some((_, charge))) => {
                    recorded.settled += 1;
                    recorded.unpriced += u64::from(charge.cost.is_none());
                }
                (false, Some(end)) => late.push((attempt.attempt_id.as_uuid(), end)),
                (false, None) => {}
            }
        }
        recorded.corrected = write_corrections(connection, &late).await?;
        Ok(recorded)
    }

    /// Notes a message that cannot be recorded: where it is and what it is not, without its content. `size` is in bytes.
    pub async fn quarantine(
        &self,
        sequence: u64,
        subject: &str,
        size: usize,
        sha256: [u8; 32],
        reason: &str,
    ) -> Result<(), Error> {
        let reason: String = reason.chars().take(REASON_LIMIT).collect();
        sqlx::query!(
            "INSERT INTO ledger_quarantine (stream_sequence, subject, size, sha256, reason) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
            rows::bigint(sequence),
            subject.replace('\0', "\u{fffd}"),
            i64::try_from(size).unwrap_or(i64::MAX),
            sha256.as_slice(),
            reason.replace('\0', "\u{fffd}"),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// An attempt, and how it ended at what cost if it has.
type Priced<'a> = (&'a Attempt, Option<(&'a Settlement, Charge)>);

/// Writes open and settled attempts; returns the ids of those that are new or newly settled.
async fn upsert(connection: &mut PgConnection, attempts: &[Priced<'_>]) -> Result<BTreeSet<Uuid>, Error> {
    let (mut starts, mut ends, mut states) = (Starts::default(), Ends::default(), Vec::new());
    for (attempt, end) in attempts {
        starts.push(attempt);
        ends.push(end.as_ref());
        states.push(if end.is_some() { "settled" } else { "open" }.to_owned());
    }
    let rows = sqlx::query_file!(
        "queries/attempts.sql",
        &starts.attempt_id,
        &starts.request_id,
        &starts.generation,
        &starts.retry,
        &starts.provider,
        &starts.provider_model,
        &starts.model,
        &starts.key_id,
        &starts.key_name,
        &starts.tags,
        &starts.dialect,
        &starts.operation,
        &starts.stream,
        &starts.started_at,
        &starts.deadline_at,
        &starts.estimated_input_tokens,
        &starts.max_output_tokens as &[Option<i64>],
        &states,
        &ends.outcome as &[Option<String>],
        &ends.error_code as &[Option<String>],
        &ends.provider_status as &[Option<i32>],
        &ends.served_model as &[Option<String>],
        &ends.input_tokens as &[Option<i64>],
        &ends.cached_input_tokens as &[Option<i64>],
        &ends.cache_write_input_tokens as &[Option<i64>],
        &ends.cache_write_1h_input_tokens as &[Option<i64>],
        &ends.audio_input_tokens as &[Option<i64>],
        &ends.output_tokens as &[Option<i64>],
        &ends.reasoning_tokens as &[Option<i64>],
        &ends.audio_output_tokens as &[Option<i64>],
        &ends.web_searches as &[Option<i64>],
        &ends.usage_source as &[Option<String>],
        &ends.price_id as &[Option<i64>],
        &ends.cost_usd as &[Option<rust_decimal::Decimal>],
        &ends.cost_breakdown as &[Option<serde_json::Value>],
        &ends.ended_at as &[Option<chrono::DateTime<chrono::Utc>>],
        &ends.first_token_ms as &[Option<i64>],
        &starts.hedge,
        &starts.organisation as &[Option<String>],
        &starts.team as &[Option<String>],
        &starts.end_user as &[Option<String>],
        &starts.hold_usd as &[Option<rust_decimal::Decimal>],
        &starts.hold_leases as &[Option<serde_json::Value>],
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.attempt_id).collect())
}

async fn write_corrections(
    connection: &mut PgConnection,
    late: &[(Uuid, &(&Settlement, Charge))],
) -> Result<u64, Error> {
    if late.is_empty() {
        return Ok(0);
    }
    let mut ends = Ends::default();
    let ids: Vec<Uuid> = late.iter().map(|(id, _)| *id).collect();
    for (_, end) in late {
        ends.push(Some(end));
    }
    let done = sqlx::query_file!(
        "queries/corrections.sql",
        &ids,
        &ends.outcome as &[Option<String>],
        &ends.error_code as &[Option<String>],
        &ends.provider_status as &[Option<i32>],
        &ends.served_model as &[Option<String>],
        &ends.input_tokens as &[Option<i64>],
        &ends.cached_input_tokens as &[Option<i64>],
        &ends.cache_write_input_tokens as &[Option<i64>],
        &ends.cache_write_1h_input_tokens as &[Option<i64>],
        &ends.audio_input_tokens as &[Option<i64>],
        &ends.output_tokens as &[Option<i64>],
        &ends.reasoning_tokens as &[Option<i64>],
        &ends.audio_output_tokens as &[Option<i64>],
        &ends.web_searches as &[Option<i64>],
        &ends.usage_source as &[Option<String>],
        &ends.price_id as &[Option<i64>],
        &ends.cost_usd as &[Option<rust_decimal::Decimal>],
        &ends.cost_breakdown as &[Option<serde_json::Value>],
        &ends.ended_at as &[Option<chrono::DateTime<chrono::Utc>>],
        &ends.first_token_ms as &[Option<i64>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

async fn write_abandonments(connection: &mut PgConnection, batch: &Batch<'_>) -> Result<u64, Error> {
    if batch.abandonments.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = batch.abandonments.keys().copied().collect();
    let moments: Vec<_> = batch.abandonments.values().copied().map(Millis::to_datetime).collect();
    let done = sqlx::query_file!("queries/abandonments.sql", &ids, &moments)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

async fn write_requests(connection: &mut PgConnection, batch: &Batch<'_>) -> Result<u64, Error> {
    if batch.requests.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = batch.requests.keys().copied().collect();
    let ends: Vec<&Conclusion> = batch.requests.values().copied().collect();
    let texts = |text: fn(&Conclusion) -> String| -> Vec<String> { ends.iter().map(|end| text(end)).collect() };
    let errors: Vec<Option<String>> = ends
        .iter()
        .map(|end| end.error.map(|code| code.as_str().to_owned()))
        .collect();
    let of = |text: fn(&Caller) -> Option<String>| -> Vec<Option<String>> {
        ends.iter().map(|end| text(&end.caller)).collect()
    };
    let resends: Vec<i64> = ends.iter().map(|end| end.resends.into()).collect();
    let keys: Vec<Uuid> = ends.iter().map(|end| end.caller.key_id.as_uuid()).collect();
    let tags: Vec<_> = ends.iter().map(|end| rows::tags(&end.caller)).collect();
    let streams: Vec<bool> = ends.iter().map(|end| end.stream).collect();
    let accepted: Vec<_> = ends.iter().map(|end| end.accepted_at.to_datetime()).collect();
    let concluded: Vec<_> = ends.iter().map(|end| end.concluded_at.to_datetime()).collect();
    let done = sqlx::query_file!(
        "queries/requests.sql",
        &ids,
        &texts(|end| end.state.as_str().to_owned()),
        &errors as &[Option<String>],
        &resends,
        &keys,
        &texts(|end| end.caller.key_name.clone()),
        &tags,
        &texts(|end| end.model.clone()),
        &texts(|end| end.dialect.as_str().to_owned()),
        &streams,
        &accepted,
        &concluded,
        &of(|caller| caller.tenant.organisation.clone()) as &[Option<String>],
        &of(|caller| caller.tenant.team.clone()) as &[Option<String>],
        &of(|caller| caller.user.clone()) as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
