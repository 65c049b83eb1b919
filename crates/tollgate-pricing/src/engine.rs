//! From what was used to what it costs.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;

use crate::{
    sheet::Sheet,
    unit::{Tier, Unit},
    usage::Consumption,
};

/// How a call was served, where its provider does not say so itself.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// When it started.
    pub at: DateTime<Utc>,
    pub tier: Option<Tier>,
    pub region: Option<String>,
}

/// What a call costs, and why. Amounts are exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breakdown {
    pub tier: Tier,
    /// The size of prompt, in tokens, that this one passes and that has rates of its own; 0 for none.
    pub above_input_tokens: u64,
    pub off_peak: bool,
    pub components: Vec<Component>,
    pub multipliers: Vec<Multiplier>,
    /// The sum of the components, tokens with their multipliers; none when a part has no rate and the provider said the
    /// whole.
    pub computed_usd: Option<Decimal>,
    /// What the provider says, in place of the sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated_usd: Option<Decimal>,
    /// What is taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount_usd: Option<Decimal>,
    pub total_usd: Decimal,
}

/// One unit's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    pub unit: Unit,
    pub quantity: u64,
    /// US dollars for `per`.
    pub rate: Decimal,
    /// A million of tokens, or one.
    pub per: u32,
    pub usd: Decimal,
}

/// A factor on the tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Multiplier {
    pub name: String,
    pub factor: Decimal,
}

/// Units that were used, and ways in which the call was served, that have no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sheet has no rate for {}", .0.join(", "))]
pub struct Unpriced(pub Vec<String>);

/// Providers whose own figure is in another unit, or leaves something out.
const NOT_BELIEVED: [&str; 2] = ["perplexity", "xai"];

/// What `used` costs by the sheet.
///
/// The tier is the one that the provider says it served. The size of the prompt decides for all of the call. A unit
/// without a rate costs as the one that it stands beside; of one unit, the rate for size and tier goes before the rate for
/// the size, then the tier, then neither; what is served as a batch and has no rate for it costs half. An explicit zero is
/// free.
pub fn cost(sheet: &Sheet, used: &Consumption, how: &Circumstances) -> Result<Breakdown, Unpriced> {
    let tier = used.tier.or(how.tier).unwrap_or(Tier::Standard);
    let terms = Terms {
        sheet,
        tier,
        above: sheet.per_million.size(used.prompt_tokens, sheet.inclusive),
        off_peak: sheet.off_peak.as_ref().is_some_and(|off| off.holds(how.at)),
    };
    let (mut components, mut unpriced) = (Vec::new(), Vec::new());
    for (unit, quantity) in used.quantities.iter().filter(|(_, quantity)| **quantity > 0) {
        match terms.rate(*unit) {
            Some(rate) => components.push(Component::new(*unit, *quantity, rate)),
            None => unpriced.push(unit.to_string()),
        }
    }
    let multipliers = multipliers(sheet, used, how);
    let named = |name: &String| multipliers.iter().any(|multiplier| multiplier.name == *name);
    unpriced.extend(used.served.iter().filter(|name| !named(name)).cloned());
    let believed = !sheet.custom && !NOT_BELIEVED.contains(&sheet.provider.as_str());
    let stated = used.stated_usd.filter(|_| believed);
    if stated.is_none() && !unpriced.is_empty() {
        return Err(Unpriced(unpriced));
    }
    let factor: Decimal = multipliers.iter().map(|multiplier| multiplier.factor).product();
    let sum = |tokens| -> Decimal {
        let of = components
            .iter()
            .filter(|component| component.unit.is_token() == tokens);
        of.map(|component| component.usd).sum()
    };
    let computed = (sum(true) * factor + sum(false)).normalize();
    let whole = stated.unwrap_or(computed);
    let discount = sheet.discount.map(|share| (whole * share).normalize());
    Ok(Breakdown {
        tier,
        above_input_tokens: terms.above,
        off_peak: terms.off_peak,
        components,
        multipliers,
        computed_usd: unpriced.is_empty().then_some(computed),
        stated_usd: stated,
        discount_usd: discount,
        total_usd: (whole - discount.unwrap_or_default()).normalize(),
    })
}

fn multipliers(sheet: &Sheet, used: &Consumption, how: &Circumstances) -> Vec<Multiplier> {
    // A sheet of the region has its prices already.
    let region = how.region.as_ref().filter(|_| sheet.region.is_none());
    let said = used.served.iter().chain(region);
    let of = |name: &String| {
        let factor = *sheet.multipliers.get(name)?;
        Some(Multiplier {
            name: name.clone(),
            factor,
        })
    };
    said.filter_map(of).collect()
}

/// By which rates a call is priced.
struct Terms<'a> {
    sheet: &'a Sheet,
    tier: Tier,
    above: u64,
    off_peak: bool,
}

impl Terms<'_> {
    fn rate(&self, unit: Unit) -> Option<Decimal> {
        let own = if unit.is_token() {
            self.token_rate(unit)
        } else {
            self.sheet.each.get(&unit).copied()
        };
        own.or_else(|| self.rate(unit.stand_in()?))
    }

    fn token_rate(&self, unit: Unit) -> Option<Decimal> {
        let sizes = if self.above > 0 { vec![self.above, 0] } else { vec![0] };
        sizes.into_iter().find_map(|above| {
            let served = self.listed(unit, above, self.tier);
            served.or_else(|| {
                let standard = self.listed(unit, above, Tier::Standard)?;
                Some(if self.tier == Tier::Batch {
                    standard / Decimal::TWO
                } else {
                    standard
                })
            })
        })
    }

    fn listed(&self, unit: Unit, above: u64, tier: Tier) -> Option<Decimal> {
        let off_peak = self.sheet.off_peak.as_ref().filter(|_| self.off_peak);
        off_peak
            .and_then(|off| off.per_million.get(unit, above, tier))
            .or_else(|| self.sheet.per_million.get(unit, above, tier))
    }
}

impl Component {
    fn new(unit: Unit, quantity: u64, rate: Decimal) -> Self {
        let per = if unit.is_token() { 1_000_000 } else { 1 };
        Self {
            unit,
            quantity,
            rate: rate.normalize(),
            per,
            usd: (rate * Decimal::from(quantity) / Decimal::from(per)).normalize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sheet(rest: &str) -> Sheet {
        serde_json::from_str(&format!(r#"{{"provider": "p", "model": "m", {rest}}}"#)).unwrap()
    }

    fn used(quantities: &[(Unit, u64)]) -> Consumption {
        Consumption {
            quantities: quantities.iter().copied().collect(),
            prompt_tokens: 1000,
            ..Consumption::default()
        }
    }

    fn usd(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn total(sheet: &Sheet, used: &Consumption) -> Decimal {
        cost(sheet, used, &Circumstances::default()).unwrap().total_usd
    }

    #[test]
    fn a_unit_without_a_rate_costs_as_its_stand_in_and_a_zero_is_free() {
        let plain = sheet(r#""per_million": {"input": "3", "output": "15"}"#);
        let all: BTreeMap<Unit, u64> = Unit::ALL
            .iter()
            .filter(|unit| unit.is_token() && **unit != Unit::Citation)
            .map(|unit| (*unit, 1_000_000))
            .collect();
        let input = all.keys().filter(|unit| **unit < Unit::Output).count();
        let expected = Decimal::from(3 * input + 15 * (all.len() - input));
        let every = Consumption {
            quantities: all,
            ..Consumption::default()
        };
        assert_eq!(total(&plain, &every), expected);
        let free = sheet(r#""per_million": {"input": "3", "output": "15", "cached_input": "0", "reasoning": "0"}"#);
        let cached = used(&[
            (Unit::CachedInput, 9),
            (Unit::CachedAudioInput, 9),
            (Unit::Reasoning, 9),
        ]);
        assert_eq!(total(&free, &cached), Decimal::ZERO);
        let refused = cost(
            &plain,
            &used(&[(Unit::WebSearch, 1), (Unit::Citation, 1)]),
            &Circumstances::default(),
        );
        let unpriced = ["citation", "web_search"].map(str::to_owned).to_vec();
        assert_eq!(refused, Err(Unpriced(unpriced)));
    }

    #[test]
    fn size_and_tier_decide_for_the_whole_call() {
        let sheet = sheet(
            r#""per_million": {"input": "1", "input>1000": "2", "input>2000": "4", "input@flex": "0.5",
               "input>1000@priority": "3", "output": "10", "output>1000": "20", "output@batch": "4"}"#,
        );
        let of = |prompt_tokens, tier| {
            let used = Consumption {
                prompt_tokens,
                tier: Some(tier),
                ..used(&[(Unit::Input, 1_000_000), (Unit::Output, 1_000_000)])
            };
            total(&sheet, &used)
        };
        use Tier::{Batch, Flex, Priority, Standard};
        assert_eq!(of(1000, Standard), usd("11"));
        assert_eq!(of(1001, Standard), usd("22"));
        // Above 2000 the output has no rate of its own: it falls back to the one of no size.
        assert_eq!(of(2001, Standard), usd("14"));
        assert_eq!(of(1000, Flex), usd("10.5"));
        assert_eq!(of(1001, Flex), usd("22"));
        assert_eq!(of(1001, Priority), usd("23"));
        assert_eq!(of(1000, Priority), usd("11"));
        // Half where a batch has no rate.
        assert_eq!(of(1000, Batch), usd("4.5"));
        assert_eq!(of(1001, Batch), usd("11"));
    }

    #[test]
    fn a_prompt_of_exactly_the_size_belongs_where_the_provider_says() {
        let rates = r#""per_million": {"input": "1", "input>1000": "2"}"#;
        let at_the_size = used(&[(Unit::Input, 1_000_000)]);
        assert_eq!(total(&sheet(rates), &at_the_size), usd("1"));
        assert_eq!(
            total(&sheet(&format!(r#"{rates}, "inclusive": true"#)), &at_the_size),
            usd("2")
        );
    }

    #[test]
    fn multipliers_are_for_tokens_and_a_discount_for_all() {
        let sheet = sheet(
            r#""per_million": {"input": "10"}, "each": {"web_search": "0.01"}, "multipliers": {"eu": "1.1", "us": "1.2"},
               "discount": "0.25""#,
        );
        let how = Circumstances {
            region: Some("eu".to_owned()),
            ..Circumstances::default()
        };
        let used = used(&[(Unit::Input, 100_000), (Unit::WebSearch, 2)]);
        let fast = Consumption {
            served: vec!["fast".to_owned()],
            ..used.clone()
        };
        assert_eq!(cost(&sheet, &fast, &how), Err(Unpriced(fast.served.clone())));
        let found = cost(&sheet, &used, &how).unwrap();
        // 1 × 1.1 + 0.02, less a quarter.
        assert_eq!((found.computed_usd, found.total_usd), (Some(usd("1.12")), usd("0.84")));
        assert_eq!(found.discount_usd, Some(usd("0.28")));
    }

    #[test]
    fn what_the_provider_says_goes_before_the_sum_unless_the_price_is_our_own() {
        let of = |sheet: &Sheet| {
            let used = Consumption {
                stated_usd: Some(usd("0.5")),
                ..used(&[(Unit::Input, 1_000_000)])
            };
            total(sheet, &used)
        };
        let list = sheet(r#""per_million": {"input": "1"}"#);
        assert_eq!(of(&list), usd("0.5"));
        assert_eq!(
            of(&Sheet {
                custom: true,
                ..list.clone()
            }),
            usd("1")
        );
        let provider = "xai".to_owned();
        assert_eq!(of(&Sheet { provider, ..list }), usd("1"));
        // Whoever says the whole need not have rates for the parts.
        assert_eq!(of(&Sheet::unlisted("p", "m")), usd("0.5"));
    }

    #[test]
    fn off_peak_rates_hold_at_their_hours() {
        let sheet = sheet(
            r#""per_million": {"input": "2", "output": "8"}, "off_peak": {"per_million": {"input": "1"},
               "windows": [{"days": ["mon"], "hours": ["04:00-06:00"]}]}"#,
        );
        let at = |text: &str| {
            let how = Circumstances {
                at: text.parse().unwrap(),
                ..Circumstances::default()
            };
            let found = cost(
                &sheet,
                &used(&[(Unit::Input, 1_000_000), (Unit::Output, 1_000_000)]),
                &how,
            )
            .unwrap();
            (found.off_peak, found.total_usd)
        };
        assert_eq!(at("2026-11-23T05:00:00Z"), (true, usd("9")));
        assert_eq!(at("2026-11-23T06:00:00Z"), (false, usd("10")));
    }

    #[test]
    fn the_largest_quantities_do_not_overflow() {
        let dear = sheet(r#""per_million": {"input": "999999.999999999", "output": "999999.999999999"}"#);
        let most = i64::MAX as u64 / 1_000_000;
        assert!(total(&dear, &used(&[(Unit::Input, most), (Unit::Output, most)])) > Decimal::ZERO);
    }
}
