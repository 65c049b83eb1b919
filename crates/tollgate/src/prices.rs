//! `tollgate prices`: price sheets, and what calls cost by them. Needs nothing that runs.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tollgate_pricing::{Breakdown, Catalogue, Circumstances, Sheet, Tier, cost, read, shipped};

use crate::cli::{PricesCommand, Sheets};

/// An answer with its usage is not larger, nor is a file of sheets.
const LARGEST: u64 = 64 << 20;

pub(crate) fn run(command: PricesCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        PricesCommand::Cost {
            provider,
            model,
            usage,
            tier,
            region,
            at,
            sheets,
        } => {
            let how = Circumstances {
                at: at.unwrap_or_else(Utc::now),
                tier: tier.map(|name| served(&name)).transpose()?,
                region,
            };
            let text = content(&usage).context("cannot read the usage")?;
            let found = priced(&catalogue(&sheets)?, &provider, &model, &text, &how)?;
            writeln!(out, "{found}")?;
        }
        PricesCommand::Show {
            provider,
            model,
            sheets,
        } => {
            let catalogue = catalogue(&sheets)?;
            let wanted = |sheet: &&Sheet| {
                provider.as_ref().is_none_or(|provider| sheet.provider == *provider)
                    && model.as_ref().is_none_or(|model| sheet.is_for(model))
            };
            let mut none = true;
            for sheet in catalogue.sheets().filter(wanted) {
                none = false;
                writeln!(out, "{}", serde_json::to_string(sheet)?)?;
            }
            ensure!(!none, "no sheet is for that");
        }
    }
    Ok(())
}

fn served(name: &str) -> anyhow::Result<Tier> {
    Tier::of_provider(name).ok_or_else(|| {
        let known: Vec<_> = Tier::ALL.iter().map(|tier| tier.as_str()).collect();
        anyhow!("the tier is one of {}", known.join(", "))
    })
}

fn content(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(LARGEST + 1).read_to_string(&mut text)
    } else {
        File::open(file)?.take(LARGEST + 1).read_to_string(&mut text)
    };
    ensure!(read? as u64 <= LARGEST, "it is larger than 64 MiB");
    Ok(text)
}

fn catalogue(sheets: &Sheets) -> anyhow::Result<Catalogue> {
    let Some(file) = &sheets.sheets else {
        return Ok(shipped().clone());
    };
    let source = file.display().to_string();
    let text = content(file).with_context(|| format!("cannot read {source}"))?;
    let own = Catalogue::read(&text, &source).map_err(|invalid| anyhow!("{source}: {invalid}"))?;
    Ok(shipped().clone().with_own(own))
}

/// What a call costs and by which sheet.
#[derive(Serialize)]
struct Priced<'a> {
    provider: &'a str,
    model: &'a str,
    sheet: Found<'a>,
    #[serde(flatten)]
    breakdown: Breakdown,
}

#[derive(Serialize)]
struct Found<'a> {
    model: &'a str,
    region: Option<&'a str>,
    valid_from: Option<DateTime<Utc>>,
    source: &'a str,
}

fn priced(
    catalogue: &Catalogue,
    provider: &str,
    model: &str,
    usage: &str,
    how: &Circumstances,
) -> anyhow::Result<String> {
    let usage = serde_json::from_str(usage).context("the usage is not JSON")?;
    let used = read(&usage).map_err(|none| anyhow!("the usage cannot be read: {none}"))?;
    let listed = catalogue.find(provider, model, how.region.as_deref(), how.at);
    // Of a provider that states the cost, no sheet is needed.
    let stated = || used.stated_usd.map(|_| Sheet::unlisted(provider, model));
    let sheet = listed
        .cloned()
        .or_else(stated)
        .with_context(|| format!("there is no price for {model:?} of {provider:?}; `--sheets FILE` adds one"))?;
    let breakdown = cost(&sheet, &used, how)?;
    let priced = Priced {
        provider,
        model,
        sheet: Found {
            model: &sheet.model,
            region: sheet.region.as_deref(),
            valid_from: sheet.valid_from,
            source: &sheet.source,
        },
        breakdown,
    };
    Ok(serde_json::to_string_pretty(&priced)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(provider: &str, model: &str, usage: &str) -> anyhow::Result<serde_json::Value> {
        let text = priced(shipped(), provider, model, usage, &Circumstances::default())?;
        Ok(serde_json::from_str(&text)?)
    }

    #[test]
    fn calls_cost_what_a_hand_calculation_says() {
        let usage =
            r#"{"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}"#;
        let found = of("openai", "gpt-4o-mini", usage).unwrap();
        // 600 × 0.15 + 400 × 0.075 + 100 × 0.60 = 180 millionths
        assert_eq!(found["total_usd"], "0.00018");
        assert_eq!(found["components"][1]["unit"], "cached_input");
        assert_eq!(found["components"][1]["usd"], "0.00003");
        let usage = r#"{"input_tokens": 10, "output_tokens": 100, "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 300, "cache_creation": {"ephemeral_1h_input_tokens": 200}}"#;
        let found = of("anthropic", "claude-sonnet-4-5-20250929", usage).unwrap();
        // 10 × 3 + 1000 × 0.30 + 100 × 3.75 + 200 × 6 + 100 × 15 = 3405 millionths
        assert_eq!(found["total_usd"], "0.003405");
        let usage = r#"{"usageMetadata": {"promptTokenCount": 250000, "candidatesTokenCount": 100, "thoughtsTokenCount": 900}}"#;
        let found = of("gemini", "gemini-2.5-pro", usage).unwrap();
        // Above 200,000 tokens: 250000 × 2.5 + 1000 × 15 millionths
        assert_eq!(
            (&found["total_usd"], &found["above_input_tokens"]),
            (&"0.64".into(), &200_000.into())
        );
        let usage = r#"{"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.00014}"#;
        let found = of("openrouter", "anyone/anything", usage).unwrap();
        assert_eq!(found["total_usd"], "0.00014");
        // In the United States alone: a tenth more.
        let usage =
            r#"{"input_tokens": 1000000, "cache_read_input_tokens": 0, "output_tokens": 0, "inference_geo": "us"}"#;
        let found = of("anthropic", "claude-sonnet-4-5-20250929", usage).unwrap();
        // Of a prompt of a million tokens.
        assert_eq!(found["multipliers"][0]["factor"], "1.1");
        assert_eq!(found["total_usd"], "3.3");
    }

    #[test]
    fn what_cannot_be_priced_says_why() {
        let why = |provider, model, usage| of(provider, model, usage).unwrap_err().to_string();
        assert!(why("openai", "gpt-nothing", r#"{"prompt_tokens": 1}"#).contains("no price for \"gpt-nothing\""));
        assert!(why("openai", "gpt-4o", "{").contains("not JSON"));
        assert!(why("openai", "gpt-4o", "{}").contains("expected a usage"));
        let searched = r#"{"usage": {"input_tokens": 1}, "output": [{"type": "file_search_call"}]}"#;
        assert!(why("openai", "gpt-4o", searched).contains("no rate for file_search"));
    }
}
