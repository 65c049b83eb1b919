//! Organisations and their teams, and what all their keys may do.

use serde_json::{Value, json};
use tollgate_bus::Registry;
use tollgate_types::{Grant, Tenant, TenantRecord};

use crate::{
    Actor, Error, Refusal, Store,
    chain::{self, Change},
    keys::{check, grant, name, rights, violated},
};

/// A tenant, and what all its keys may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantInfo {
    pub tenant: Tenant,
    pub grant: Grant,
    pub keys: u64,
}

/// Tenants told of in one transaction.
const BATCH: i64 = 100;

fn record(organisation: String, team: Option<String>, revision: i64, rights: Value) -> TenantRecord {
    TenantRecord {
        tenant: Tenant {
            organisation: Some(organisation),
            team,
        },
        revision: revision.unsigned_abs(),
        grant: grant(rights),
    }
}

impl Store {
    /// Makes an organisation or a team, or replaces what all its keys may do.
    pub async fn put_tenant(
        &self,
        actor: &Actor,
        tenant: &Tenant,
        rights_of_all: &Grant,
    ) -> Result<TenantInfo, Refusal> {
        let Some(organisation) = &tenant.organisation else {
            return Err(Refusal::Invalid("organisation: is missing".to_owned()));
        };
        name("organisation", organisation)?;
        // Nobody loosens what binds himself.
        if actor.tenant == *tenant {
            return Err(Refusal::Denied("the rights of a tenant are changed from outside of it"));
        }
        check(actor, tenant, rights_of_all)?;
        let mut transaction = self.pool.begin().await?;
        let rights_of_all = rights(rights_of_all);
        match &tenant.team {
            None => {
                sqlx::query!(
                    "INSERT INTO organisations (name, rights) VALUES ($1, $2)
                     ON CONFLICT (name) DO UPDATE SET rights = excluded.rights, revision = organisations.revision + 1",
                    organisation,
                    rights_of_all,
                )
                .execute(&mut *transaction)
                .await?;
            }
            Some(team) => {
                name("team", team)?;
                let put = sqlx::query!(
                    "INSERT INTO teams (organisation, name, rights) VALUES ($1, $2, $3)
                     ON CONFLICT (organisation, name) DO UPDATE SET rights = excluded.rights, revision = teams.revision + 1",
                    organisation,
                    team,
                    rights_of_all,
                )
                .execute(&mut *transaction)
                .await;
                put.map_err(|error| match violated(&error).as_deref() {
                    Some("23503") => Refusal::Invalid("there is no such organisation: make it first".to_owned()),
                    _ => error.into(),
                })?;
            }
        }
        let keys = sqlx::query!(
            "UPDATE keys SET revision = revision + 1 WHERE organisation = $1 AND ($2::text IS NULL OR team = $2)",
            organisation,
            tenant.team,
        )
        .execute(&mut *transaction)
        .await?;
        let change = Change {
            actor: &actor.name,
            actor_id: actor.key_id,
            action: "tenant.put",
            subject: tenant.to_string(),
            detail: json!({ "rights": rights_of_all }),
        };
        chain::append(&mut transaction, change).await?;
        transaction.commit().await?;
        Ok(TenantInfo {
            tenant: tenant.clone(),
            grant: grant(rights_of_all),
            keys: keys.rows_affected(),
        })
    }

    /// Marks all tenants as unpublished: the bucket may have been lost.
    pub async fn republish_tenants(&self) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("UPDATE organisations SET published = 0")
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("UPDATE teams SET published = 0")
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Tells every ingress of tenants with changes that were not published; of how many. A row is held until it is told.
    pub async fn publish_tenants(&self, bucket: &Registry<TenantRecord>) -> Result<usize, Error> {
        let mut transaction = self.pool.begin().await?;
        let organisations = sqlx::query!(
            "UPDATE organisations SET published = revision WHERE name IN (
                 SELECT name FROM organisations WHERE published < revision
                 ORDER BY name LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING name, revision, rights",
            BATCH,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let teams = sqlx::query!(
            "UPDATE teams SET published = revision WHERE (organisation, name) IN (
                 SELECT organisation, name FROM teams WHERE published < revision
                 ORDER BY organisation, name LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING organisation, name, revision, rights",
            BATCH,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let organisations = organisations
            .into_iter()
            .map(|row| record(row.name, None, row.revision, row.rights));
        let teams = teams
            .into_iter()
            .map(|row| record(row.organisation, Some(row.name), row.revision, row.rights));
        let records: Vec<_> = organisations.chain(teams).collect();
        for record in &records {
            bucket.put(record).await?;
        }
        transaction.commit().await?;
        Ok(records.len())
    }

    /// The tenants within one.
    pub async fn tenants(&self, within: &Tenant) -> Result<Vec<TenantInfo>, Error> {
        let rows = sqlx::query!(
            r#"SELECT t.organisation AS "organisation!", t.team, t.rights AS "rights!",
                      (SELECT count(*) FROM keys k WHERE k.organisation = t.organisation
                       AND (t.team IS NULL OR k.team = t.team)) AS "keys!"
               FROM (SELECT name AS organisation, NULL AS team, rights FROM organisations
                     UNION ALL SELECT organisation, name, rights FROM teams) AS t
               WHERE ($1::text IS NULL OR t.organisation = $1) AND ($2::text IS NULL OR t.team = $2)
               ORDER BY 1, 2 NULLS FIRST"#,
            within.organisation,
            within.team,
        )
        .fetch_all(&self.pool)
        .await?;
        let info = rows.into_iter().map(|row| TenantInfo {
            tenant: Tenant {
                organisation: Some(row.organisation),
                team: row.team,
            },
            grant: grant(row.rights),
            keys: row.keys.unsigned_abs(),
        });
        Ok(info.collect())
    }
}
