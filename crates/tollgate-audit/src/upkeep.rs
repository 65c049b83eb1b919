//! Keeps the ledger's partitions: makes those of the months to come, and forgets those that are older than they have to be. And
//! tells the database where providers serve.

use std::time::Duration;

use chrono::{DateTime, Months, Utc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{Error, Store, consume::chain};

/// How often it is looked after.
const LOOK: Duration = Duration::from_secs(3600);
/// After a failure.
const TROUBLE: Duration = Duration::from_secs(10);
/// A partition is there so long before its first call.
const AHEAD: Duration = Duration::from_secs(31 * 24 * 3600);

/// Looks after the partitions.
pub(crate) struct Upkeep {
    pub(crate) store: Store,
    /// How many months calls are kept; for ever if none is given.
    pub(crate) keep: Option<u32>,
    /// Of each provider of the configuration.
    pub(crate) regions: Vec<(String, Option<String>)>,
}

impl Upkeep {
    /// Works until `stop`. A database that is away does not end it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.look(Utc::now()).await {
                tracing::warn!(error = %chain(&error), "the ledger's partitions cannot be looked after");
                ticks.reset_after(TROUBLE);
            }
        }
    }

    async fn look(&self, now: DateTime<Utc>) -> Result<(), Error> {
        self.store.note_regions(&self.regions).await?;
        let made = self.store.make_partitions(now + AHEAD).await?;
        if made > 0 {
            tracing::info!(partitions = made, "the ledger has room for the months to come");
        }
        if let Some(before) = self.keep.and_then(|keep| now.checked_sub_months(Months::new(keep))) {
            let forgotten = self.store.forget_calls(before).await?;
            if forgotten > 0 {
                tracing::warn!(months = forgotten, "calls older than audit.keep_months were forgotten");
            }
        }
        Ok(())
    }
}

impl Store {
    /// Writes down where providers serve from now on, for reports; what was so before stays so.
    pub async fn note_regions(&self, regions: &[(String, Option<String>)]) -> Result<(), Error> {
        let (providers, regions): (Vec<String>, Vec<Option<String>>) = regions.iter().cloned().unzip();
        sqlx::query!(
            "INSERT INTO provider_regions (provider, since, region)
             SELECT p.provider, usage_slot(now()), p.region FROM unnest($1::text[], $2::text[]) AS p (provider, region)
             WHERE (SELECT r.region IS NOT DISTINCT FROM p.region FROM provider_regions r
                    WHERE r.provider = p.provider ORDER BY r.since DESC LIMIT 1) IS NOT TRUE
             ON CONFLICT (provider, since) DO UPDATE SET region = excluded.region",
            &providers,
            &regions as &[Option<String>],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Makes the partitions of all months up to that of `until`; of how many.
    pub async fn make_partitions(&self, until: DateTime<Utc>) -> Result<u32, Error> {
        let made = sqlx::query_scalar!(r#"SELECT ledger_make_partitions($1) AS "made!""#, until);
        Ok(made.fetch_one(&self.pool).await?.unsigned_abs())
    }

    /// Forgets the calls and requests of the months that lie wholly before this time; of how many. What they cost stays in the sums.
    pub async fn forget_calls(&self, before: DateTime<Utc>) -> Result<u32, Error> {
        let forgotten = sqlx::query_scalar!(r#"SELECT ledger_forget($1) AS "forgotten!""#, before);
        Ok(forgotten.fetch_one(&self.pool).await?.unsigned_abs())
    }
}
