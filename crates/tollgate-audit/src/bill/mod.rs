//! A provider's bill held against the ledger, by UTC day and model.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use rust_decimal::Decimal;

pub use self::read::{Amounts, Bill, BillError, read_bill};
use crate::{Error, Store};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measured {
    Requests,
    InputTokens,
    OutputTokens,
    Usd,
}

impl Measured {
    const ALL: [Self; 4] = [Self::Requests, Self::InputTokens, Self::OutputTokens, Self::Usd];

    /// The name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Usd => "usd",
        }
    }

    fn of(self, amounts: &Amounts) -> Option<Decimal> {
        match self {
            Self::Requests => amounts.requests.map(Decimal::from),
            Self::InputTokens => amounts.input_tokens.map(Decimal::from),
            Self::OutputTokens => amounts.output_tokens.map(Decimal::from),
            Self::Usd => amounts.usd,
        }
    }
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Equal,
    /// Not further apart than the ledger's estimates are large: calls whose end, or whose usage, nobody saw.
    Estimated,
    /// Calls of the day have no price here, so that dollars cannot be compared.
    Unpriced,
    Differs,
}

impl Verdict {
    /// The name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Estimated => "estimated",
            Self::Unpriced => "unpriced",
            Self::Differs => "DIFFERS",
        }
    }
}

/// One measure of one day and model, or of a model over all days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// None for all days.
    pub day: Option<NaiveDate>,
    pub model: String,
    pub measure: Measured,
    pub billed: Decimal,
    pub ledger: Decimal,
    /// As much of the ledger's is estimated.
    pub estimated: Decimal,
    pub verdict: Verdict,
}

/// Calls of one day and model.
#[derive(Debug, Clone, Default)]
struct Entry {
    asked: String,
    served: String,
    all: Amounts,
    estimated: Amounts,
    unpriced: u64,
}

/// What the ledger has of one line of a bill.
#[derive(Debug, Clone, Default)]
struct Side {
    all: Amounts,
    estimated: Amounts,
    unpriced: u64,
}

impl Store {
    /// Holds a bill against the calls of these providers on its days, those of all providers when none is named. Each day and model, then each
    /// model over all days: a call at midnight may be of another day for its provider. Dollars that are no further apart than `tolerance` are
    /// equal.
    pub async fn reconcile(
        &self,
        bill: &Bill,
        providers: &[String],
        tolerance: Decimal,
    ) -> Result<Vec<Compared>, Error> {
        let (Some((first, _)), Some((last, _))) = (bill.keys().next(), bill.keys().next_back()) else {
            return Ok(Vec::new());
        };
        let providers = (!providers.is_empty()).then_some(providers);
        let rows = sqlx::query_file!("queries/bill.sql", first, last, providers)
            .fetch_all(&self.pool)
            .await?;
        let count = |number: i64| Some(number.unsigned_abs());
        let entries = rows.into_iter().map(|row| {
            let entry = Entry {
                asked: row.asked,
                served: row.served,
                all: Amounts {
                    requests: count(row.requests),
                    input_tokens: count(row.input_tokens),
                    output_tokens: count(row.output_tokens),
                    usd: Some(row.usd),
                },
                estimated: Amounts {
                    requests: count(row.estimated_requests),
                    input_tokens: count(row.estimated_input_tokens),
                    output_tokens: count(row.estimated_output_tokens),
                    usd: Some(row.estimated_usd),
                },
                unpriced: row.unpriced.unsigned_abs(),
            };
            (row.day, entry)
        });
        Ok(compare(bill, entries, tolerance))
    }
}

fn compare(bill: &Bill, entries: impl IntoIterator<Item = (NaiveDate, Entry)>, tolerance: Decimal) -> Vec<Compared> {
    let models: BTreeSet<&str> = bill.keys().map(|(_, model)| model.as_str()).collect();
    // By the name that the bill has: that of the model that answered, or the one that was asked for.
    let name = |entry: &Entry| {
        let mut known = [entry.served.as_str(), entry.asked.as_str(), ""].into_iter();
        let found = known.find(|name| models.contains(name));
        found.unwrap_or(&entry.served).to_owned()
    };
    let mut ledger: BTreeMap<(NaiveDate, String), Side> = BTreeMap::new();
    for (day, entry) in entries {
        let side = ledger.entry((day, name(&entry))).or_default();
        side.all.add(&entry.all);
        side.estimated.add(&entry.estimated);
        side.unpriced += entry.unpriced;
    }
    // What the bill says of anything, it says of all.
    let mut said = Amounts::default();
    bill.values().for_each(|line| said.add(line));
    let keys: BTreeSet<_> = bill.keys().chain(ledger.keys()).cloned().collect();
    let mut found = Vec::new();
    let mut totals: BTreeMap<String, (Amounts, Side)> = BTreeMap::new();
    for key in keys {
        let billed = bill.get(&key).copied().unwrap_or_default();
        let side = ledger.get(&key).cloned().unwrap_or_default();
        let total = totals.entry(key.1.clone()).or_default();
        total.0.add(&billed);
        total.1.all.add(&side.all);
        total.1.estimated.add(&side.estimated);
        total.1.unpriced += side.unpriced;
        line(&mut found, (Some(key.0), &key.1), &said, (&billed, &side), tolerance);
    }
    for (model, (billed, side)) in &totals {
        line(&mut found, (None, model), &said, (billed, side), tolerance);
    }
    found
}

fn line(
    found: &mut Vec<Compared>,
    (day, model): (Option<NaiveDate>, &str),
    said: &Amounts,
    (billed, side): (&Amounts, &Side),
    tolerance: Decimal,
) {
    for measure in Measured::ALL.into_iter().filter(|one| one.of(said).is_some()) {
        let of = |amounts| measure.of(amounts).unwrap_or_default();
        let (billed, ledger, estimated) = (of(billed), of(&side.all), of(&side.estimated));
        let apart = (billed - ledger).abs();
        let verdict = if apart
            <= if measure == Measured::Usd {
                tolerance
            } else {
                Decimal::ZERO
            } {
            Verdict::Equal
        } else if measure == Measured::Usd && side.unpriced > 0 {
            Verdict::Unpriced
        } else if apart <= estimated {
            Verdict::Estimated
        } else {
            Verdict::Differs
        };
        found.push(Compared {
            day,
            model: model.to_owned(),
            measure,
            billed,
            ledger,
            estimated,
            verdict,
        });
    }
}

#[cfg(test)]
mod tests;
