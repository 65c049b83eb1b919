//! What a call costs: a pure function of a price and a usage.
//!
//! Prices are rows of the table `prices`, found by the provider's name in the configuration, the model's name at that
//! provider, and the moment at which the call started. The table that Tollgate ships with is a migration: sqlx runs it
//! exactly once under its lock, history stays readable, and what an operator has entered since is not overwritten, all
//! of which a file loaded at each start would have to do by itself.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use tollgate_types::{Usage, UsageSource, Usd};

/// A price and the time in which it holds, `valid_to` excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    pub id: i64,
    pub provider: String,
    pub model: String,
    pub valid_from: DateTime<Utc>,
    pub valid_to: Option<DateTime<Utc>>,
    /// Per million tokens, as the others.
    pub input: Usd,
    /// As `input` when absent.
    pub cached_input: Option<Usd>,
    /// Kept for minutes; a kind without a rate, here and below, leaves a call that used it unpriced.
    pub cache_write: Option<Usd>,
    /// Kept for an hour.
    pub cache_write_1h: Option<Usd>,
    pub audio_input: Option<Usd>,
    pub output: Usd,
    pub audio_output: Option<Usd>,
    /// For one search, not for a million.
    pub web_search: Option<Usd>,
    /// The longest prompt that the price is for.
    pub max_input_tokens: Option<u64>,
}

/// The cost of `usage` at `price`, exact; `None` when it used something that the price has no rate for.
///
/// Kinds that are part of a count are never more than all of it, and where a provider counts a token in two kinds
/// (sound that was read from the cache) it costs as the first of: read from the cache, written to it, sound.
#[must_use]
pub fn cost(price: &Price, usage: &Usage) -> Option<Usd> {
    let mut input = usage.input_tokens;
    let cached = take(&mut input, usage.cached_input_tokens);
    let mut written = take(&mut input, usage.cache_write_input_tokens);
    let written_1h = take(&mut written, usage.cache_write_1h_input_tokens);
    let audio_input = take(&mut input, usage.audio_input_tokens);
    let mut output = usage.output_tokens;
    let audio_output = take(&mut output, usage.audio_output_tokens);
    let rated = [
        (written, price.cache_write),
        (written_1h, price.cache_write_1h),
        (audio_input, price.audio_input),
        (audio_output, price.audio_output),
    ];
    let mut cost = price.input.per_million(input)
        + price.cached_input.unwrap_or(price.input).per_million(cached)
        + price.output.per_million(output);
    for (tokens, rate) in rated.into_iter().filter(|(tokens, _)| *tokens > 0) {
        cost = cost + rate?.per_million(tokens);
    }
    if usage.web_searches > 0 {
        cost = cost + price.web_search?.times(usage.web_searches);
    }
    Some(cost)
}

/// Takes up to `part` from `rest`.
fn take(rest: &mut u64, part: u64) -> u64 {
    let taken = part.min(*rest);
    *rest -= taken;
    taken
}

/// What the ledger says about the money of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) price_id: Option<i64>,
    /// Absent when no price is known, or not for all that was used.
    pub(crate) cost: Option<Usd>,
}

struct PriceRow {
    id: i64,
    provider: String,
    model: String,
    valid_from: DateTime<Utc>,
    valid_to: Option<DateTime<Utc>>,
    input_usd_per_mtok: Decimal,
    cached_input_usd_per_mtok: Option<Decimal>,
    cache_write_usd_per_mtok: Option<Decimal>,
    cache_write_1h_usd_per_mtok: Option<Decimal>,
    audio_input_usd_per_mtok: Option<Decimal>,
    output_usd_per_mtok: Decimal,
    audio_output_usd_per_mtok: Option<Decimal>,
    web_search_usd: Option<Decimal>,
    max_input_tokens: Option<i64>,
}

/// The prices of the providers at hand.
pub(crate) struct PriceList(Vec<Price>);

impl PriceList {
    pub(crate) async fn load(connection: &mut PgConnection, providers: BTreeSet<&str>) -> Result<Self, sqlx::Error> {
        let providers: Vec<String> = providers.into_iter().map(str::to_owned).collect();
        let rows = sqlx::query_as!(
            PriceRow,
            "SELECT id, provider, model, valid_from, valid_to, input_usd_per_mtok, cached_input_usd_per_mtok,
                    cache_write_usd_per_mtok, cache_write_1h_usd_per_mtok, audio_input_usd_per_mtok,
                    output_usd_per_mtok, audio_output_usd_per_mtok, web_search_usd, max_input_tokens
             FROM prices WHERE provider = ANY($1)",
            &providers
        )
        .fetch_all(connection)
        .await?;
        let price = |row: PriceRow| Price {
            id: row.id,
            provider: row.provider,
            model: row.model,
            valid_from: row.valid_from,
            valid_to: row.valid_to,
            input: row.input_usd_per_mtok.into(),
            cached_input: row.cached_input_usd_per_mtok.map(Into::into),
            cache_write: row.cache_write_usd_per_mtok.map(Into::into),
            cache_write_1h: row.cache_write_1h_usd_per_mtok.map(Into::into),
            audio_input: row.audio_input_usd_per_mtok.map(Into::into),
            output: row.output_usd_per_mtok.into(),
            audio_output: row.audio_output_usd_per_mtok.map(Into::into),
            web_search: row.web_search_usd.map(Into::into),
            max_input_tokens: row.max_input_tokens.and_then(|longest| longest.try_into().ok()),
        };
        Ok(Self(rows.into_iter().map(price).collect()))
    }

    /// The charge for `usage` of the first of `models` that has a price at `at`.
    pub(crate) fn charge(
        &self,
        provider: &str,
        models: &[&str],
        at: DateTime<Utc>,
        usage: &Usage,
        source: UsageSource,
    ) -> Charge {
        let price = models
            .iter()
            .find_map(|model| self.find(provider, model, at, usage.input_tokens));
        let cost = match source {
            // Nothing was used, which costs nothing at any price.
            UsageSource::None => Some(Usd::ZERO),
            _ => price.and_then(|price| cost(price, usage)),
        };
        Charge {
            price_id: price.map(|price| price.id),
            cost,
        }
    }

    fn find(&self, provider: &str, model: &str, at: DateTime<Utc>, input_tokens: u64) -> Option<&Price> {
        self.0.iter().find(|price| {
            price.provider == provider
                && price.model == model
                && price.valid_from <= at
                && price.valid_to.is_none_or(|end| at < end)
                && price.max_input_tokens.is_none_or(|longest| input_tokens <= longest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn price(cached: Option<&str>) -> Price {
        Price {
            id: 7,
            provider: "openai".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            valid_from: DateTime::from_timestamp(1000, 0).unwrap(),
            valid_to: DateTime::from_timestamp(2000, 0),
            input: usd("0.15"),
            cached_input: cached.map(usd),
            cache_write: None,
            cache_write_1h: None,
            audio_input: None,
            output: usd("0.60"),
            audio_output: None,
            web_search: None,
            max_input_tokens: Some(5000),
        }
    }

    const USAGE: Usage = Usage {
        input_tokens: 1234,
        cached_input_tokens: 1000,
        output_tokens: 567,
        reasoning_tokens: 99,
        cache_write_input_tokens: 0,
        cache_write_1h_input_tokens: 0,
        audio_input_tokens: 0,
        audio_output_tokens: 0,
        web_searches: 0,
    };

    #[test]
    fn calculated_by_hand() {
        // 234 × 0.15 + 1000 × 0.075 + 567 × 0.60 = 35.1 + 75 + 340.2 millionths
        assert_eq!(cost(&price(Some("0.075")), &USAGE), Some(usd("0.0004503")));
        // 1234 × 0.15 + 567 × 0.60 = 185.1 + 340.2 millionths
        assert_eq!(cost(&price(None), &USAGE), Some(usd("0.0005253")));
    }

    #[test]
    fn cached_tokens_are_never_more_than_all() {
        let usage = Usage {
            input_tokens: 10,
            cached_input_tokens: 1000,
            ..Usage::default()
        };
        assert_eq!(cost(&price(Some("0.075")), &usage), Some(usd("0.00000075")));
    }

    #[test]
    fn each_kind_has_its_own_rate() {
        let price = Price {
            cached_input: Some(usd("0.3")),
            cache_write: Some(usd("3.75")),
            cache_write_1h: Some(usd("6")),
            audio_input: Some(usd("40")),
            audio_output: Some(usd("80")),
            web_search: Some(usd("0.01")),
            input: usd("3"),
            output: usd("15"),
            ..price(None)
        };
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
        // 550 × 3 + 100 × 0.3 + 100 × 3.75 + 200 × 6 + 50 × 40 + 480 × 15 + 20 × 80 = 14055 millionths, and 3 searches.
        assert_eq!(cost(&price, &usage), Some(usd("0.044055")));
        // A kind without a rate is not free.
        for without in [
            Price {
                cache_write: None,
                ..price.clone()
            },
            Price {
                cache_write_1h: None,
                ..price.clone()
            },
            Price {
                audio_input: None,
                ..price.clone()
            },
            Price {
                audio_output: None,
                ..price.clone()
            },
            Price {
                web_search: None,
                ..price.clone()
            },
        ] {
            assert_eq!(cost(&without, &usage), None);
            assert!(cost(&without, &USAGE).is_some());
        }
        // Two kinds at once: cached sound costs as cached.
        let cached_sound = Usage {
            input_tokens: 10,
            cached_input_tokens: 10,
            audio_input_tokens: 10,
            ..Usage::default()
        };
        assert_eq!(cost(&price, &cached_sound), Some(usd("0.000003")));
    }

    #[test]
    fn the_largest_counts_that_the_ledger_takes_do_not_overflow() {
        let most = i64::MAX as u64;
        let usage = Usage {
            input_tokens: most,
            cached_input_tokens: most / 2,
            output_tokens: most,
            web_searches: most,
            ..Usage::default()
        };
        let dear = Usd::from(Decimal::new(999_999_999_999_999, 9));
        let price = Price {
            input: dear,
            cached_input: Some(dear),
            web_search: Some(usd("999.999999999")),
            output: dear,
            ..price(None)
        };
        assert!(cost(&price, &usage) > Some(Usd::ZERO));
    }

    #[test]
    fn a_price_holds_from_its_first_moment_and_not_at_its_end() {
        let list = PriceList(vec![price(None)]);
        let known = |seconds, input| {
            list.find(
                "openai",
                "gpt-4o-mini",
                DateTime::from_timestamp(seconds, 0).unwrap(),
                input,
            )
            .is_some()
        };
        assert_eq!(
            [999, 1000, 1999, 2000].map(|at| known(at, 1)),
            [false, true, true, false]
        );
        assert_eq!([5000, 5001].map(|input| known(1500, input)), [true, false]);
    }

    #[test]
    fn no_price_is_no_cost_and_no_usage_costs_nothing() {
        let list = PriceList(vec![price(None)]);
        let at = DateTime::from_timestamp(1500, 0).unwrap();
        let charge = |models: &[&str], source| list.charge("openai", models, at, &USAGE, source);
        assert_eq!(charge(&["unknown"], UsageSource::Provider), Charge::default());
        assert_eq!(
            charge(&["unknown"], UsageSource::None),
            Charge {
                price_id: None,
                cost: Some(Usd::ZERO)
            }
        );
        assert_eq!(
            charge(&["gpt-4o-mini"], UsageSource::None),
            Charge {
                price_id: Some(7),
                cost: Some(Usd::ZERO)
            }
        );
        let fallback = charge(&["unknown", "gpt-4o-mini"], UsageSource::Counted);
        assert_eq!(
            fallback,
            Charge {
                price_id: Some(7),
                cost: Some(usd("0.0005253"))
            }
        );
    }
}
