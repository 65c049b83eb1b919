//! `tollgate prices`: price sheets, and what calls cost by them; what is shipped without anything that runs, what was entered over gRPC.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tollgate_pricing::{Breakdown, Catalogue, Circumstances, Sheet, Tier, Unit, cost, read, shipped};
use tollgate_proto::v1::{ImportPricesRequest, ImportPricesResponse, ListPricesRequest, prices_client::PricesClient};

use crate::{
    chat::{Connected, authorized, connect_audit, refused},
    cli::{AuditEndpoint, PricesCommand, Sheets},
};

/// An answer with its usage is not larger, nor is a file of sheets.
const LARGEST: u64 = 64 << 20;
/// Largest answer of audit, in bytes.
const MOST_LISTED: usize = 64 << 20;

pub(crate) async fn run(command: PricesCommand) -> anyhow::Result<()> {
    let text = match command {
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
            priced(&catalogue(&sheets)?, &provider, &model, &text, &how)?
        }
        PricesCommand::Show {
            provider,
            model,
            live: true,
            all,
            endpoint,
            ..
        } => live(provider, model, all, endpoint).await?,
        PricesCommand::Show {
            provider,
            model,
            sheets,
            ..
        } => shown(&catalogue(&sheets)?, provider.as_deref(), model.as_deref())?,
        PricesCommand::Import { file, endpoint } => import(&file, false, endpoint).await?,
        PricesCommand::Diff { file, endpoint } => import(&file, true, endpoint).await?,
        PricesCommand::Set {
            provider,
            model,
            rates,
            discount,
            region,
            from,
            source,
            endpoint,
        } => {
            let sheet = sheet(&provider, &model, &rates)?;
            let sheet = Sheet {
                discount: discount
                    .map(|share| share.parse().context("the discount is a number from 0 to 1"))
                    .transpose()?,
                region,
                valid_from: from,
                source,
                ..sheet
            };
            enter(serde_json::to_string(&sheet)?, "set by hand", false, endpoint).await?
        }
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

fn shown(catalogue: &Catalogue, provider: Option<&str>, model: Option<&str>) -> anyhow::Result<String> {
    let wanted = |sheet: &&Sheet| {
        provider.is_none_or(|provider| sheet.provider == provider) && model.is_none_or(|model| sheet.is_for(model))
    };
    let lines: Result<Vec<_>, _> = catalogue.sheets().filter(wanted).map(serde_json::to_string).collect();
    let lines = lines?;
    ensure!(!lines.is_empty(), "no sheet is for that");
    Ok(lines.join("\n"))
}

async fn live(
    provider: Option<String>,
    model: Option<String>,
    all: bool,
    endpoint: AuditEndpoint,
) -> anyhow::Result<String> {
    let Connected { channel, bearer } = connect_audit(endpoint).await?;
    let request = ListPricesRequest {
        provider: provider.unwrap_or_default(),
        model: model.unwrap_or_default(),
        at_unix_ms: 0,
        all,
    };
    let listed = PricesClient::new(channel)
        .max_decoding_message_size(MOST_LISTED)
        .list(authorized(request, &bearer))
        .await
        .map_err(|status| refused(&status))?;
    let lines: Vec<_> = listed.into_inner().sheets.into_iter().map(|sheet| sheet.json).collect();
    ensure!(!lines.is_empty(), "no sheet is for that");
    Ok(lines.join("\n"))
}

async fn import(file: &Path, dry_run: bool, endpoint: AuditEndpoint) -> anyhow::Result<String> {
    let source = file.display().to_string();
    let sheets = content(file).with_context(|| format!("cannot read {source}"))?;
    // Mistakes are told with the line, before anything is sent.
    Catalogue::read(&sheets, &source).map_err(|invalid| anyhow!("{source}: {invalid}"))?;
    enter(sheets, &source, dry_run, endpoint).await
}

/// Enters sheets, or says what that would change.
async fn enter(sheets: String, source: &str, dry_run: bool, endpoint: AuditEndpoint) -> anyhow::Result<String> {
    let Connected { channel, bearer } = connect_audit(endpoint).await?;
    let request = ImportPricesRequest {
        sheets,
        source: source.to_owned(),
        dry_run,
    };
    let done = PricesClient::new(channel)
        .max_decoding_message_size(MOST_LISTED)
        .import(authorized(request, &bearer))
        .await
        .map_err(|status| refused(&status))?;
    Ok(changes(done.get_ref(), dry_run))
}

fn changes(done: &ImportPricesResponse, dry_run: bool) -> String {
    let mut text = String::new();
    for change in &done.changes {
        if !change.before_json.is_empty() {
            text += &format!("- {}\n", change.before_json);
        }
        text += &format!("+ {}\n", change.after_json);
    }
    let changed = done.changes.len();
    let verb = if dry_run { "would change" } else { "changed" };
    text + &format!("{changed} {verb}, {} as before", done.unchanged)
}

/// A sheet of rates written `unit=amount`.
fn sheet(provider: &str, model: &str, rates: &[String]) -> anyhow::Result<Sheet> {
    let (mut per_million, mut each) = (serde_json::Map::new(), serde_json::Map::new());
    for rate in rates {
        let (name, amount) = rate
            .split_once('=')
            .with_context(|| format!("{rate}: expected UNIT=USD"))?;
        let single = name.parse::<Unit>().is_ok_and(|unit| !unit.is_token());
        let rates = if single { &mut each } else { &mut per_million };
        ensure!(
            rates.insert(name.to_owned(), amount.into()).is_none(),
            "{name} is given twice"
        );
    }
    let sheet = serde_json::json!({ "provider": provider, "model": model, "per_million": per_million, "each": each });
    Sheet::read(&sheet.to_string(), "set by hand").map_err(|reason| anyhow!(reason))
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
    fn rates_are_named_by_their_unit() {
        let rates = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            sheet("p", "m", &texts).map_err(|error| error.to_string())
        };
        let found = rates(&["input=3", "input@batch=1.5", "input>200000=6", "web_search=0.01"]).unwrap();
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["per_million"]["input>200000"], "6");
        assert_eq!(json["each"]["web_search"], "0.01");
        for (bad, why) in [
            (&["input"][..], "expected unit=usd"),
            (&["inptu=1"], "not known"),
            (&["input=1", "input=2"], "given twice"),
            (&["input=-1"], "from 0"),
            (&["input=many"], "invalid"),
        ] {
            let said = rates(bad).unwrap_err().to_lowercase();
            assert!(said.contains(why), "{bad:?}: {said}");
        }
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
