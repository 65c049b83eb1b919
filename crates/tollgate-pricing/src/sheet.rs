//! Price sheets: what a provider asks for a model, in a region, while it holds.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::LazyLock,
};

use chrono::{DateTime, Datelike, NaiveTime, Utc, Weekday};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::unit::{Tier, Unit};

/// List prices of autumn 2026, as providers publish them.
static SHIPPED: LazyLock<Catalogue> = LazyLock::new(|| {
    // A test reads every line of it.
    Catalogue::read(include_str!("../catalogue.jsonl"), "list prices, autumn 2026").unwrap_or_default()
});

/// The catalogue that Tollgate comes with.
#[must_use]
pub fn shipped() -> &'static Catalogue {
    &SHIPPED
}

/// A sheet that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Invalid {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

/// What one provider asks for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sheet {
    pub provider: String,
    /// By the provider's name for it; one that ends with `*` stands for all that begin so.
    pub model: String,
    /// Where the call is served; everywhere that has no sheet of its own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// From this moment, if not from always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<DateTime<Utc>>,
    /// Until just before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<DateTime<Utc>>,
    /// US dollars for a million tokens.
    #[serde(default, skip_serializing_if = "Rates::is_empty")]
    pub per_million: Rates,
    /// US dollars for one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub each: BTreeMap<Unit, Decimal>,
    /// Whether a prompt of exactly a tier's size belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inclusive: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_peak: Option<OffPeak>,
    /// By what tokens are multiplied when the call was served so: a region, a geography, a speed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub multipliers: BTreeMap<String, Decimal>,
    /// A contract's share off the whole, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount: Option<Decimal>,
    /// An own price, over which nothing that the provider says prevails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub custom: bool,
    /// Where the price was read.
    #[serde(default)]
    pub source: String,
    /// Its row in the ledger's database, if it comes from there.
    #[serde(skip)]
    pub id: Option<i64>,
}

/// Rates by unit, by size of the prompt, by tier: `input`, `input>200000`, `input@batch`, `input>200000@batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rates(BTreeMap<Term, Decimal>);

/// What a rate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Term {
    unit: Unit,
    /// Of prompts with more tokens than this.
    above: u64,
    tier: Tier,
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, tier) = text.split_once('@').unwrap_or((text, "standard"));
        let (unit, above) = rest.split_once('>').unwrap_or((rest, "0"));
        let unit: Unit = unit.parse().map_err(|unknown| format!("unit {unknown}"))?;
        if !unit.is_token() {
            return Err(format!("{unit} is not priced by the million"));
        }
        Ok(Self {
            unit,
            above: above.parse().map_err(|_| format!("{above:?} is no number of tokens"))?,
            tier: tier.parse().map_err(|unknown| format!("tier {unknown}"))?,
        })
    }
}

impl TryFrom<String> for Term {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Term> for String {
    fn from(Term { unit, above, tier }: Term) -> Self {
        let mut text = unit.to_string();
        if above > 0 {
            text += &format!(">{above}");
        }
        if tier != Tier::Standard {
            text += &format!("@{tier}");
        }
        text
    }
}

impl Rates {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rate of this very unit, size and tier.
    pub(crate) fn get(&self, unit: Unit, above: u64, tier: Tier) -> Option<Decimal> {
        self.0.get(&Term { unit, above, tier }).copied()
    }

    /// The largest size that a prompt of so many tokens passes; 0 when it passes none.
    pub(crate) fn size(&self, prompt_tokens: u64, inclusive: bool) -> u64 {
        let passed = |above: &u64| prompt_tokens > *above || (inclusive && prompt_tokens == *above);
        self.0.keys().map(|term| term.above).filter(passed).max().unwrap_or(0)
    }
}

/// Rates that hold at certain hours, in place of those of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffPeak {
    windows: Vec<Window>,
    pub(crate) per_million: Rates,
}

/// Hours of some days of the week, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    days: Vec<Weekday>,
    hours: Vec<Hours>,
}

/// From the first to just before the second; the second at midnight is the day's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hours(NaiveTime, NaiveTime);

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (from, to) = text.split_once('-').ok_or("expected hours such as 04:00-06:00")?;
        let time = |text: &str| {
            NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| format!("{text:?} is no time of the day"))
        };
        let (from, to) = (time(from)?, time(to)?);
        if to <= from && to != NaiveTime::MIN {
            return Err("hours that pass midnight are two windows".to_owned());
        }
        Ok(Self(from, to))
    }
}

impl From<Hours> for String {
    fn from(Hours(from, to): Hours) -> Self {
        format!("{}-{}", from.format("%H:%M"), to.format("%H:%M"))
    }
}

impl OffPeak {
    /// Whether its rates hold at this moment.
    pub(crate) fn holds(&self, at: DateTime<Utc>) -> bool {
        let within = |hours: &Hours| hours.0 <= at.time() && (at.time() < hours.1 || hours.1 == NaiveTime::MIN);
        let mut windows = self.windows.iter();
        windows.any(|window| window.days.contains(&at.weekday()) && window.hours.iter().any(within))
    }
}

/// Longest name or source, in bytes.
const LONGEST_TEXT: usize = 500;

impl Sheet {
    /// One without a rate, for a call whose provider says itself what it costs.
    #[must_use]
    pub fn unlisted(provider: &str, model: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            model: model.to_owned(),
            region: None,
            valid_from: None,
            valid_to: None,
            per_million: Rates::default(),
            each: BTreeMap::new(),
            inclusive: false,
            off_peak: None,
            multipliers: BTreeMap::new(),
            discount: None,
            custom: false,
            source: "the provider".to_owned(),
            id: None,
        }
    }

    /// Reads one sheet in JSON. `source` is its own if it names none.
    pub fn read(json: &str, source: &str) -> Result<Self, String> {
        let mut sheet: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        sheet.check()?;
        if sheet.source.is_empty() {
            source.clone_into(&mut sheet.source);
        }
        Ok(sheet)
    }

    /// Whether both are for the same: a later one takes the place of an earlier.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        (&self.provider, &self.model, &self.region, self.custom)
            == (&other.provider, &other.model, &other.region, other.custom)
    }

    /// The sheet without its times and its row: what it asks, whenever it does.
    #[must_use]
    pub fn content(&self) -> Self {
        Self {
            valid_from: None,
            valid_to: None,
            id: None,
            ..self.clone()
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let rates = self.per_million.0.values();
        let off_peak = self.off_peak.iter().flat_map(|off| off.per_million.0.values());
        let usable = |rate: &Decimal| !rate.is_sign_negative() && *rate < Decimal::from(1_000_000) && rate.scale() <= 9;
        if !rates.chain(off_peak).chain(self.each.values()).all(usable) {
            return Err("a rate is from 0 to less than a million dollars, with up to 9 decimals");
        }
        if self.each.keys().any(|unit| unit.is_token()) {
            return Err("tokens are priced by the million");
        }
        let factor = |factor: &Decimal| *factor > Decimal::ZERO && *factor <= Decimal::from(100) && factor.scale() <= 6;
        if !self.multipliers.values().all(factor) {
            return Err("a multiplier is more than 0 and at most 100, with up to 6 decimals");
        }
        let share = |share: Decimal| (Decimal::ZERO..=Decimal::ONE).contains(&share) && share.scale() <= 6;
        if !self.discount.is_none_or(share) {
            return Err("a discount is from 0 to 1, with up to 6 decimals");
        }
        let texts = [&self.provider, &self.model, &self.source]
            .into_iter()
            .chain(&self.region);
        let names = texts.chain(self.multipliers.keys());
        if names
            .into_iter()
            .any(|text| text.len() > LONGEST_TEXT || text.contains('\0'))
        {
            return Err("a text has at most 500 bytes and no NUL");
        }
        if self.provider.is_empty() || self.model.is_empty() {
            return Err("a sheet has a provider and a model");
        }
        if self.valid_from.zip(self.valid_to).is_some_and(|(from, to)| to <= from) {
            return Err("valid_to is not after valid_from");
        }
        Ok(())
    }

    fn holds(&self, at: DateTime<Utc>) -> bool {
        self.valid_from.is_none_or(|from| from <= at) && self.valid_to.is_none_or(|to| at < to)
    }

    /// Whether it is for the model of this name.
    #[must_use]
    pub fn is_for(&self, model: &str) -> bool {
        match self.model.strip_suffix('*') {
            Some(beginning) => model.starts_with(beginning),
            None => self.model == model,
        }
    }
}

/// Many sheets.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    by_provider: HashMap<String, Vec<Sheet>>,
}

impl Catalogue {
    /// Reads sheets, one a line, in JSON. `source` is that of the sheets that name none.
    pub fn read(text: &str, source: &str) -> Result<Self, Invalid> {
        let mut sheets = Vec::new();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (index, text) in lines {
            let line = index + 1;
            sheets.push(Sheet::read(text, source).map_err(|reason| Invalid { line, reason })?);
        }
        Ok(sheets.into_iter().collect())
    }

    /// These sheets and those, which are own prices.
    #[must_use]
    pub fn with_own(mut self, own: Self) -> Self {
        for (provider, sheets) in own.by_provider {
            let own = sheets.into_iter().map(|sheet| Sheet { custom: true, ..sheet });
            self.by_provider.entry(provider).or_default().extend(own);
        }
        self
    }

    /// The sheet for a call: of those that hold, the one of its region before one of none, of its very model before the
    /// longest beginning of it, an own price before a list price.
    #[must_use]
    pub fn find(&self, provider: &str, model: &str, region: Option<&str>, at: DateTime<Utc>) -> Option<&Sheet> {
        let sheets = self.by_provider.get(provider)?.iter();
        let fitting = sheets.filter(|sheet| {
            let here = sheet.region.is_none() || sheet.region.as_deref() == region;
            here && sheet.holds(at) && sheet.is_for(model)
        });
        fitting.max_by_key(|sheet| {
            let exact = !sheet.model.ends_with('*');
            (
                sheet.custom,
                sheet.region.is_some(),
                exact,
                sheet.model.len(),
                sheet.valid_from,
            )
        })
    }

    /// All sheets of a provider, or of all, by provider and model.
    pub fn sheets(&self) -> impl Iterator<Item = &Sheet> {
        let mut sheets: Vec<&Sheet> = self.by_provider.values().flatten().collect();
        sheets.sort_by_key(|sheet| (&sheet.provider, &sheet.model, &sheet.region, sheet.valid_from));
        sheets.into_iter()
    }
}

impl FromIterator<Sheet> for Catalogue {
    fn from_iter<I: IntoIterator<Item = Sheet>>(sheets: I) -> Self {
        let mut by_provider: HashMap<String, Vec<Sheet>> = HashMap::new();
        for sheet in sheets {
            by_provider.entry(sheet.provider.clone()).or_default().push(sheet);
        }
        Self { by_provider }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_sheet_can_be_read_and_written_again() {
        let text = include_str!("../catalogue.jsonl");
        let catalogue = Catalogue::read(text, "x").unwrap();
        assert_eq!(catalogue.sheets().count(), text.lines().count());
        for line in text.lines() {
            let sheet: Sheet = serde_json::from_str(line).unwrap();
            let again: Sheet = serde_json::from_str(&serde_json::to_string(&sheet).unwrap()).unwrap();
            assert_eq!(sheet, again);
        }
        let mut names: Vec<_> = catalogue
            .sheets()
            .map(|sheet| (&sheet.provider, &sheet.model, &sheet.region))
            .collect();
        names.dedup();
        assert_eq!(names.len(), text.lines().count(), "a model has two prices");
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_nearest_sheet_is_found() {
        let sheet = |model: &str, more: &str| {
            format!(r#"{{"provider": "p", "model": "{model}", "per_million": {{"input": "1"}}{more}}}"#)
        };
        let text = [
            sheet("m", ""),
            sheet("m", r#", "region": "eu""#),
            sheet("m-*", r#", "source": "short""#),
            sheet("m-1*", r#", "source": "long""#),
            sheet("m-12", r#", "source": "exact""#),
            sheet("old", r#", "valid_to": "2026-01-01T00:00:00Z", "source": "before""#),
            sheet("old", r#", "valid_from": "2026-01-01T00:00:00Z", "source": "after""#),
            sheet("own", ""),
            sheet("own", r#", "custom": true, "source": "contract""#),
        ];
        let catalogue = Catalogue::read(&text.join("\n"), "list").unwrap();
        let now = at("2026-06-01T00:00:00Z");
        let source = |model: &str, at| catalogue.find("p", model, None, at).map(|sheet| sheet.source.as_str());
        assert_eq!(source("m", now), Some("list"));
        assert_eq!(
            catalogue.find("p", "m", Some("eu"), now).unwrap().region.as_deref(),
            Some("eu")
        );
        assert_eq!(catalogue.find("p", "m", Some("mars"), now).unwrap().region, None);
        assert_eq!(
            ["m-2", "m-13", "m-12"].map(|model| source(model, now)),
            [Some("short"), Some("long"), Some("exact")]
        );
        assert_eq!(source("old", at("2025-12-31T23:59:59.999Z")), Some("before"));
        assert_eq!(source("old", at("2026-01-01T00:00:00Z")), Some("after"));
        assert_eq!(source("own", now), Some("contract"));
        assert_eq!(
            (source("other", now), catalogue.find("q", "m", None, now)),
            (None, None)
        );
    }

    #[test]
    fn sheets_with_mistakes_are_refused_with_their_line() {
        let with = |more: &str| format!("\n{{\"provider\": \"p\", \"model\": \"m\"{more}}}");
        for more in [
            ", \"per_million\": {\"inptu\": \"1\"}",
            ", \"per_million\": {\"input@express\": \"1\"}",
            ", \"per_million\": {\"input>many\": \"1\"}",
            ", \"per_million\": {\"web_search\": \"1\"}",
            ", \"per_million\": {\"input\": \"-1\"}",
            ", \"per_million\": {\"input\": \"1000000\"}",
            ", \"per_million\": {\"input\": \"0.0000000001\"}",
            ", \"per_million\": {\"input\": \"one\"}",
            ", \"each\": {\"input\": \"1\"}",
            ", \"multipliers\": {\"eu\": \"0\"}",
            ", \"discount\": \"1.5\"",
            ", \"valid_from\": \"2026-01-01T00:00:00Z\", \"valid_to\": \"2025-01-01T00:00:00Z\"",
            ", \"off_peak\": {\"windows\": [{\"days\": [\"mon\"], \"hours\": [\"22:00-06:00\"]}], \"per_million\": {}}",
            ", \"unknown\": 1",
        ] {
            let refused = Catalogue::read(&with(more), "x").unwrap_err();
            assert_eq!(refused.line, 2, "{more}");
        }
        assert!(Catalogue::read(&with(""), "x").is_ok());
    }

    #[test]
    fn off_peak_is_hours_of_days() {
        let off: OffPeak = serde_json::from_str(
            r#"{"windows": [{"days": ["mon"], "hours": ["04:00-06:00", "10:00-00:00"]}], "per_million": {}}"#,
        )
        .unwrap();
        // 2026-11-23 is a Monday.
        let holds = |time: &str| off.holds(at(&format!("2026-11-23T{time}Z")));
        let found = ["03:59:59", "04:00:00", "05:59:59", "06:00:00", "10:00:00", "23:59:59"].map(holds);
        assert_eq!(found, [false, true, true, false, true, true]);
        assert!(!off.holds(at("2026-11-24T05:00:00Z")));
    }
}
