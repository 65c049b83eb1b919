//! Slices of limits for the ingress replicas that ask for them.
//!
//! The arithmetic is in the database (`lease_take`), where each taking is one step for however many processes of audit.

use std::{sync::Arc, time::Duration};

use rust_decimal::Decimal;
use sqlx::postgres::types::PgInterval;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_bus::quota::{QuotaQuestion, QuotaQuestions};
use tollgate_proto::{Invalid, amount, v1};
use tollgate_types::{LeaseId, LimitId, Millis};
use uuid::Uuid;

use crate::{Error, Store, consume::chain};

/// Questions answered at once; each takes a connection to the database.
const AT_ONCE: usize = 4;
/// Who asked has given up by then.
const PATIENCE: Duration = Duration::from_secs(1);
/// Leases in one question.
const MOST: usize = 10_000;

/// How long a budget's slice is its holder's without news from it.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// A replica's wish for a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub limit_id: LimitId,
    pub lease_id: LeaseId,
    pub returned: Decimal,
    pub wanted: Decimal,
    pub needed: Decimal,
    pub last: bool,
}

/// What it has of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// False when the lease is over or there is no such limit.
    pub valid: bool,
    /// All that was ever granted under the lease.
    pub granted: Decimal,
    pub lasts: Duration,
    pub amount: Decimal,
    pub used: Decimal,
    pub free: Decimal,
    pub resets: Option<Duration>,
}

impl Store {
    /// Grants what is free of what a replica asks for, in the order of the question. `usual` is how long a slice lasts where the limit
    /// has no window.
    pub async fn lease(&self, holder: &str, asked: &[Asked], usual: Duration) -> Result<Vec<Granted>, Error> {
        // Limits are locked in one order, so that two replicas wait for each other and never in a circle.
        let mut order: Vec<usize> = (0..asked.len()).collect();
        order.sort_by_key(|index| asked[*index].limit_id);
        let column = |of: fn(&Asked) -> Decimal| -> Vec<Decimal> { order.iter().map(|at| of(&asked[*at])).collect() };
        let limits: Vec<Uuid> = order.iter().map(|at| asked[*at].limit_id.as_uuid()).collect();
        let leases: Vec<Uuid> = order.iter().map(|at| asked[*at].lease_id.as_uuid()).collect();
        let last: Vec<bool> = order.iter().map(|at| asked[*at].last).collect();
        let mut transaction = self.pool.begin().await?;
        // Who completes calls locks the leases that pay for them, in this order.
        sqlx::query!(
            r#"SELECT 1 AS "one!" FROM leases WHERE lease_id = ANY($1) ORDER BY lease_id FOR UPDATE"#,
            &leases
        )
        .fetch_all(&mut *transaction)
        .await?;
        let rows = sqlx::query_file!(
            "queries/lease.sql",
            &limits,
            &leases,
            holder,
            &column(|one| one.returned),
            &column(|one| one.wanted),
            &column(|one| one.needed),
            &last,
            interval(usual),
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let mut granted = vec![Granted::default(); asked.len()];
        for (row, at) in rows.into_iter().zip(order) {
            granted[at] = Granted {
                valid: row.valid.unwrap_or(false),
                granted: row.granted.unwrap_or_default(),
                lasts: row.lasts.as_ref().and_then(duration).unwrap_or_default(),
                amount: row.amount.unwrap_or_default(),
                used: row.used.unwrap_or_default(),
                free: row.free.unwrap_or_default(),
                resets: row.resets.as_ref().and_then(duration),
            };
        }
        Ok(granted)
    }

    /// Ends leases that expired before `before`, when all that happened until then is in the ledger; how many.
    pub async fn sweep_leases(&self, before: Millis) -> Result<u64, Error> {
        let ended = sqlx::query_scalar!(r#"SELECT leases_sweep($1) AS "ended!""#, before.to_datetime());
        Ok(ended.fetch_one(&self.pool).await?.unsigned_abs())
    }
}

pub(crate) fn interval(time: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(time.as_micros()).unwrap_or(i64::MAX),
    }
}

/// None for less than nothing. A month has 30 days here, as in the database's own arithmetic of seconds.
fn duration(interval: &PgInterval) -> Option<Duration> {
    let days = i64::from(interval.months) * 30 + i64::from(interval.days);
    let micros = days.checked_mul(86_400_000_000)?.checked_add(interval.microseconds)?;
    u64::try_from(micros).ok().map(Duration::from_micros)
}

/// Grants slices.
pub(crate) struct Grants {
    pub(crate) store: Store,
    pub(crate) questions: QuotaQuestions,
}

impl Grants {
    /// Works until `stop`. A database that is away is said to be.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let tasks = TaskTracker::new();
        while let Some(Some(question)) = stop.run_until_cancelled(self.questions.next()).await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            let store = self.store.clone();
            tasks.spawn(async move {
                answer(&store, question).await;
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn answer(store: &Store, question: QuotaQuestion) {
    let holder: String = question
        .asked
        .holder
        .chars()
        .filter(|one| !one.is_control())
        .take(200)
        .collect();
    let asked: Result<Vec<Asked>, Invalid> = question.asked.leases.iter().take(MOST).map(read).collect();
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!(%error, "a question for slices of limits cannot be read");
            return;
        }
    };
    let answer = match timeout(PATIENCE, store.lease(&holder, &asked, LEASE)).await {
        Ok(Ok(granted)) => v1::QuotaAnswer {
            leases: granted.into_iter().map(Into::into).collect(),
            away: false,
        },
        failed => {
            if let Ok(Err(error)) = failed {
                tracing::warn!(error = %chain(&error), "slices of limits cannot be granted");
            }
            v1::QuotaAnswer {
                leases: Vec::new(),
                away: true,
            }
        }
    };
    question.answer(&answer).await;
}

fn read(wire: &v1::LeaseAsked) -> Result<Asked, Invalid> {
    let not_less = |field, text| {
        let amount = amount(field, text)?;
        if amount < Decimal::ZERO {
            return Err(Invalid::new(field, "is less than nothing"));
        }
        Ok(amount)
    };
    Ok(Asked {
        limit_id: wire
            .limit_id
            .parse()
            .map_err(|_| Invalid::new("limit_id", "is no limit id"))?,
        lease_id: wire
            .lease_id
            .parse()
            .map_err(|_| Invalid::new("lease_id", "is no lease id"))?,
        returned: not_less("returned", &wire.returned)?,
        wanted: not_less("wanted", &wire.wanted)?,
        needed: not_less("needed", &wire.needed)?,
        last: wire.last,
    })
}

impl From<Granted> for v1::LeaseGranted {
    fn from(granted: Granted) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            valid: granted.valid,
            granted: granted.granted.to_string(),
            lasts_ms: millis(granted.lasts),
            amount: granted.amount.to_string(),
            used: granted.used.to_string(),
            free: granted.free.to_string(),
            resets_in_ms: granted.resets.map(millis),
        }
    }
}
