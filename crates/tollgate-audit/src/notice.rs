//! Tells who wants to know that a share of a budget is spent. Each share is noted once in a period, whichever process of audit
//! sees it first, and told until its receiver has taken it: over NATS to an ingress, which sends webhooks.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tollgate_bus::quota::{Notices, Told};
use tollgate_types::LimitId;
use uuid::Uuid;

use crate::{Error, Store, consume::chain};

/// How often budgets are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// After the first failure; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
const MOST_DOUBLINGS: u32 = 16;

/// Finds what is to be told, and has it told.
pub(crate) struct Watch {
    pub(crate) store: Store,
    pub(crate) notices: Notices,
}

/// That a share of a budget is spent.
#[derive(Debug, Clone, PartialEq)]
struct Notice {
    notice_id: Uuid,
    limit_id: Uuid,
    name: String,
    period: DateTime<Utc>,
    share: Decimal,
    spent_usd: Decimal,
    amount_usd: Decimal,
    webhook: String,
    crossed_at: DateTime<Utc>,
    tries: i32,
}

impl Notice {
    fn body(&self) -> String {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        json!({
            "type": "budget.threshold",
            "timestamp": time(self.crossed_at),
            "data": {
                "limit": self.name,
                "limit_id": LimitId::of(self.limit_id),
                "share": self.share.normalize(),
                "spent_usd": self.spent_usd.normalize(),
                "amount_usd": self.amount_usd.normalize(),
                "period_began": time(self.period),
            },
        })
        .to_string()
    }
}

impl Watch {
    /// Works until `stop`. Neither a database nor an ingress that is away ends it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            if let Err(error) = self.look().await {
                tracing::warn!(error = %chain(&error), "budgets cannot be watched");
            }
        }
    }

    async fn look(&self) -> Result<(), Error> {
        self.store.note_spent_shares().await?;
        for notice in self.store.take_notices().await? {
            let id = format!("evt_{}", notice.notice_id.simple());
            let told = self.notices.tell(&id, &notice.webhook, &notice.body()).await;
            self.store.notice_told(&notice, told).await?;
        }
        Ok(())
    }
}

impl Store {
    async fn note_spent_shares(&self) -> Result<u64, Error> {
        let noted = sqlx::query_file!("queries/notices_find.sql")
            .execute(&self.pool)
            .await?;
        Ok(noted.rows_affected())
    }

    async fn take_notices(&self) -> Result<Vec<Notice>, Error> {
        let taken = sqlx::query_file_as!(Notice, "queries/notices_take.sql");
        Ok(taken.fetch_all(&self.pool).await?)
    }

    async fn notice_told(&self, notice: &Notice, told: Told) -> Result<(), Error> {
        let doublings = u32::try_from(notice.tries.saturating_sub(1))
            .unwrap_or(0)
            .min(MOST_DOUBLINGS);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        let next = Utc::now() + pause;
        let over = told == Told::Gone || next > notice.crossed_at + GIVE_UP;
        if over && told != Told::Delivered {
            tracing::warn!(
                limit = notice.name,
                "nobody takes the news that a share of a budget is spent"
            );
        }
        sqlx::query!(
            "UPDATE limit_notices SET told_at = CASE WHEN $2 THEN now() END, given_up = $3, next_try = $4 WHERE notice_id = $1",
            notice.notice_id,
            told == Told::Delivered,
            over && told != Told::Delivered,
            next,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
