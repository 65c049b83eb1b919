//! `tollgate report`: what the ledger says, straight from Postgres.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::Context;
use chrono::NaiveDate;
use tollgate_audit::{Days, Format as Rendering, GroupBy, Page, Table, render, render_table};
use tollgate_types::{Millis, Tenant};

use crate::{
    cli::{By, ReportCommand, ReportFormat, TableArgs, TableCommand, TableFormat},
    reconcile::{self, Reconciling},
};

pub(crate) async fn run(command: ReportCommand) -> anyhow::Result<ExitCode> {
    let (by, since, format, store) = match command {
        ReportCommand::Cost {
            by,
            since,
            format,
            ledger,
        } => (by, since, format, ledger.open()?),
        ReportCommand::Table(command) => return show(command).await,
        ReportCommand::Reconcile {
            bill,
            provider: providers,
            tolerance,
            all,
            format,
            ledger,
        } => {
            let how = Reconciling {
                providers,
                tolerance,
                all,
                format,
            };
            return reconcile::run(&bill, ledger.open()?, how).await;
        }
    };
    let by = match by {
        By::Day => GroupBy::Day,
        By::Model => GroupBy::Model,
        By::Provider => GroupBy::Provider,
        By::Key => GroupBy::Key,
        By::Tag => GroupBy::Tag,
        By::Hour => GroupBy::Hour,
        By::Organisation => GroupBy::Organisation,
        By::Team => GroupBy::Team,
        By::User => GroupBy::User,
        By::Region => GroupBy::Region,
    };
    let now = Millis::now();
    let rows = store.cost(by, &Tenant::default(), start(&since, now)?, now).await?;
    let rendering = match format {
        ReportFormat::Table => Rendering::Table,
        ReportFormat::Csv => Rendering::Csv,
        ReportFormat::Json => Rendering::Json,
        ReportFormat::Chart => Rendering::Chart,
    };
    writeln!(std::io::stdout(), "{}", render(&rows, by, rendering).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

async fn show(command: TableCommand) -> anyhow::Result<ExitCode> {
    let (table, args) = match command {
        TableCommand::UnitPrices(args) => (Table::UnitPrices, args),
        TableCommand::CacheSavings(args) => (Table::CacheSavings, args),
        TableCommand::Retries(args) => (Table::Retries, args),
        TableCommand::Hedges(args) => (Table::Hedges, args),
        TableCommand::Unpriced(args) => (Table::Unpriced, args),
        TableCommand::Orphaned(args) => (Table::Orphaned, args),
        TableCommand::Forecast(args) => (Table::Forecast, args),
        TableCommand::Focus(args) => (Table::Focus, args),
    };
    let TableArgs {
        since,
        organisation,
        team,
        format,
        ledger,
    } = args;
    let tenant = Tenant { organisation, team };
    let days = Days {
        since: day(start(&since, Millis::now())?),
        ..Days::ALL
    };
    let store = ledger.open()?;
    let all = Page {
        limit: u32::MAX,
        offset: 0,
    };
    let rows = store.table(table, &tenant, days, all).await?;
    let rendering = match format {
        TableFormat::Table => Rendering::Table,
        TableFormat::Csv => Rendering::Csv,
        TableFormat::Json => Rendering::Json,
    };
    writeln!(
        std::io::stdout(),
        "{}",
        render_table(table, &rows, rendering).trim_end()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn day(time: Millis) -> NaiveDate {
    time.to_datetime().date_naive()
}

/// The point in time that lies `since` before `now`; 0 is the beginning.
fn start(since: &str, now: Millis) -> anyhow::Result<Millis> {
    if since == "0" {
        return Ok(Millis(0));
    }
    let span = span(since).with_context(|| format!("{since:?} is no span of time: write 30m, 12h or 7d"))?;
    Ok(Millis(
        now.0
            .saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
    ))
}

fn span(text: &str) -> Option<Duration> {
    let number = text.get(..text.len().checked_sub(1)?)?.parse::<u64>().ok()?;
    let seconds = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        b'w' => 604_800,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        let now = Millis(10 * 86_400_000);
        assert_eq!(start("7d", now).unwrap(), Millis(3 * 86_400_000));
        assert_eq!(start("0", now).unwrap(), Millis(0));
        assert_eq!(start("9999w", now).unwrap(), Millis(0));
        for nonsense in ["", "d", "-1d", "7", "7 d", "7µ", "99999999999999999999d"] {
            assert!(start(nonsense, now).is_err(), "{nonsense}");
        }
    }
}
