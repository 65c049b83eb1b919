//! Attempts whose end nobody saw, completed with an estimate, flagged, never forgotten; and requests whose owner was lost.
//!
//! The estimate is the prompt's estimated tokens, none of them cached, and for the answer the client's own limit or
//! [`ASSUMED_OUTPUT_TOKENS`], whichever is less; vectors have no answer in tokens, and counting tokens is free. It errs on the low side for a long answer; a settlement that arrives
//! after all becomes a correction.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;
use tollgate_pricing::Call;
use tollgate_types::{Millis, Operation, Usage, UsageSource};
use uuid::Uuid;

use crate::{Error, Store, price::charge, rows::bigint};

/// Length of an answer that nobody saw, in tokens, unless the client allowed less.
pub const ASSUMED_OUTPUT_TOKENS: u64 = 256;

/// Attempts completed in one transaction.
const BATCH: i64 = 500;

impl Store {
    /// Completes the open attempts whose deadline, or whose abandonment by their owner, is more than `grace` before
    /// `now`, with estimates. Returns how many they were.
    pub async fn orphan(&self, now: Millis, grace: Duration) -> Result<u64, Error> {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let overdue_before = Millis(now.0.saturating_sub(grace));
        let mut total = 0;
        loop {
            let found = self.orphan_some(overdue_before).await?;
            total += found;
            if found < BATCH.unsigned_abs() {
                return Ok(total);
            }
        }
    }

    /// Ends the requests of attempts that started in the time given, `until` excluded, of which nobody said how they ended: their ingress was
    /// lost. The time lies so far back that nobody will. Returns how many they were.
    pub async fn end_lost_requests(&self, since: Millis, until: Millis) -> Result<u64, Error> {
        let done = sqlx::query_file!("queries/lost_requests.sql", since.to_datetime(), until.to_datetime())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    async fn orphan_some(&self, overdue_before: Millis) -> Result<u64, Error> {
        let mut transaction = self.pool.begin().await?;
        let overdue = sqlx::query_file!("queries/overdue.sql", overdue_before.to_datetime(), BATCH)
            .fetch_all(&mut *transaction)
            .await?;
        if overdue.is_empty() {
            return Ok(0);
        }
        let book = self.shelf.book(&mut transaction).await?;
        let (mut ids, mut inputs, mut outputs) = (Vec::<Uuid>::new(), Vec::<i64>::new(), Vec::<i64>::new());
        let (mut price_ids, mut costs) = (Vec::<Option<i64>>::new(), Vec::<Option<Decimal>>::new());
        let mut breakdowns = Vec::<Option<Value>>::new();
        for row in &overdue {
            let usage = estimate(&row.operation, row.estimated_input_tokens, row.max_output_tokens);
            let call = Call {
                provider: &row.provider,
                served: None,
                asked: &row.provider_model,
                region: None,
                at: row.started_at,
            };
            let charge = charge(&book, &self.lists, call, &usage.consumption(), UsageSource::Estimated);
            ids.push(row.attempt_id);
            inputs.push(bigint(usage.input_tokens));
            outputs.push(bigint(usage.output_tokens));
            price_ids.push(charge.price_id);
            costs.push(charge.cost.map(|cost| cost.amount()));
            breakdowns.push(charge.breakdown);
        }
        let done = sqlx::query_file!(
            "queries/orphans.sql",
            &ids,
            &inputs,
            &outputs,
            &price_ids as &[Option<i64>],
            &costs as &[Option<Decimal>],
            &breakdowns as &[Option<Value>],
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}

fn estimate(operation: &str, estimated_input_tokens: i64, max_output_tokens: Option<i64>) -> Usage {
    let limit = max_output_tokens.map_or(ASSUMED_OUTPUT_TOKENS, i64::unsigned_abs);
    let (input_tokens, output_tokens) = match operation {
        _ if operation == Operation::CountTokens.as_str() => (0, 0),
        _ if operation == Operation::Embed.as_str() => (estimated_input_tokens.unsigned_abs(), 0),
        _ => (estimated_input_tokens.unsigned_abs(), limit.min(ASSUMED_OUTPUT_TOKENS)),
    };
    Usage {
        input_tokens,
        output_tokens,
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_estimated_short() {
        assert_eq!(
            estimate("chat", 40, None),
            Usage {
                input_tokens: 40,
                output_tokens: 256,
                ..Usage::default()
            }
        );
        assert_eq!(
            estimate("chat", 0, Some(16)),
            Usage {
                output_tokens: 16,
                ..Usage::default()
            }
        );
        assert_eq!(estimate("chat", 0, Some(100_000)).output_tokens, 256);
        assert_eq!(estimate("embed", 40, None).output_tokens, 0);
        assert_eq!(estimate("count_tokens", 40, None), Usage::default());
    }
}
