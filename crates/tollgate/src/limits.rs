//! `tollgate limits`: budgets and rate limits.

use std::io::Write;

use anyhow::{Context, bail};
use chrono::DateTime;
use serde_json::json;
use tollgate_proto::v1::{
    Limit, LimitScope, LimitState, ListLimitsRequest, PutLimitRequest, RemoveLimitRequest, TopUpRequest,
    limits_client::LimitsClient,
};

use crate::{
    chat::{Connected, authorized, connect_audit, refused},
    cli::{Format, LimitsCommand, PutLimitArgs},
    keys::columns,
};

pub(crate) async fn run(command: LimitsCommand) -> anyhow::Result<()> {
    let text = match command {
        LimitsCommand::Put(args) => {
            let endpoint = args.endpoint.clone();
            let limit = Some(limit(*args)?);
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let put = LimitsClient::new(channel)
                .put(authorized(PutLimitRequest { limit }, &bearer))
                .await;
            table(&[put.map_err(|status| refused(&status))?.into_inner()])
        }
        LimitsCommand::List {
            tenant,
            format,
            endpoint,
        } => {
            let request = ListLimitsRequest {
                organisation: tenant.organisation.unwrap_or_default(),
                team: tenant.team.unwrap_or_default(),
            };
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let listed = LimitsClient::new(channel).list(authorized(request, &bearer)).await;
            let limits = listed.map_err(|status| refused(&status))?.into_inner().limits;
            match format {
                Format::Table | Format::Csv => table(&limits),
                Format::Json => {
                    let all: Vec<_> = limits.iter().map(json_of).collect();
                    serde_json::to_string_pretty(&all)?
                }
            }
        }
        LimitsCommand::TopUp { limit, usd, endpoint } => {
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let done = LimitsClient::new(channel)
                .top_up(authorized(TopUpRequest { limit, usd }, &bearer))
                .await;
            table(&[done.map_err(|status| refused(&status))?.into_inner()])
        }
        LimitsCommand::Remove { limit, endpoint } => {
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let done = LimitsClient::new(channel)
                .remove(authorized(RemoveLimitRequest { limit: limit.clone() }, &bearer))
                .await;
            done.map_err(|status| refused(&status))?;
            format!("{limit} is removed")
        }
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

/// What is counted, how much of it, and in what time.
fn limit(args: PutLimitArgs) -> anyhow::Result<Limit> {
    let counts = [
        ("usd", args.usd),
        ("requests", args.requests.map(|count| count.to_string())),
        ("input_tokens", args.input_tokens.map(|count| count.to_string())),
        ("output_tokens", args.output_tokens.map(|count| count.to_string())),
        ("tokens", args.tokens.map(|count| count.to_string())),
        ("concurrency", args.concurrency.map(|count| count.to_string())),
    ];
    let mut given = counts
        .into_iter()
        .filter_map(|(measure, amount)| Some((measure, amount?)));
    let (Some((measure, amount)), None) = (given.next(), given.next()) else {
        bail!("give one of --usd, --requests, --input-tokens, --output-tokens, --tokens and --concurrency");
    };
    let (mut period, mut window_seconds) = (String::new(), 0);
    match (measure, args.per) {
        ("usd", per) => period = per.unwrap_or_else(|| "total".to_owned()),
        ("concurrency", None) => {}
        ("concurrency", Some(_)) => bail!("--per: --concurrency counts at every moment"),
        (_, per) => window_seconds = seconds(&per.context("--per: give a time, as 60s, 1m or 1h")?)?,
    }
    Ok(Limit {
        name: args.name,
        scope: Some(LimitScope {
            organisation: args.tenant.organisation.unwrap_or_default(),
            team: args.tenant.team.unwrap_or_default(),
            key: args.key.unwrap_or_default(),
            tag: args.tag.unwrap_or_default(),
            model: args.model.unwrap_or_default(),
            provider: args.provider.unwrap_or_default(),
        }),
        measure: measure.to_owned(),
        amount,
        period,
        time_zone: args.time_zone.unwrap_or_default(),
        window_seconds,
        when_away: args.when_away.unwrap_or_default(),
        notify_at: args.notify_at,
        webhook: args.webhook.unwrap_or_default(),
    })
}

fn seconds(text: &str) -> anyhow::Result<u32> {
    let unit = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = number
        .parse::<u32>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    seconds.with_context(|| format!("--per: {text:?} is no time: write 60s, 1m or 1h"))
}

/// What a limit is for, in a few words.
fn scope_text(state: &LimitState) -> String {
    let scope = state
        .limit
        .as_ref()
        .and_then(|limit| limit.scope.clone())
        .unwrap_or_default();
    let key = if state.key_name.is_empty() {
        &scope.key
    } else {
        &state.key_name
    };
    let parts = [
        ("organisation", &scope.organisation),
        ("team", &scope.team),
        ("key", key),
        ("tag", &scope.tag),
        ("model", &scope.model),
        ("provider", &scope.provider),
    ];
    let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
    let text = parts
        .map(|(name, value)| format!("{name} {value}"))
        .collect::<Vec<_>>()
        .join(", ");
    if text.is_empty() { "everybody".to_owned() } else { text }
}

fn per_text(limit: &Limit) -> String {
    match limit.window_seconds {
        0 => [limit.period.as_str(), limit.time_zone.as_str()]
            .join(" ")
            .trim()
            .to_owned(),
        seconds => format!("{seconds} s"),
    }
}

fn resets_text(state: &LimitState) -> String {
    let at = state.resets_at_unix_ms.and_then(|at| i64::try_from(at).ok());
    let at = at.and_then(DateTime::from_timestamp_millis);
    at.map(|at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

fn json_of(state: &LimitState) -> serde_json::Value {
    let limit = state.limit.clone().unwrap_or_default();
    json!({
        "id": state.id,
        "name": limit.name,
        "for": scope_text(state),
        "measure": limit.measure,
        "amount": limit.amount,
        "per": per_text(&limit),
        "spent": state.spent,
        "leased": state.leased,
        "resets_at": Some(resets_text(state)).filter(|text| !text.is_empty()),
        "when_away": limit.when_away,
        "notify_at": limit.notify_at,
        "webhook": limit.webhook,
    })
}

fn table(limits: &[LimitState]) -> String {
    let row = |state: &LimitState| {
        let limit = state.limit.clone().unwrap_or_default();
        let spent = if limit.measure == "usd" {
            state.spent.clone()
        } else {
            String::new()
        };
        [
            limit.name.clone(),
            scope_text(state),
            format!("{} {}", limit.amount, limit.measure),
            per_text(&limit),
            spent,
            state.leased.clone(),
            resets_text(state),
            limit.when_away,
        ]
    };
    columns(
        ["NAME", "FOR", "LIMIT", "PER", "SPENT", "LEASED", "RESETS", "WHEN AWAY"],
        limits.iter().map(row),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_full() {
        let read = |text| seconds(text).ok();
        assert_eq!(
            [read("90"), read("60s"), read("1m"), read("2h"), read("1d")],
            [Some(90), Some(60), Some(60), Some(7200), Some(86_400)]
        );
        assert_eq!(
            [read(""), read("m"), read("1w"), read("-1s"), read("99999999d")],
            [None; 5]
        );
    }
}
