//! Who changed what: events in a chain of hashes.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tollgate_types::{KeyId, Millis, ledger::Administration};
use uuid::Uuid;

use crate::{Error, Store, rows::bigint};

/// One event at a time, of however many processes.
const LOCK: i64 = 0x746f_6c6c_6368_6169;

/// The hash before the first event.
const START: [u8; 32] = [0; 32];

/// Most events in one answer.
const PAGE: u32 = 1000;

/// Something that somebody changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    pub sequence: u64,
    pub at: DateTime<Utc>,
    /// Name of the key that was shown.
    pub actor: String,
    pub actor_id: KeyId,
    pub action: String,
    pub subject: String,
    pub detail: Value,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
}

/// The first place at which a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("event {0} is missing")]
    Missing(u64),
    #[error("event {0} was changed, or does not follow the one before it")]
    Changed(u64),
}

impl AuditEvent {
    /// SHA-256 of the event and of the hash before it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let content = json!({
            "sequence": self.sequence,
            "at_unix_ms": self.at.timestamp_millis(),
            "actor": self.actor,
            "actor_id": self.actor_id,
            "action": self.action,
            "subject": self.subject,
            "detail": self.detail,
        });
        let mut hash = Sha256::new();
        hash.update(&self.previous);
        hash.update(canonical(&content));
        hash.finalize().into()
    }
}

/// JSON with the names of each object in order: the database keeps them in an order of its own.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut names: Vec<&String> = object.keys().collect();
            names.sort();
            let fields = names
                .into_iter()
                .map(|name| format!("{}:{}", Value::from(name.as_str()), canonical(&object[name])));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        plain => plain.to_string(),
    }
}

/// Checks that events follow each other, after the last one of those before. The new last one.
pub fn verify(last: Option<(u64, Vec<u8>)>, events: &[AuditEvent]) -> Result<Option<(u64, Vec<u8>)>, Broken> {
    let mut last = last;
    for event in events {
        let (number, hash) = last.unwrap_or((0, START.to_vec()));
        if event.sequence != number + 1 {
            return Err(Broken::Missing(number + 1));
        }
        if event.previous != hash || event.digest() != *event.hash {
            return Err(Broken::Changed(event.sequence));
        }
        last = Some((event.sequence, event.hash.clone()));
    }
    Ok(last)
}

/// Who changes something, and as what it is written down.
#[derive(Debug, Clone)]
pub(crate) struct Change<'a> {
    pub(crate) actor: &'a str,
    pub(crate) actor_id: KeyId,
    pub(crate) action: &'a str,
    pub(crate) subject: String,
    pub(crate) detail: Value,
}

/// Writes the events of changes that were made elsewhere, those that are not written yet, in the order in which they were made.
pub(crate) async fn follow(
    connection: &mut PgConnection,
    made: impl IntoIterator<Item = &Administration>,
) -> Result<(), Error> {
    let mut made: Vec<_> = made.into_iter().collect();
    made.sort_by_key(|one| one.at);
    for one in made {
        lock(connection).await?;
        let id = one.request_id.as_uuid();
        let known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM audit_events WHERE request_id = $1) AS "known!""#,
            id
        )
        .fetch_one(&mut *connection)
        .await?;
        if known {
            continue;
        }
        let change = Change {
            actor: &one.actor,
            actor_id: one.actor_id,
            action: &one.action,
            subject: one.subject.clone(),
            detail: json!({}),
        };
        write(connection, change, one.at, Some(id)).await?;
    }
    Ok(())
}

async fn lock(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes the event of a change, in the transaction that makes it.
pub(crate) async fn append(connection: &mut PgConnection, change: Change<'_>) -> Result<(), Error> {
    lock(connection).await?;
    write(connection, change, Millis::now(), None).await
}

/// Writes an event behind the last one. The lock is held.
async fn write(
    connection: &mut PgConnection,
    change: Change<'_>,
    at: Millis,
    request: Option<Uuid>,
) -> Result<(), Error> {
    let last = sqlx::query!("SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let (number, previous) = last.map_or((0, START.to_vec()), |last| (last.sequence, last.hash));
    let event = AuditEvent {
        sequence: number.unsigned_abs() + 1,
        // As precise as it is hashed.
        at: at.to_datetime(),
        actor: change.actor.to_owned(),
        actor_id: change.actor_id,
        action: change.action.to_owned(),
        subject: change.subject,
        detail: change.detail,
        previous,
        hash: Vec::new(),
    };
    let hash = event.digest();
    sqlx::query!(
        "INSERT INTO audit_events (sequence, at, actor, actor_id, action, subject, detail, previous, hash, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        bigint(event.sequence),
        event.at,
        event.actor,
        event.actor_id.as_uuid(),
        event.action,
        event.subject,
        event.detail,
        event.previous,
        hash.as_slice(),
        request,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Events after the one of this number, in order; at most `limit`, and of 0 or too many a thousand.
    pub async fn audit_events(&self, after: u64, limit: u32) -> Result<Vec<AuditEvent>, Error> {
        let limit = if limit == 0 { PAGE } else { limit.min(PAGE) };
        let rows = sqlx::query!(
            r#"SELECT sequence, at, actor, actor_id AS "actor_id: Uuid", action, subject, detail, previous, hash
               FROM audit_events WHERE sequence > $1 ORDER BY sequence LIMIT $2"#,
            bigint(after),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let event = rows.into_iter().map(|row| AuditEvent {
            sequence: row.sequence.unsigned_abs(),
            at: row.at,
            actor: row.actor,
            actor_id: row.actor_id.into(),
            action: row.action,
            subject: row.subject,
            detail: row.detail,
            previous: row.previous,
            hash: row.hash,
        });
        Ok(event.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> Vec<AuditEvent> {
        let mut previous = START.to_vec();
        let event = |sequence| {
            let mut event = AuditEvent {
                sequence,
                at: DateTime::UNIX_EPOCH,
                actor: "a".to_owned(),
                actor_id: KeyId::from_hash(&[1; 32]),
                action: "key.create".to_owned(),
                subject: "s".to_owned(),
                detail: json!({ "b": 1, "a": [{ "d": 1, "c": 2 }] }),
                previous: previous.clone(),
                hash: Vec::new(),
            };
            event.hash = event.digest().to_vec();
            previous.clone_from(&event.hash);
            event
        };
        (1..=count).map(event).collect()
    }

    #[test]
    fn a_chain_holds_in_pages_and_breaks_where_it_was_touched() {
        let events = chain(5);
        let first = verify(None, &events[..2]).unwrap();
        assert_eq!(verify(first, &events[2..]).unwrap().unwrap().0, 5);
        let broken = |touch: fn(&mut Vec<AuditEvent>)| {
            let mut events = events.clone();
            touch(&mut events);
            verify(None, &events).unwrap_err()
        };
        assert_eq!(broken(|all| all[2].detail = json!({})), Broken::Changed(3));
        assert_eq!(broken(|all| drop(all.remove(1))), Broken::Missing(2));
        assert_eq!(broken(|all| all[0].actor = "b".to_owned()), Broken::Changed(1));
        // Even with a hash that fits its content, the next one does not follow it.
        let forged = broken(|all| {
            all[3].subject = "t".to_owned();
            all[3].hash = all[3].digest().to_vec();
        });
        assert_eq!(forged, Broken::Changed(5));
    }

    #[test]
    fn the_order_of_names_makes_no_difference() {
        let (one, other) = (
            json!({ "b": { "x": 1, "a": 2 }, "a": [1] }),
            json!({ "a": [1], "b": { "a": 2, "x": 1 } }),
        );
        assert_eq!(canonical(&one), canonical(&other));
        assert_eq!(canonical(&one), r#"{"a":[1],"b":{"a":2,"x":1}}"#);
    }
}
