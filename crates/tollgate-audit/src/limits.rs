//! Budgets and rate limits: making and changing them.
//!
//! How much of a budget is spent is what the ledger says, so that a change to a limit never touches it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};
use tollgate_bus::Registry;
use tollgate_types::{
    KeyId, LimitId, LimitRecord, Tenant,
    limit::{Measure, Period, Scope, WhenAway},
};
use uuid::Uuid;

use crate::{
    Actor, Error, Refusal, Store,
    chain::{self, Change},
    keys::{name, violated},
    lease::{LEASE, interval},
};

/// Limits told of in one transaction.
const BATCH: i64 = 100;
const LONGEST_TEXT: usize = 256;
const MOST_NOTICES: usize = 10;
const LONGEST_ADDRESS: usize = 2048;
/// Largest amount, and most decimals of one.
const LARGEST: i64 = 1_000_000_000_000;
const MOST_DECIMALS: u32 = 9;

/// A limit that is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLimit {
    pub name: String,
    pub scope: Scope,
    pub measure: Measure,
    pub amount: Decimal,
    pub period: Option<Period>,
    /// An IANA name.
    pub time_zone: Option<String>,
    pub window_seconds: Option<u32>,
    pub when_away: WhenAway,
    /// Shares of the amount at which the webhook is told.
    pub notify_at: Vec<Decimal>,
    pub webhook: Option<String>,
}

/// A limit, and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitInfo {
    pub limit_id: LimitId,
    pub limit: NewLimit,
    /// What the ledger says was spent of a budget in its period.
    pub spent: Decimal,
    /// What replicas have in hand beside that.
    pub leased: Decimal,
    pub resets_at: Option<DateTime<Utc>>,
    pub key_name: Option<String>,
}

fn check(actor: &Actor, new: &NewLimit) -> Result<(), Refusal> {
    name("limit.name", &new.name)?;
    let invalid = |message: &str| Err(Refusal::Invalid(message.to_owned()));
    if !actor.tenant.contains(&new.scope.tenant) {
        return Err(Refusal::Denied("this key has no rights in that organisation or team"));
    }
    if new.scope.tenant.team.is_some() && new.scope.tenant.organisation.is_none() {
        return invalid("limit.scope.team: give its organisation too");
    }
    let most = Decimal::from(LARGEST);
    if new.amount.is_sign_negative() || new.amount > most || new.amount.scale() > MOST_DECIMALS {
        return invalid("limit.amount: expected a number from 0 to a million millions, with up to 9 decimals");
    }
    if new.measure != Measure::Usd && new.amount.fract() != Decimal::ZERO {
        return invalid("limit.amount: expected a whole number");
    }
    match new.measure {
        Measure::Usd if new.period.is_none() => return invalid("limit.period: expected total, day, week or month"),
        Measure::Usd | Measure::Concurrency => {}
        _ if !(1..=86_400).contains(&new.window_seconds.unwrap_or_default()) => {
            return invalid("limit.window_seconds: expected 1 to 86400");
        }
        _ => {}
    }
    if new.period.is_some() != (new.measure == Measure::Usd) {
        return invalid("limit.period: is for a limit on usd");
    }
    if new.window_seconds.is_some() != !matches!(new.measure, Measure::Usd | Measure::Concurrency) {
        return invalid("limit.window_seconds: is for a limit on requests or tokens");
    }
    let Scope {
        key_id,
        tag,
        model,
        provider,
        tenant,
    } = &new.scope;
    if tag.is_some() && (key_id.is_some() || model.is_some() || provider.is_some() || tenant.team.is_some()) {
        return invalid("limit.scope.tag: goes with an organisation and with nothing else");
    }
    let tag = tag.iter().flat_map(|(name, value)| [name, value]);
    let texts = tag.chain(model).chain(provider).chain(&new.time_zone);
    if !texts
        .into_iter()
        .all(|text| text.len() <= LONGEST_TEXT && !text.contains(char::is_control))
    {
        return invalid("limit.scope: a name has at most 256 bytes and no control characters");
    }
    let share = |share: &Decimal| *share > Decimal::ZERO && *share <= Decimal::ONE;
    if new.notify_at.len() > MOST_NOTICES || !new.notify_at.iter().all(share) {
        return invalid("limit.notify_at: expected up to 10 shares, above 0 and up to 1");
    }
    if new.notify_at.is_empty() != new.webhook.is_none() {
        return invalid("limit.webhook: goes with notify_at");
    }
    // Which hosts it may go to is for the ingress to say that sends it.
    let web = |address: &String| {
        let scheme = ["https://", "http://"].iter().any(|scheme| address.starts_with(scheme));
        scheme && address.len() <= LONGEST_ADDRESS && !address.contains(|one: char| one.is_control() || one == ' ')
    };
    if !new.webhook.as_ref().is_none_or(web) {
        return invalid("limit.webhook: expected a URL of up to 2048 characters");
    }
    if !new.notify_at.is_empty() && new.measure != Measure::Usd {
        return invalid("limit.notify_at: is for a limit on usd");
    }
    Ok(())
}

impl Store {
    /// Makes a limit, or replaces the actor's own of this name, or the one of this id. What has been spent stays.
    pub async fn put_limit(&self, actor: &Actor, new: &NewLimit) -> Result<LimitInfo, Refusal> {
        check(actor, new)?;
        let mut transaction = self.pool.begin().await?;
        let zone = new
            .period
            .map(|_| new.time_zone.clone().unwrap_or_else(|| "UTC".to_owned()));
        if let Some(zone) = &zone {
            let known = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1) AS "known!""#,
                zone
            );
            if !known.fetch_one(&mut *transaction).await? {
                return Err(Refusal::Invalid(
                    "limit.time_zone: no time zone of this name is known".to_owned(),
                ));
            }
        }
        // A name is one of those that the same tenant has given; an id is nobody else's.
        let known = find(&mut transaction, &actor.tenant, &new.name).await?;
        let by_id = new.name.parse::<LimitId>().ok();
        let known = known
            .into_iter()
            .find(|(id, made_by)| *made_by == actor.tenant || by_id == Some(*id));
        if known.is_none() && by_id.is_some() {
            return Err(Refusal::NoLimit);
        }
        let is_new = known.is_none();
        let limit_id = known.map_or_else(LimitId::generate, |(id, _)| id);
        let scope = &new.scope;
        let tag = scope.tag.clone().unzip();
        let put = sqlx::query_file!(
            "queries/limit_put.sql",
            limit_id.as_uuid(),
            new.name,
            new.measure.as_str(),
            new.amount,
            scope.tenant.organisation,
            scope.tenant.team,
            scope.key_id.map(|id| id.as_uuid()),
            tag.0,
            tag.1,
            scope.model,
            scope.provider,
            new.period.map(Period::as_str),
            zone,
            new.window_seconds.and_then(|seconds| i32::try_from(seconds).ok()),
            new.when_away.as_str(),
            &new.notify_at,
            new.webhook,
            actor.tenant.organisation,
            actor.tenant.team,
        )
        .execute(&mut *transaction)
        .await;
        let put = put.map_err(|error| match violated(&error).as_deref() {
            Some("23503") => Refusal::Invalid("limit.scope: there is no such organisation or team".to_owned()),
            Some("23505") => Refusal::Taken("there is a limit of this name already"),
            _ => error.into(),
        })?;
        if put.rows_affected() == 0 {
            let message = "limit: what a limit counts, and for whom, stays; make another";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        if is_new {
            sqlx::query!(
                "UPDATE limits l SET spent_before = budget_spent(l, l.since) WHERE limit_id = $1 AND period = 'total'",
                limit_id.as_uuid()
            )
            .execute(&mut *transaction)
            .await?;
        }
        let detail = json!({
            "scope": serde_json::to_value(scope).unwrap_or_default(), "measure": new.measure, "amount": new.amount,
            "period": new.period, "time_zone": zone, "window_seconds": new.window_seconds, "when_away": new.when_away,
            "notify_at": new.notify_at,
        });
        finish(transaction, actor, "limit.put", limit_id, &new.name, detail).await?;
        self.limit(limit_id).await
    }

    /// Adds to the amount of a budget, or takes back.
    pub async fn top_up(&self, actor: &Actor, limit: &str, usd: Decimal) -> Result<LimitInfo, Refusal> {
        if usd.scale() > MOST_DECIMALS || usd.abs() > Decimal::from(LARGEST) {
            return Err(Refusal::Invalid(
                "usd: expected an amount with up to 9 decimals".to_owned(),
            ));
        }
        let mut transaction = self.pool.begin().await?;
        let id = meant(&mut transaction, &actor.tenant, limit).await?;
        let changed = sqlx::query!(
            "UPDATE limits SET amount = amount + $2 WHERE limit_id = $1 AND measure = 'usd' AND amount + $2 BETWEEN 0 AND $3",
            id.as_uuid(),
            usd,
            Decimal::from(LARGEST),
        )
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 0 {
            let message = "usd: the limit is no budget, or it would have less than nothing";
            return Err(Refusal::Invalid(message.to_owned()));
        }
        let detail = json!({ "usd": usd });
        finish(transaction, actor, "limit.top_up", id, limit, detail).await?;
        self.limit(id).await
    }

    /// Ends a limit.
    pub async fn remove_limit(&self, actor: &Actor, limit: &str) -> Result<(), Refusal> {
        let mut transaction = self.pool.begin().await?;
        let id = meant(&mut transaction, &actor.tenant, limit).await?;
        sqlx::query!("UPDATE limits SET removed = true WHERE limit_id = $1", id.as_uuid())
            .execute(&mut *transaction)
            .await?;
        finish(transaction, actor, "limit.remove", id, limit, json!({})).await
    }

    /// The limits within a tenant, and how they stand.
    pub async fn limits(&self, within: &Tenant) -> Result<Vec<LimitInfo>, Error> {
        let rows = sqlx::query_file_as!(
            Row,
            "queries/limits.sql",
            within.organisation,
            within.team,
            None::<Uuid>,
            interval(LEASE)
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().filter_map(Row::read).collect())
    }

    async fn limit(&self, id: LimitId) -> Result<LimitInfo, Refusal> {
        let row = sqlx::query_file_as!(
            Row,
            "queries/limits.sql",
            None::<String>,
            None::<String>,
            Some(id.as_uuid()),
            interval(LEASE)
        )
        .fetch_optional(&self.pool)
        .await?;
        row.and_then(Row::read).ok_or(Refusal::NoLimit)
    }

    /// The key of a tenant that a limit is for, by its name or its id. An id need not be known: keys of the configuration are not
    /// in the database.
    pub async fn key_of_limit(&self, within: &Tenant, key: &str) -> Result<KeyId, Refusal> {
        let id = key.parse::<KeyId>().ok().map(|id| id.as_uuid());
        let found = sqlx::query!(
            "SELECT key_id FROM keys WHERE ($1::text IS NULL OR organisation = $1) AND ($2::text IS NULL OR team = $2)
             AND (key_id = $3 OR name = $4)",
            within.organisation,
            within.team,
            id,
            key,
        )
        .fetch_all(&self.pool)
        .await?;
        match (found.as_slice(), id) {
            ([one], _) => Ok(one.key_id.into()),
            ([], Some(id)) if *within == Tenant::default() => Ok(id.into()),
            _ => Err(Refusal::NotFound),
        }
    }

    /// Marks all limits as unpublished: the bucket may have been lost.
    pub async fn republish_limits(&self) -> Result<(), Error> {
        sqlx::query!("UPDATE limits SET published = 0")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Tells every ingress of limits with changes that were not published; of how many.
    pub async fn publish_limits(&self, bucket: &Registry<LimitRecord>) -> Result<usize, Error> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            "SELECT limit_id, name, measure, amount, organisation, team, key_id, tag_name, tag_value, model, provider, period,
                    window_seconds, when_away, removed, revision
             FROM limits WHERE published < revision ORDER BY limit_id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
            BATCH
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let (Ok(measure), Ok(when_away)) = (row.measure.parse(), row.when_away.parse()) else {
                continue;
            };
            let record = LimitRecord {
                limit_id: row.limit_id.into(),
                revision: row.revision.unsigned_abs(),
                name: row.name.clone(),
                scope: Scope {
                    tenant: Tenant {
                        organisation: row.organisation.clone(),
                        team: row.team.clone(),
                    },
                    key_id: row.key_id.map(Into::into),
                    tag: row.tag_name.clone().zip(row.tag_value.clone()),
                    model: row.model.clone(),
                    provider: row.provider.clone(),
                },
                measure,
                amount: row.amount,
                period: row.period.as_deref().and_then(|text| text.parse().ok()),
                window_seconds: row.window_seconds.map(i32::unsigned_abs),
                when_away,
                removed: row.removed,
            };
            bucket.put(&record).await?;
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.limit_id).collect();
        sqlx::query!("UPDATE limits SET published = revision WHERE limit_id = ANY($1)", &ids)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(rows.len())
    }
}

/// The limits of this name or id that were made from within the tenant, its own first, held until the transaction ends.
async fn find(connection: &mut PgConnection, tenant: &Tenant, name: &str) -> Result<Vec<(LimitId, Tenant)>, Refusal> {
    let rows = sqlx::query!(
        "SELECT limit_id, by_organisation, by_team FROM limits
         WHERE (name = $1 OR limit_id = $2) AND NOT removed
           AND ($3::text IS NULL OR by_organisation = $3) AND ($4::text IS NULL OR by_team = $4)
         ORDER BY by_organisation NULLS FIRST, by_team NULLS FIRST LIMIT 2 FOR NO KEY UPDATE",
        name,
        name.parse::<LimitId>().ok().map(|id| id.as_uuid()),
        tenant.organisation,
        tenant.team,
    )
    .fetch_all(connection)
    .await?;
    let found = rows.into_iter().map(|row| {
        let made_by = Tenant {
            organisation: row.by_organisation,
            team: row.by_team,
        };
        (row.limit_id.into(), made_by)
    });
    Ok(found.collect())
}

/// The one limit that is meant: by its id, or by its name the tenant's own, or else the only one within it.
async fn meant(connection: &mut PgConnection, tenant: &Tenant, name: &str) -> Result<LimitId, Refusal> {
    match find(connection, tenant, name).await?.as_slice() {
        [] => Err(Refusal::NoLimit),
        [(id, _)] => Ok(*id),
        [(id, made_by), ..] if made_by == tenant => Ok(*id),
        _ => Err(Refusal::Taken(
            "several limits have this name: give the id of the one that is meant",
        )),
    }
}

/// Counts the revision up, writes the event, and commits.
async fn finish(
    mut transaction: Transaction<'_, Postgres>,
    actor: &Actor,
    action: &'static str,
    limit: LimitId,
    name: &str,
    detail: Value,
) -> Result<(), Refusal> {
    sqlx::query!(
        "UPDATE limits SET revision = revision + 1 WHERE limit_id = $1",
        limit.as_uuid()
    )
    .execute(&mut *transaction)
    .await?;
    let change = Change {
        actor: &actor.name,
        actor_id: actor.key_id,
        action,
        subject: name.to_owned(),
        detail,
    };
    chain::append(&mut transaction, change).await?;
    transaction.commit().await?;
    Ok(())
}

struct Row {
    limit_id: Uuid,
    name: String,
    measure: String,
    amount: Decimal,
    organisation: Option<String>,
    team: Option<String>,
    key_id: Option<Uuid>,
    tag_name: Option<String>,
    tag_value: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    period: Option<String>,
    time_zone: Option<String>,
    window_seconds: Option<i32>,
    when_away: String,
    notify_at: Vec<Decimal>,
    webhook: Option<String>,
    spent: Decimal,
    leased: Decimal,
    resets_at: Option<DateTime<Utc>>,
    key_name: Option<String>,
}

impl Row {
    /// None for one that a newer version has written.
    fn read(self) -> Option<LimitInfo> {
        Some(LimitInfo {
            limit_id: self.limit_id.into(),
            limit: NewLimit {
                name: self.name,
                scope: Scope {
                    tenant: Tenant {
                        organisation: self.organisation,
                        team: self.team,
                    },
                    key_id: self.key_id.map(Into::into),
                    tag: self.tag_name.zip(self.tag_value),
                    model: self.model,
                    provider: self.provider,
                },
                measure: Measure::from_str(&self.measure).ok()?,
                amount: self.amount,
                period: self.period.and_then(|text| text.parse().ok()),
                time_zone: self.time_zone,
                window_seconds: self.window_seconds.map(i32::unsigned_abs),
                when_away: WhenAway::from_str(&self.when_away).ok()?,
                notify_at: self.notify_at,
                webhook: self.webhook,
            },
            spent: self.spent,
            leased: self.leased,
            resets_at: self.resets_at,
            key_name: self.key_name,
        })
    }
}
