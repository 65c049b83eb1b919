//! Bills as providers give them out: OpenAI's usage and cost pages, Anthropic's usage and cost reports, and CSV with named columns.
//!
//! Sources: OpenAI's "Usage" and "Costs" API reference, Anthropic's "Usage and Cost API", and FinOps FOCUS 1.x.

use std::{collections::BTreeMap, str::FromStr};

use chrono::{DateTime, NaiveDate};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

/// Largest amount of anything on a line.
const LARGEST: i64 = 1_000_000_000_000_000;

/// A quantity of each measure that a bill may have; absent where it says nothing of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub requests: Option<u64>,
    /// Read from a cache or written to it included.
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub usd: Option<Decimal>,
}

impl Amounts {
    pub(crate) fn add(&mut self, other: &Self) {
        fn sum<T: Copy>(one: Option<T>, other: Option<T>, add: impl FnOnce(T, T) -> T) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(add(one, other)),
                (one, other) => one.or(other),
            }
        }
        self.requests = sum(self.requests, other.requests, u64::saturating_add);
        self.input_tokens = sum(self.input_tokens, other.input_tokens, u64::saturating_add);
        self.output_tokens = sum(self.output_tokens, other.output_tokens, u64::saturating_add);
        self.usd = sum(self.usd, other.usd, |one, other| one.saturating_add(other));
    }

    const fn is_empty(&self) -> bool {
        self.requests.is_none() && self.input_tokens.is_none() && self.output_tokens.is_none() && self.usd.is_none()
    }
}

/// A bill, by UTC day and model; a model without a name where the bill does not say it.
pub type Bill = BTreeMap<(NaiveDate, String), Amounts>;

/// Why a file is no bill. Says where.
#[derive(Debug, thiserror::Error)]
pub enum BillError {
    #[error("the bill is empty")]
    Empty,
    #[error("the bill is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the bill is no CSV: {0}")]
    Csv(#[from] csv::Error),
    #[error("the bill has no column for the {0}; see docs/sql.md for the names that are known")]
    Column(&'static str),
    #[error("{place}: {problem}")]
    Value { place: String, problem: String },
}

fn wrong(place: &str, problem: impl Into<String>) -> BillError {
    BillError::Value {
        place: place.to_owned(),
        problem: problem.into(),
    }
}

/// Reads a bill, whichever of the known forms it has.
pub fn read_bill(text: &str) -> Result<Bill, BillError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut bill = Bill::new();
    match text.trim_start().as_bytes().first() {
        None => return Err(BillError::Empty),
        // Several pages may follow one another.
        Some(b'{' | b'[') => {
            for page in serde_json::Deserializer::from_str(text).into_iter() {
                read_page(&mut bill, &page?)?;
            }
        }
        Some(_) => read_csv(&mut bill, text)?,
    }
    if bill.is_empty() {
        Err(BillError::Empty)
    } else {
        Ok(bill)
    }
}

fn enter(bill: &mut Bill, day: NaiveDate, model: &str, amounts: &Amounts) {
    bill.entry((day, model.to_owned())).or_default().add(amounts);
}

/// A moment as Unix seconds, as a date, or as both in RFC 3339.
fn day(text: &str) -> Option<NaiveDate> {
    if let Ok(seconds) = text.parse::<i64>() {
        return DateTime::from_timestamp(seconds, 0).map(|moment| moment.date_naive());
    }
    let moment = DateTime::parse_from_rfc3339(text).map(|moment| moment.to_utc().date_naive());
    // A date, and perhaps a time of UTC that says no zone.
    moment.ok().or_else(|| text.get(..10)?.parse().ok())
}

fn amount(text: &str) -> Option<Decimal> {
    let plain = text.trim().trim_start_matches('$').replace(',', "");
    let read = Decimal::from_str(&plain).or_else(|_| Decimal::from_scientific(&plain));
    // Far above any bill, and far below where sums would overflow.
    read.ok().filter(|amount| amount.abs() <= Decimal::from(LARGEST))
}

fn count(text: &str) -> Option<u64> {
    let whole = amount(text).filter(|amount| amount.fract().is_zero() && !amount.is_sign_negative())?;
    u64::try_from(whole).ok()
}

fn read_page(bill: &mut Bill, page: &Value) -> Result<(), BillError> {
    if let Some(pages) = page.as_array() {
        return pages.iter().try_for_each(|page| read_page(bill, page));
    }
    let buckets = page.get("data").and_then(Value::as_array);
    let buckets = buckets.ok_or_else(|| wrong("the page", "expected `data`, a list of buckets"))?;
    for (index, bucket) in buckets.iter().enumerate() {
        let place = format!("data[{index}]");
        let begin = bucket.get("start_time").or_else(|| bucket.get("starting_at"));
        let begin = begin.map(|begin| begin.as_str().map_or_else(|| begin.to_string(), str::to_owned));
        let day = begin.and_then(|begin| day(&begin));
        let day = day.ok_or_else(|| wrong(&place, "expected `start_time` or `starting_at`"))?;
        let results = bucket.get("results").and_then(Value::as_array);
        let results = results.ok_or_else(|| wrong(&place, "expected `results`, a list"))?;
        for (number, result) in results.iter().enumerate() {
            let place = format!("{place}.results[{number}]");
            let result = result.as_object().ok_or_else(|| wrong(&place, "expected an object"))?;
            let (model, amounts) = read_result(result, &place)?;
            enter(bill, day, &model, &amounts);
        }
    }
    Ok(())
}

fn read_result(result: &Map<String, Value>, place: &str) -> Result<(String, Amounts), BillError> {
    let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |object: &Map<String, Value>, name: &str| -> Result<u64, BillError> {
        match object.get(name) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => value
                .as_u64()
                .filter(|number| *number <= LARGEST.unsigned_abs())
                .ok_or_else(|| wrong(place, format!("{name}: expected a whole number"))),
        }
    };
    if let Some(asked) = result.get("amount") {
        // OpenAI's are in dollars inside an object, Anthropic's in cents.
        let (value, currency, cents) = match asked {
            Value::Object(inner) => (inner.get("value"), inner.get("currency"), false),
            plain => (Some(plain), result.get("currency"), true),
        };
        if !currency
            .and_then(Value::as_str)
            .is_some_and(|one| one.eq_ignore_ascii_case("usd"))
        {
            return Err(wrong(place, "expected an amount in usd"));
        }
        let value = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let value = value.and_then(|value| amount(&value));
        let value = value.ok_or_else(|| wrong(place, "amount: expected a number"))?;
        let model = match text("model") {
            // `gpt-4o-mini-2024-07-18, input`
            "" => text("line_item").split(", ").next().unwrap_or_default(),
            model => model,
        };
        let usd = Some(if cents { value / Decimal::ONE_HUNDRED } else { value });
        return Ok((
            model.to_owned(),
            Amounts {
                usd,
                ..Amounts::default()
            },
        ));
    }
    let written = match result.get("cache_creation").and_then(Value::as_object) {
        Some(kinds) => kinds.keys().map(|name| number(kinds, name)).sum::<Result<u64, _>>()?,
        None => 0,
    };
    let input = if result.contains_key("uncached_input_tokens") {
        number(result, "uncached_input_tokens")? + number(result, "cache_read_input_tokens")? + written
    } else if result.contains_key("input_tokens") {
        number(result, "input_tokens")?
    } else {
        return Err(wrong(
            place,
            "expected an amount, input_tokens or uncached_input_tokens",
        ));
    };
    let requests = match result.get("num_model_requests") {
        Some(_) => Some(number(result, "num_model_requests")?),
        None => None,
    };
    let amounts = Amounts {
        requests,
        input_tokens: Some(input),
        output_tokens: Some(number(result, "output_tokens")?),
        usd: None,
    };
    Ok((text("model").to_owned(), amounts))
}

/// What a column is, by its name in small letters with `_` for spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Day,
    Model,
    Requests,
    Input,
    Output,
    Usd,
}

const COLUMNS: [(Column, &[&str]); 6] = [
    (
        Column::Day,
        &[
            "day",
            "date",
            "usage_date",
            "usage_date_utc",
            "start_time_iso",
            "start_time",
            "chargeperiodstart",
        ],
    ),
    (Column::Model, &["model", "model_version", "resourceid", "line_item"]),
    (Column::Requests, &["requests", "calls", "num_model_requests"]),
    // Several of these are kinds of one whole.
    (
        Column::Input,
        &[
            "input_tokens",
            "usage_input_tokens_no_cache",
            "usage_input_tokens_cache_read",
            "usage_input_tokens_cache_write_5m",
            "usage_input_tokens_cache_write_1h",
        ],
    ),
    (Column::Output, &["output_tokens", "usage_output_tokens"]),
    (
        Column::Usd,
        &["usd", "cost_usd", "cost", "amount", "amount_value", "billedcost"],
    ),
];

fn read_csv(bill: &mut Bill, text: &str) -> Result<(), BillError> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
    let kind = |name: &str| {
        let name = name.trim().to_ascii_lowercase().replace(' ', "_");
        let mut all = COLUMNS.iter();
        all.find(|(_, names)| names.contains(&name.as_str()))
            .map(|(column, _)| *column)
    };
    let mut columns = Vec::new();
    for name in reader.headers()? {
        // Of two names for the same thing the first counts; only kinds of input add up.
        let column = kind(name).filter(|one| *one == Column::Input || !columns.contains(&Some(*one)));
        columns.push(column);
    }
    let has = |column| columns.contains(&Some(column));
    if !has(Column::Day) {
        return Err(BillError::Column("day"));
    }
    if ![Column::Requests, Column::Input, Column::Output, Column::Usd]
        .into_iter()
        .any(has)
    {
        return Err(BillError::Column("requests, tokens or dollars"));
    }
    for record in reader.records() {
        let record = record?;
        let place = format!("line {}", record.position().map_or(0, csv::Position::line));
        let (mut when, mut model, mut amounts) = (None, "", Amounts::default());
        for (column, text) in columns.iter().zip(&record) {
            let (Some(column), text) = (column, text.trim()) else {
                continue;
            };
            if text.is_empty() {
                continue;
            }
            let bad = |expected: &str| wrong(&place, format!("{column:?}: expected {expected}").to_lowercase());
            let whole = || count(text).ok_or_else(|| bad("a whole number"));
            match column {
                Column::Day => when = Some(day(text).ok_or_else(|| bad("a day such as 2026-01-31"))?),
                Column::Model => model = text.split(", ").next().unwrap_or_default(),
                Column::Requests => amounts.requests = Some(whole()?),
                Column::Input => {
                    amounts.input_tokens = Some(amounts.input_tokens.unwrap_or(0).saturating_add(whole()?))
                }
                Column::Output => amounts.output_tokens = Some(whole()?),
                Column::Usd => amounts.usd = Some(amount(text).ok_or_else(|| bad("a number of dollars"))?),
            }
        }
        // A line of totals at the end has no day.
        if let Some(when) = when.filter(|_| !amounts.is_empty()) {
            enter(bill, when, model, &amounts);
        }
    }
    Ok(())
}
