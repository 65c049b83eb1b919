//! What calls cost: the price sheets that the database holds, and the engine of [`tollgate_pricing`].

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::Mutex;
use tollgate_config::schema::Provider;
use tollgate_pricing::{Breakdown, Catalogue, Circumstances, Consumption, Sheet, Tier, Unit, Unpriced, cost};
use tollgate_types::{Usage, UsageSource, Usd};

use crate::{Error, catalogue::sheet_of};

/// The list of sheets that stand for every provider: a default for what has no price of its own.
const EVERYBODY: &str = "*";

/// By which price lists providers are billed, and where they serve: by their names in the configuration.
#[derive(Debug, Clone, Default)]
pub struct PriceLists(BTreeMap<String, PriceList>);

#[derive(Debug, Clone)]
struct PriceList {
    name: String,
    region: Option<String>,
}

impl FromIterator<(String, String, Option<String>)> for PriceLists {
    /// Of providers with the names of their lists and their regions.
    fn from_iter<I: IntoIterator<Item = (String, String, Option<String>)>>(providers: I) -> Self {
        let list = |(provider, name, region)| (provider, PriceList { name, region });
        Self(providers.into_iter().map(list).collect())
    }
}

impl From<&[Provider]> for PriceLists {
    fn from(providers: &[Provider]) -> Self {
        let list = |one: &Provider| (one.name.clone(), one.price_list.clone(), one.region.clone());
        providers.iter().map(list).collect()
    }
}

/// What the ledger says about the money of an attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Charge {
    pub(crate) price_id: Option<i64>,
    /// Absent when no price is known, or not for all that was used.
    pub(crate) cost: Option<Usd>,
    /// How it came about, as in the column `cost_breakdown`.
    pub(crate) breakdown: Option<Value>,
}

/// The call that is to be priced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// By its name in the configuration.
    pub(crate) provider: &'a str,
    /// The model that the provider says it used.
    pub(crate) served: Option<&'a str>,
    /// The model that it was asked for.
    pub(crate) asked: &'a str,
    /// Where it was served, if that is not where the provider usually serves.
    pub(crate) region: Option<&'a str>,
    pub(crate) at: DateTime<Utc>,
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

/// The sheet by which a call is priced and what it costs; none when nobody knows. The sheet is an own one before a list price, of the model that was served before the one that was asked
/// for, of the provider before its list, and a default only when there is no other.
pub(crate) fn priced(
    book: &Catalogue,
    lists: &PriceLists,
    call: Call<'_>,
    used: &Consumption,
) -> Option<(Sheet, Result<Breakdown, Unpriced>)> {
    let list = lists.0.get(call.provider);
    let region = call.region.or(list.and_then(|list| list.region.as_deref()));
    let sheet = find(book, list.map(|list| list.name.as_str()), region, call).cloned();
    // A provider that states the cost needs no sheet.
    let unlisted = || Sheet::unlisted(list.map_or(call.provider, |list| &list.name), call.asked);
    let sheet = sheet.or_else(|| used.stated_usd.map(|_| unlisted()))?;
    let how = Circumstances {
        at: call.at,
        tier: None,
        region: region.map(str::to_owned),
    };
    let found = cost(&sheet, used, &how);
    Some((sheet, found))
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

fn find<'a>(book: &'a Catalogue, list: Option<&str>, region: Option<&str>, call: Call<'_>) -> Option<&'a Sheet> {
    let models = || call.served.into_iter().chain([call.asked]);
    let lists = || [call.provider].into_iter().chain(list);
    let of = |list: &str, model: &str| book.find(list, model, region, call.at);
    let known: Vec<&Sheet> = models()
        .flat_map(|model| lists().filter_map(move |list| of(list, model)))
        .collect();
    let own = known.iter().find(|sheet| sheet.custom);
    let nearest = own.or(known.first()).copied();
    nearest.or_else(|| models().find_map(|model| of(EVERYBODY, model)))
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

/// What was used, of a count that is our own or an estimate.
///
/// Kinds that are part of a count are never more than all of it, and where a token is in two kinds (sound that was read
/// from the cache) it is in the first of: read from the cache, written to it, sound.
pub(crate) fn counted(usage: &Usage) -> Consumption {
    let mut input = usage.input_tokens;
    let cached = take(&mut input, usage.cached_input_tokens);
    let mut written = take(&mut input, usage.cache_write_input_tokens);
    let written_1h = take(&mut written, usage.cache_write_1h_input_tokens);
    let audio_input = take(&mut input, usage.audio_input_tokens);
    let mut output = usage.output_tokens;
    let audio_output = take(&mut output, usage.audio_output_tokens);
    let reasoning = take(&mut output, usage.reasoning_tokens);
    let quantities = [
        (Unit::Input, input),
        (Unit::CachedInput, cached),
        (Unit::CacheWrite, written),
        (Unit::CacheWrite1h, written_1h),
        (Unit::AudioInput, audio_input),
        (Unit::Output, output),
        (Unit::AudioOutput, audio_output),
        (Unit::Reasoning, reasoning),
        (Unit::WebSearch, usage.web_searches),
    ];
    Consumption {
        quantities: quantities.into_iter().filter(|(_, count)| *count > 0).collect(),
        prompt_tokens: usage.input_tokens,
        ..Consumption::default()
    }
}

/// Takes up to `part` from `rest`.
fn take(rest: &mut u64, part: u64) -> u64 {
    let taken = part.min(*rest);
    *rest -= taken;
    taken
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn kinds_are_part_of_their_counts() {
        let usage = Usage {
            input_tokens: 1000,
            cached_input_tokens: 100,
            cache_write_input_tokens: 300,
            cache_write_1h_input_tokens: 200,
            audio_input_tokens: 50,
            output_tokens: 500,
            reasoning_tokens: 400,
            audio_output_tokens: 20,
            web_searches: 3,
        };
        let expected = [
            (Unit::Input, 550),
            (Unit::CachedInput, 100),
            (Unit::CacheWrite, 100),
            (Unit::CacheWrite1h, 200),
            (Unit::AudioInput, 50),
            (Unit::Output, 80),
            (Unit::Reasoning, 400),
            (Unit::AudioOutput, 20),
            (Unit::WebSearch, 3),
        ];
        assert_eq!(counted(&usage).quantities, expected.into());
        let cached_sound = Usage {
            input_tokens: 10,
            cached_input_tokens: 1000,
            audio_input_tokens: 10,
            ..Usage::default()
        };
        assert_eq!(counted(&cached_sound).quantities, [(Unit::CachedInput, 10)].into());
    }
}
