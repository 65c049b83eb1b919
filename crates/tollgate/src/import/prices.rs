//! Prices of one token, as LiteLLM has them, as rates of a sheet.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

/// Fields and the rates that they are.
const RATES: [(&str, &str); 7] = [
    ("input_cost_per_token", "input"),
    ("output_cost_per_token", "output"),
    ("cache_read_input_token_cost", "cached_input"),
    ("cache_creation_input_token_cost", "cache_write"),
    ("cache_creation_input_token_cost_above_1hr", "cache_write_1h"),
    ("output_cost_per_reasoning_token", "reasoning"),
    ("input_cost_per_audio_token", "audio_input"),
];
const TIERS: [(&str, &str); 4] = [
    ("", ""),
    ("_batches", "@batch"),
    ("_flex", "@flex"),
    ("_priority", "@priority"),
];

/// The sheet of a target that has prices of its own; beside it the fields that are none of ours.
pub(super) fn sheet(provider: &str, model: &str, fields: &[&Map<String, Value>]) -> Option<(Value, Vec<String>)> {
    let (mut rates, mut others) = (Map::new(), Vec::new());
    let priced = |name: &str| name.contains("cost") && (name.contains("per_") || name.contains("token_cost"));
    for (name, value) in fields.iter().copied().flatten().filter(|(name, _)| priced(name)) {
        let known = RATES.iter().flat_map(|rate| TIERS.iter().map(move |tier| (rate, tier)));
        let rate = known
            .into_iter()
            .find(|((field, _), (ending, _))| name.strip_suffix(ending) == Some(field))
            .map(|((_, unit), (_, tier))| format!("{unit}{tier}"));
        match (rate, per_million(value)) {
            (Some(rate), Some(amount)) => drop(rates.insert(rate, amount.into())),
            _ => others.push(name.clone()),
        }
    }
    if rates.is_empty() && others.is_empty() {
        return None;
    }
    let sheet =
        json!({ "provider": provider, "model": model, "per_million": rates, "source": "imported from LiteLLM" });
    Some((sheet, others))
}

/// Dollars for a million, exact, of a number or a text of dollars for one.
fn per_million(value: &Value) -> Option<String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let one = Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text));
    let million = one.ok()?.checked_mul(Decimal::from(1_000_000))?;
    Some(million.normalize().to_string())
}
