//! Keys that are issued while the gateway runs, and the organisations and teams that they belong to.
//!
//! A change, its event in the audit log and the key's new revision are one transaction. What every ingress knows follows:
//! [`Store::publish_keys`] hands on what has a revision that was not published.

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};
use tollgate_bus::Registry;
use tollgate_config::{Entry, generate_key, hash_key};
use tollgate_types::{Grant, KeyId, KeyRecord, Millis, Permission, Tenant, grant::SecretHash};
use uuid::Uuid;

use crate::{
    Error, Store,
    chain::{self, Change},
};

/// Characters of a secret by which its holder knows it again.
const ENDING: usize = 4;
const LONGEST_NAME: usize = 64;
const LONGEST_LABEL: usize = 256;
const MOST_LABELS: usize = 16;
/// Longest list of models, providers or regions.
const LONGEST_LIST: usize = 1000;
/// Keys told of in one transaction.
const BATCH: i64 = 100;

/// Who asks for a change.
#[derive(Debug, Clone)]
pub struct Actor {
    pub key_id: KeyId,
    pub name: String,
    pub tenant: Tenant,
    pub grant: Grant,
}

impl Actor {
    /// The holder of a key.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self {
            key_id: entry.caller.key_id,
            name: entry.caller.key_name.clone(),
            tenant: entry.caller.tenant.clone(),
            grant: entry.grant.clone(),
        }
    }
}

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Denied(&'static str),
    #[error("no key of this name or id is known to you")]
    NotFound,
    #[error("no limit of this name is known to you")]
    NoLimit,
    #[error("{0}")]
    Taken(&'static str),
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub key_id: KeyId,
    pub name: String,
    pub tenant: Tenant,
    /// Its own, not narrowed by its team or organisation.
    pub grant: Grant,
    /// The last characters of its secrets that are accepted.
    pub endings: Vec<String>,
    pub expires_at: Option<DateTime<Utc>>,
    pub disabled: bool,
    pub created_at: DateTime<Utc>,
    pub created_by: String,
}

/// A key that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    pub name: String,
    pub tenant: Tenant,
    pub grant: Grant,
    pub expires_at: Option<DateTime<Utc>>,
    /// Of a secret that exists already.
    pub sha256: Option<[u8; 32]>,
}

/// Whether a name is a plain one.
pub(crate) fn name(field: &str, name: &str) -> Result<(), Refusal> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(fits) {
        let message = format!("{field}: expected 1 to 64 letters, digits, -, _ and dots");
        return Err(Refusal::Invalid(message));
    }
    Ok(())
}

/// Whether the actor may give these rights to the tenant, and whether they make sense.
pub(crate) fn check(actor: &Actor, tenant: &Tenant, grant: &Grant) -> Result<(), Refusal> {
    if !actor.tenant.contains(tenant) {
        return Err(Refusal::Denied("this key has no rights in that organisation or team"));
    }
    let given = grant.permissions.as_deref().unwrap_or(&[Permission::Complete]);
    if !given
        .iter()
        .all(|permission| actor.grant.may(*permission) || *permission == Permission::Complete)
    {
        return Err(Refusal::Denied("nobody gives a permission that his own key has not"));
    }
    if *tenant != Tenant::default() && given.iter().any(|permission| permission.is_for_the_whole()) {
        return Err(Refusal::Denied(
            "operate, prices and audit are for keys of no organisation",
        ));
    }
    let invalid = |message: &str| Err(Refusal::Invalid(message.to_owned()));
    let fine = |(label, value): (&String, &String)| {
        name("rights.tags", label).is_ok() && value.len() <= LONGEST_LABEL && !value.contains(char::is_control)
    };
    if grant.tags.len() > MOST_LABELS || !grant.tags.iter().all(fine) {
        return invalid("rights.tags: expected up to 16, with plain names and values of up to 256 bytes");
    }
    if let Some(policy) = &grant.policy {
        name("rights.policy", policy)?;
    }
    let lists = [&grant.models, &grant.providers, &grant.regions].into_iter().flatten();
    let plain = |text: &String| !text.is_empty() && text.len() <= LONGEST_LABEL && !text.contains(char::is_control);
    if !lists
        .clone()
        .all(|list| list.len() <= LONGEST_LIST && list.iter().all(plain))
    {
        return invalid("rights: a list has up to 1,000 names of up to 256 bytes");
    }
    if grant.requests_per_minute == Some(0) {
        return invalid("rights.requests_per_minute: expected 1 or more; disable the key to allow none");
    }
    Ok(())
}

/// Whether a key with these rights may do nothing that the actor's own may not.
fn within(actor: &Actor, grant: &Grant) -> Result<(), Refusal> {
    fn covers<T: PartialEq>(own: Option<&Vec<T>>, given: Option<&Vec<T>>) -> bool {
        own.is_none_or(|own| given.is_some_and(|given| given.iter().all(|one| own.contains(one))))
    }
    let own = &actor.grant;
    let covered = covers(own.models.as_ref(), grant.models.as_ref())
        && covers(own.providers.as_ref(), grant.providers.as_ref())
        && covers(own.regions.as_ref(), grant.regions.as_ref())
        && covers(own.doors.as_ref(), grant.doors.as_ref())
        && covers(own.lanes.as_ref(), grant.lanes.as_ref());
    if !covered {
        return Err(Refusal::Denied(
            "nobody gives models, providers, regions, doors or lanes that his own key has not: name those that are meant",
        ));
    }
    if own.policy.is_some() && own.policy != grant.policy {
        return Err(Refusal::Denied("nobody gives another policy than that of his own key"));
    }
    Ok(())
}

pub(crate) fn rights(grant: &Grant) -> Value {
    serde_json::to_value(grant).unwrap_or_default()
}

pub(crate) fn grant(rights: Value) -> Grant {
    // Written by ourselves; what a newer version adds allows nothing that this one does not know.
    serde_json::from_value(rights).unwrap_or_else(|error| {
        tracing::warn!(%error, "the rights of a key cannot be read and allow nothing");
        Grant {
            permissions: Some(Vec::new()),
            ..Grant::default()
        }
    })
}

impl Store {
    /// Makes a key. The secret is nowhere else; none for a key that was entered by its hash.
    pub async fn create_key(&self, actor: &Actor, new: NewKey) -> Result<(KeyInfo, Option<SecretString>), Refusal> {
        name("name", &new.name)?;
        check(actor, &new.tenant, &new.grant)?;
        within(actor, &new.grant)?;
        let (secret, hash, ending) = match new.sha256 {
            Some(hash) => (None, hash, "????".to_owned()),
            None => fresh(),
        };
        let mut transaction = self.pool.begin().await?;
        let id = KeyId::generate();
        let made = sqlx::query!(
            "INSERT INTO keys (key_id, name, organisation, team, rights, expires_at, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            id.as_uuid(),
            new.name,
            new.tenant.organisation,
            new.tenant.team,
            rights(&new.grant),
            new.expires_at,
            actor.name,
        )
        .execute(&mut *transaction)
        .await;
        made.map_err(|error| match violated(&error).as_deref() {
            Some("23505") => Refusal::Taken("there is a key of this name already"),
            Some("23503") => Refusal::Invalid("there is no such organisation or team: make it first".to_owned()),
            _ => error.into(),
        })?;
        add_secret(&mut transaction, id, hash, &ending).await?;
        let detail = json!({ "name": new.name, "tenant": new.tenant.to_string(), "rights": rights(&new.grant),
                             "expires_at": new.expires_at, "by_hash": new.sha256.is_some() });
        let key = finish(transaction, actor, "key.create", id, detail).await?;
        Ok((key, secret))
    }

    /// The keys of a tenant.
    pub async fn keys(&self, tenant: &Tenant) -> Result<Vec<KeyInfo>, Error> {
        let rows = sqlx::query_file_as!(
            Row,
            "queries/keys.sql",
            tenant.organisation,
            tenant.team,
            None::<Uuid>,
            None::<String>
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Replaces rights and expiry of a key, named by its id or its name.
    pub async fn update_key(
        &self,
        actor: &Actor,
        key: &str,
        grant: &Grant,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<KeyInfo, Refusal> {
        let mut transaction = self.pool.begin().await?;
        let known = find(&mut transaction, &actor.tenant, key).await?;
        // Nobody loosens what binds himself.
        if known.key_id == actor.key_id {
            return Err(Refusal::Denied("the rights of a key are changed with another"));
        }
        check(actor, &known.tenant, grant)?;
        within(actor, grant)?;
        sqlx::query!(
            "UPDATE keys SET rights = $2, expires_at = $3 WHERE key_id = $1",
            known.key_id.as_uuid(),
            rights(grant),
            expires_at,
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({ "rights": rights(grant), "expires_at": expires_at });
        finish(transaction, actor, "key.update", known.key_id, detail).await
    }

    /// Gives a key a new secret; those before are accepted for `grace` from now.
    pub async fn rotate_key(
        &self,
        actor: &Actor,
        key: &str,
        grace: Duration,
    ) -> Result<(KeyInfo, Option<SecretString>), Refusal> {
        let mut transaction = self.pool.begin().await?;
        let known = find(&mut transaction, &actor.tenant, key).await?;
        // Whoever holds the secret has all that the key may do.
        check(actor, &known.tenant, &known.grant)?;
        if known.key_id != actor.key_id {
            within(actor, &known.grant)?;
        }
        let (secret, hash, ending) = fresh();
        let until = Millis::now().after(grace).to_datetime();
        sqlx::query!(
            "UPDATE key_secrets SET until = least(until, $2) WHERE key_id = $1",
            known.key_id.as_uuid(),
            until,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "DELETE FROM key_secrets WHERE key_id = $1 AND until <= now()",
            known.key_id.as_uuid()
        )
        .execute(&mut *transaction)
        .await?;
        add_secret(&mut transaction, known.key_id, hash, &ending).await?;
        let detail = json!({ "grace_seconds": grace.as_secs() });
        let key = finish(transaction, actor, "key.rotate", known.key_id, detail).await?;
        Ok((key, secret))
    }

    /// Takes a key out of use, or back into it.
    pub async fn disable_key(&self, actor: &Actor, key: &str, disable: bool) -> Result<KeyInfo, Refusal> {
        let mut transaction = self.pool.begin().await?;
        let known = find(&mut transaction, &actor.tenant, key).await?;
        if !disable {
            check(actor, &known.tenant, &known.grant)?;
            within(actor, &known.grant)?;
        }
        sqlx::query!(
            "UPDATE keys SET disabled_at = CASE WHEN $2 THEN coalesce(disabled_at, now()) END WHERE key_id = $1",
            known.key_id.as_uuid(),
            disable,
        )
        .execute(&mut *transaction)
        .await?;
        let action = if disable { "key.disable" } else { "key.enable" };
        finish(transaction, actor, action, known.key_id, json!({})).await
    }

    /// Marks all keys as unpublished: the bucket may have been lost.
    pub async fn republish_keys(&self) -> Result<(), Error> {
        sqlx::query!("UPDATE keys SET published = 0")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Tells every ingress of keys with changes that were not published; of how many. A row is held until it is told, so that no
    /// other process tells of an older revision after it.
    pub async fn publish_keys(&self, bucket: &Registry<KeyRecord>) -> Result<usize, Error> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query_file!("queries/keys_to_publish.sql", BATCH)
            .fetch_all(&mut *transaction)
            .await?;
        for row in &rows {
            let of = |rights: &Option<Value>| rights.clone().map(grant).unwrap_or_default();
            let own = grant(row.rights.clone());
            let record = KeyRecord {
                key_id: row.key_id.into(),
                revision: row.revision.unsigned_abs(),
                name: row.name.clone(),
                tenant: Tenant {
                    organisation: row.organisation.clone(),
                    team: row.team.clone(),
                },
                secrets: serde_json::from_value::<Vec<SecretHash>>(row.secrets.clone()).unwrap_or_default(),
                disabled: row.disabled_at.is_some(),
                expires_at: row.expires_at.map(Millis::from),
                grant: own.within(&of(&row.team_rights)).within(&of(&row.organisation_rights)),
            };
            bucket.put(&record).await?;
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.key_id).collect();
        sqlx::query!("UPDATE keys SET published = revision WHERE key_id = ANY($1)", &ids)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(rows.len())
    }
}

/// A new secret, its hash and its ending.
fn fresh() -> (Option<SecretString>, [u8; 32], String) {
    let secret = generate_key();
    let text = secret.expose_secret();
    let (hash, ending) = (hash_key(text), text[text.len() - ENDING..].to_owned());
    (Some(secret), hash, ending)
}

/// The code of a constraint that was violated.
pub(crate) fn violated(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

async fn add_secret(connection: &mut PgConnection, key: KeyId, hash: [u8; 32], ending: &str) -> Result<(), Refusal> {
    let made = sqlx::query!(
        "INSERT INTO key_secrets (sha256, key_id, ending) VALUES ($1, $2, $3)",
        hash.as_slice(),
        key.as_uuid(),
        ending,
    )
    .execute(connection)
    .await;
    made.map(drop).map_err(|error| match violated(&error).as_deref() {
        Some("23505") => Refusal::Taken("there is a key with this secret already"),
        _ => error.into(),
    })
}

/// The key of this id or name that the tenant sees, held until the transaction ends.
async fn find(connection: &mut PgConnection, tenant: &Tenant, key: &str) -> Result<KeyInfo, Refusal> {
    let id = key.parse::<KeyId>().ok().map(|id| id.as_uuid());
    let name = id.is_none().then(|| key.to_owned());
    let mut found = sqlx::query_file_as!(Row, "queries/keys.sql", tenant.organisation, tenant.team, id, name)
        .fetch_all(&mut *connection)
        .await?;
    let (Some(row), None) = (found.pop(), found.pop()) else {
        return Err(Refusal::NotFound);
    };
    sqlx::query!("SELECT key_id FROM keys WHERE key_id = $1 FOR UPDATE", row.key_id)
        .fetch_one(connection)
        .await?;
    Ok(row.into())
}

/// Counts the revision up, writes the event, and commits.
async fn finish(
    mut transaction: Transaction<'_, Postgres>,
    actor: &Actor,
    action: &'static str,
    key: KeyId,
    detail: Value,
) -> Result<KeyInfo, Refusal> {
    sqlx::query!(
        "UPDATE keys SET revision = revision + 1 WHERE key_id = $1",
        key.as_uuid()
    )
    .execute(&mut *transaction)
    .await?;
    let everybody = Tenant::default();
    let info = find(&mut transaction, &everybody, &key.to_string()).await?;
    let change = Change {
        actor: &actor.name,
        actor_id: actor.key_id,
        action,
        subject: key.to_string(),
        detail,
    };
    chain::append(&mut transaction, change).await?;
    transaction.commit().await?;
    Ok(info)
}

struct Row {
    key_id: Uuid,
    name: String,
    organisation: Option<String>,
    team: Option<String>,
    rights: Value,
    expires_at: Option<DateTime<Utc>>,
    disabled_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    created_by: String,
    endings: Vec<String>,
}

impl From<Row> for KeyInfo {
    fn from(row: Row) -> Self {
        Self {
            key_id: row.key_id.into(),
            name: row.name,
            tenant: Tenant {
                organisation: row.organisation,
                team: row.team,
            },
            grant: grant(row.rights),
            endings: row.endings,
            expires_at: row.expires_at,
            disabled: row.disabled_at.is_some(),
            created_at: row.created_at,
            created_by: row.created_by,
        }
    }
}
