//! What calls cost: the price sheets that the database holds, and the engine of [`tollgate_pricing`].

use std::{collections::BTreeMap, sync::Arc};

use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::Mutex;
use tollgate_bus::{PriceList, Registry};
use tollgate_pricing::{Breakdown, Call, Catalogue, Consumption, PriceLists, Sheet, Tier, priced};
use tollgate_types::{UsageSource, Usd};

use crate::{Error, Store, catalogue::sheet_of};

/// What the ledger says about the money of an attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Charge {
    pub(crate) price_id: Option<i64>,
    /// Absent when no price is known, or not for all that was used.
    pub(crate) cost: Option<Usd>,
    /// How it came about, as in the column `cost_breakdown`.
    pub(crate) breakdown: Option<Value>,
}

/// Which sheets there are: their number only grows, and each ends once.
type Edition = (i64, i64);

/// The sheets as they were read last.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Kept>>);

type Kept = Option<(Edition, Arc<Catalogue>)>;

impl Shelf {
    /// The sheets as the connection sees them.
    pub(crate) async fn book(&self, connection: &mut PgConnection) -> Result<Arc<Catalogue>, Error> {
        let found =
            sqlx::query!(r#"SELECT coalesce(max(id), 0) AS "newest!", count(valid_to) AS "ended!" FROM price_sheets"#)
                .fetch_one(&mut *connection)
                .await?;
        let edition = (found.newest, found.ended);
        let mut kept = self.0.lock().await;
        if let Some((_, book)) = kept.as_ref().filter(|(known, _)| *known == edition) {
            return Ok(Arc::clone(book));
        }
        let rows = sqlx::query!("SELECT id, valid_from, valid_to, sheet FROM price_sheets")
            .fetch_all(connection)
            .await?;
        let sheets = rows
            .into_iter()
            .filter_map(|row| sheet_of(row.id, row.valid_from, row.valid_to, row.sheet));
        let book: Arc<Catalogue> = Arc::new(sheets.collect());
        *kept = Some((edition, Arc::clone(&book)));
        Ok(book)
    }
}

/// One process at a time tells of prices, so that nobody tells of older ones after it.
const LOCK: i64 = 0x746f_6c6c_7075_626c;

impl Store {
    /// Tells every ingress of the price lists that differ from what the bucket says; of how many. `told` is what was read the last time.
    pub(crate) async fn publish_prices(
        &self,
        bucket: &Registry<PriceList>,
        told: &mut Option<Arc<Catalogue>>,
    ) -> Result<usize, Error> {
        let mut transaction = self.pool.begin().await?;
        let book = self.shelf.book(&mut transaction).await?;
        if told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &book)) {
            return Ok(0);
        }
        sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
            .execute(&mut *transaction)
            .await?;
        let book = self.shelf.book(&mut transaction).await?;
        let mut lists: BTreeMap<String, Vec<Sheet>> = BTreeMap::new();
        let now = Utc::now();
        for sheet in book.sheets().filter(|sheet| sheet.valid_to.is_none_or(|end| end > now)) {
            let sheet = Sheet {
                id: None,
                ..sheet.clone()
            };
            lists.entry(sheet.provider.clone()).or_default().push(sheet);
        }
        let known = bucket.all().await?;
        for list in &known {
            lists.entry(list.provider.clone()).or_default();
        }
        let mut changed = 0;
        for (provider, sheets) in lists {
            let list = PriceList { provider, sheets };
            if !known.contains(&list) {
                bucket.put(&list).await?;
                changed += 1;
            }
        }
        transaction.commit().await?;
        *told = Some(book);
        Ok(changed)
    }
}

/// What the ledger says of a call that used this.
pub(crate) fn charge(
    book: &Catalogue,
    lists: &PriceLists,
    call: Call<'_>,
    used: &Consumption,
    source: UsageSource,
) -> Charge {
    let (sheet, found) = priced(book, lists, call, used).unzip();
    let price_id = sheet.and_then(|sheet| sheet.id);
    if source == UsageSource::None {
        // Nothing was used, which costs nothing at any price.
        return Charge {
            price_id,
            cost: Some(Usd::ZERO),
            breakdown: None,
        };
    }
    let found = found.and_then(Result::ok);
    Charge {
        price_id,
        cost: found.as_ref().map(|found| found.total_usd.into()),
        breakdown: found.as_ref().map(compact),
    }
}

/// The breakdown as the ledger keeps it: what is as usual is left out, and a part is `[unit, quantity, rate, US dollars]`.
fn compact(found: &Breakdown) -> Value {
    let parts = found.components.iter();
    let parts = parts.map(|part| json!([part.unit, part.quantity, part.rate, part.usd]));
    let mut kept = json!({ "parts": parts.collect::<Value>() });
    let mut keep = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            kept[name] = value;
        }
    };
    keep("tier", (found.tier != Tier::Standard).then(|| json!(found.tier)));
    let above = found.above_input_tokens;
    keep("above_input_tokens", (above > 0).then(|| json!(above)));
    keep("off_peak", found.off_peak.then(|| json!(true)));
    let factors = found.multipliers.iter();
    let factors = factors.map(|one| (one.name.clone(), json!(one.factor)));
    keep(
        "multipliers",
        (!found.multipliers.is_empty()).then(|| factors.collect()),
    );
    keep("stated_usd", found.stated_usd.map(|usd| json!(usd)));
    keep("discount_usd", found.discount_usd.map(|usd| json!(usd)));
    kept
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use tollgate_pricing::Unit;

    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    const SHEETS: &str = r#"
{"provider": "openai", "model": "gpt", "per_million": {"input": "1", "input@flex": "0.5", "output": "10"}, "each": {"web_search": "0.01"}}
{"provider": "openai", "model": "gpt-dated", "per_million": {"input": "2", "output": "20"}}
{"provider": "mine", "model": "gpt", "per_million": {"input": "3", "output": "30"}, "custom": true}
{"provider": "*", "model": "*", "per_million": {"input": "100", "output": "100"}, "custom": true}
{"provider": "far", "model": "gpt", "per_million": {"input": "4"}, "multipliers": {"eu": "1.1"}}
{"provider": "far", "model": "gpt", "region": "us", "per_million": {"input": "5"}}"#;

    fn of(provider: &str, served: Option<&str>, asked: &str, used: &Consumption) -> Charge {
        let book = Catalogue::read(SHEETS, "test").unwrap();
        let list = |provider: &str, list: &str, region: Option<&str>| {
            (provider.to_owned(), list.to_owned(), region.map(str::to_owned))
        };
        let lists = [
            list("mine", "openai", None),
            list("eu", "far", Some("eu")),
            list("us", "far", Some("us")),
        ];
        let call = Call {
            provider,
            served,
            asked,
            region: None,
            at: DateTime::UNIX_EPOCH,
        };
        charge(&book, &lists.into_iter().collect(), call, used, UsageSource::Provider)
    }

    fn million(unit: Unit) -> Consumption {
        Consumption {
            quantities: [(unit, 1_000_000)].into(),
            ..Consumption::default()
        }
    }

    #[test]
    fn the_nearest_sheet_prices_a_call() {
        let input = million(Unit::Input);
        let cost = |provider, served, asked| of(provider, served, asked, &input).cost.map(|cost| cost.to_string());
        let costs = |provider, served, asked, expected: &str| {
            assert_eq!(
                cost(provider, served, asked).as_deref(),
                Some(expected),
                "{provider} {served:?} {asked}"
            );
        };
        costs("openai", None, "gpt", "1");
        costs("openai", Some("gpt-dated"), "gpt", "2");
        costs("openai", Some("gpt-unheard"), "gpt", "1");
        // An own price of what was asked for goes before the list price of what was served, a list before a default.
        costs("mine", Some("gpt-dated"), "gpt", "3");
        costs("mine", None, "gpt-dated", "2");
        costs("nobody", None, "gpt", "100");
        costs("eu", None, "gpt", "4.4");
        costs("us", None, "gpt", "5");
    }

    #[test]
    fn a_breakdown_is_kept_without_what_is_usual() {
        let mut used = million(Unit::Input);
        used.quantities.insert(Unit::WebSearch, 2);
        let charge = of("openai", None, "gpt", &used);
        let parts = json!([["input", 1_000_000, "1", "1"], ["web_search", 2, "0.01", "0.02"]]);
        assert_eq!(
            (charge.breakdown, charge.cost),
            (Some(json!({ "parts": parts })), Some(usd("1.02")))
        );
        used.tier = Some(Tier::Flex);
        let charge = of("openai", None, "gpt", &used);
        assert_eq!(charge.breakdown.unwrap()["tier"], "flex");
        // Served in a way that nobody gave a price, without a default to fall back on.
        used.served.push("warp".to_owned());
        assert_eq!(of("openai", None, "gpt", &used).cost, None);
    }

    #[test]
    fn no_price_is_no_cost_and_no_usage_costs_nothing() {
        let none = Catalogue::default();
        let call = Call {
            provider: "openai",
            served: None,
            asked: "gpt",
            region: None,
            at: DateTime::UNIX_EPOCH,
        };
        let charged = |used: &Consumption, source| charge(&none, &PriceLists::default(), call, used, source);
        let input = million(Unit::Input);
        assert_eq!(charged(&input, UsageSource::Counted), Charge::default());
        assert_eq!(charged(&input, UsageSource::None).cost, Some(Usd::ZERO));
        let stated = Consumption {
            stated_usd: Some(usd("0.5").amount()),
            ..input
        };
        assert_eq!(charged(&stated, UsageSource::Provider).cost, Some(usd("0.5")));
    }
}
