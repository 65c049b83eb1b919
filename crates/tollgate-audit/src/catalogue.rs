//! The catalogue in the database: which price sheets hold when, and how new ones take the place of old ones.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tollgate_pricing::{Breakdown, Call, Consumption, Sheet, Unpriced, priced};

use crate::{
    Actor, Error, Store,
    chain::{self, Change},
};

/// One import at a time, of however many processes.
const LOCK: i64 = 0x746f_6c6c_7072_6963;

/// What an import does to one sheet's model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceChange {
    /// What held until then.
    pub before: Option<Sheet>,
    /// What holds from then on.
    pub after: Sheet,
}

/// A sheet in the database, with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub sheet: Sheet,
    /// The same for sheets that ask the same.
    pub version: String,
    pub entered_at: DateTime<Utc>,
}

/// The sheet of a row; none when an older version of Tollgate reads what a newer one wrote.
pub(crate) fn sheet_of(
    id: i64,
    valid_from: Option<DateTime<Utc>>,
    valid_to: Option<DateTime<Utc>>,
    json: Value,
) -> Option<Sheet> {
    match serde_json::from_value::<Sheet>(json) {
        Ok(sheet) => Some(Sheet {
            id: Some(id),
            valid_from,
            valid_to,
            ..sheet
        }),
        Err(error) => {
            tracing::warn!(price.id = id, %error, "a price sheet cannot be read and prices nothing");
            None
        }
    }
}

fn content(sheet: &Sheet) -> Value {
    serde_json::to_value(sheet.content()).unwrap_or_default()
}

/// A name for what a sheet asks: the beginning of a hash.
fn version(content: &Value) -> String {
    let hash = Sha256::digest(content.to_string());
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// Enters sheets, in one transaction. Where another of the same model, region and standing holds, it ends when the new one begins: at
    /// the new one's `valid_from`, or at `now`; the first of its kind holds from always unless it says otherwise. What asks the same as what
    /// holds already is left alone. Returns what changed; without somebody who makes it, what would.
    pub async fn import_prices(
        &self,
        sheets: &[Sheet],
        now: DateTime<Utc>,
        by: Option<&Actor>,
    ) -> Result<Vec<PriceChange>, Error> {
        let mut transaction = self.pool.begin().await?;
        let changes = import(&mut transaction, sheets, now).await?;
        let Some(actor) = by else {
            transaction.rollback().await?;
            return Ok(changes);
        };
        if let Some(first) = changes.first() {
            let versions: Vec<_> = changes.iter().map(|change| version(&content(&change.after))).collect();
            let change = Change {
                actor: &actor.name,
                actor_id: actor.key_id,
                action: "prices.import",
                subject: format!("{}/{}", first.after.provider, first.after.model),
                detail: json!({ "sheets": changes.len(), "versions": versions }),
            };
            chain::append(&mut transaction, change).await?;
        }
        transaction.commit().await?;
        Ok(changes)
    }

    /// The sheet for a call of `model` that used this at `at`, unless it is only the provider who says what it costs, and what it
    /// costs; none when nobody knows.
    pub async fn price(
        &self,
        provider: &str,
        model: &str,
        region: Option<&str>,
        at: DateTime<Utc>,
        used: &Consumption,
    ) -> Result<Option<(Option<Listed>, Result<Breakdown, Unpriced>)>, Error> {
        let mut connection = self.pool.acquire().await?;
        let book = self.shelf.book(&mut connection).await?;
        let call = Call {
            provider,
            served: None,
            asked: model,
            region,
            at,
        };
        let Some((sheet, cost)) = priced(&book, &self.lists, call, used) else {
            return Ok(None);
        };
        let row = sqlx::query!("SELECT version, entered_at FROM price_sheets WHERE id = $1", sheet.id)
            .fetch_optional(&mut *connection)
            .await?;
        let listed = row.map(|row| Listed {
            sheet,
            version: row.version,
            entered_at: row.entered_at,
        });
        Ok(Some((listed, cost)))
    }

    /// The sheets that hold at `at`, or all that there are; of one provider and one model, or of all.
    pub async fn prices(
        &self,
        provider: Option<&str>,
        model: Option<&str>,
        at: Option<DateTime<Utc>>,
    ) -> Result<Vec<Listed>, Error> {
        let rows = sqlx::query!(
            "SELECT id, valid_from, valid_to, version, sheet, entered_at
             FROM price_sheets
             WHERE ($1::text IS NULL OR provider = $1)
               AND ($2::timestamptz IS NULL OR (coalesce(valid_from <= $2, true) AND coalesce($2 < valid_to, true)))
             ORDER BY provider, model, region, valid_from",
            provider,
            at,
        )
        .fetch_all(&self.pool)
        .await?;
        let listed = rows.into_iter().filter_map(|row| {
            let sheet = sheet_of(row.id, row.valid_from, row.valid_to, row.sheet)?;
            Some(Listed {
                sheet,
                version: row.version,
                entered_at: row.entered_at,
            })
        });
        let wanted = |listed: &Listed| model.is_none_or(|model| listed.sheet.is_for(model));
        Ok(listed.filter(wanted).collect())
    }
}

/// Enters sheets, as [`Store::import_prices`] says.
pub(crate) async fn import(
    connection: &mut PgConnection,
    sheets: &[Sheet],
    now: DateTime<Utc>,
) -> Result<Vec<PriceChange>, Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
        .execute(&mut *connection)
        .await?;
    let mut known = known(connection).await?;
    let mut import = Import::default();
    for sheet in sheets {
        import.add(known.entry(key(sheet)).or_default(), sheet, now)?;
    }
    import.write(connection).await.map_err(|error| match &error {
        sqlx::Error::Database(refused) if refused.code().is_some_and(|code| code.starts_with("23")) => {
            Error::Prices(refused.message().to_owned())
        }
        _ => error.into(),
    })?;
    Ok(import.changes)
}

#[derive(Default)]
struct Import {
    /// Rows that end, and when.
    ended: (Vec<i64>, Vec<DateTime<Utc>>),
    changes: Vec<PriceChange>,
}

impl Import {
    /// Compares a sheet with those of its key, of which the last is the one that it would end.
    fn add(&mut self, known: &mut Vec<Sheet>, sheet: &Sheet, now: DateTime<Utc>) -> Result<(), Error> {
        let from = sheet.valid_from.or((!known.is_empty()).then_some(now));
        let before = known.last_mut().filter(|last| last.valid_to.is_none());
        if let Some(before) = &before
            && before.content() == sheet.content()
            && sheet.valid_to.is_none()
        {
            return Ok(());
        }
        if before.as_ref().is_some_and(|before| before.valid_from >= from) {
            let (provider, model) = (&sheet.provider, &sheet.model);
            return Err(Error::Prices(format!(
                "the price of {provider} for {model} cannot begin before the one that it follows"
            )));
        }
        let before = before.map(|before| {
            let held = before.clone();
            before.valid_to = from;
            match held.id {
                Some(id) => {
                    self.ended.0.push(id);
                    self.ended.1.extend(from);
                }
                // It came with the same import.
                None => {
                    let pending = self.changes.iter_mut().find(|change| change.after == held);
                    pending.into_iter().for_each(|change| change.after.valid_to = from);
                }
            }
            held
        });
        let after = Sheet {
            id: None,
            valid_from: from,
            ..sheet.clone()
        };
        known.push(after.clone());
        self.changes.push(PriceChange { before, after });
        Ok(())
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (ids, ends) = &self.ended;
        sqlx::query!(
            "UPDATE price_sheets SET valid_to = ended.at FROM UNNEST($1::bigint[], $2::timestamptz[]) AS ended (id, at)
             WHERE price_sheets.id = ended.id",
            ids,
            ends,
        )
        .execute(&mut *connection)
        .await?;
        let sheets = || self.changes.iter().map(|change| &change.after);
        let contents: Vec<Value> = sheets().map(content).collect();
        let texts =
            |text: fn(&Sheet) -> &String| -> Vec<String> { sheets().map(|sheet| text(sheet).clone()).collect() };
        let regions: Vec<Option<String>> = sheets().map(|sheet| sheet.region.clone()).collect();
        let from: Vec<Option<DateTime<Utc>>> = sheets().map(|sheet| sheet.valid_from).collect();
        let to: Vec<Option<DateTime<Utc>>> = sheets().map(|sheet| sheet.valid_to).collect();
        let custom: Vec<bool> = sheets().map(|sheet| sheet.custom).collect();
        let versions: Vec<String> = contents.iter().map(version).collect();
        sqlx::query!(
            "INSERT INTO price_sheets (provider, model, region, valid_from, valid_to, custom, source, version, sheet)
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::boolean[],
                                  $7::text[], $8::text[], $9::jsonb[])",
            &texts(|sheet| &sheet.provider),
            &texts(|sheet| &sheet.model),
            &regions as &[Option<String>],
            &from as &[Option<DateTime<Utc>>],
            &to as &[Option<DateTime<Utc>>],
            &custom,
            &texts(|sheet| &sheet.source),
            &versions,
            &contents,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

type Key = (String, String, Option<String>, bool);

fn key(sheet: &Sheet) -> Key {
    (
        sheet.provider.clone(),
        sheet.model.clone(),
        sheet.region.clone(),
        sheet.custom,
    )
}

/// The sheets of each key, by when they begin.
async fn known(connection: &mut PgConnection) -> Result<BTreeMap<Key, Vec<Sheet>>, Error> {
    let rows =
        sqlx::query!("SELECT id, valid_from, valid_to, sheet FROM price_sheets ORDER BY valid_from NULLS FIRST, id")
            .fetch_all(connection)
            .await?;
    let mut known: BTreeMap<Key, Vec<Sheet>> = BTreeMap::new();
    for row in rows {
        if let Some(sheet) = sheet_of(row.id, row.valid_from, row.valid_to, row.sheet) {
            known.entry(key(&sheet)).or_default().push(sheet);
        }
    }
    Ok(known)
}
