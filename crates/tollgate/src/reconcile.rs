//! `tollgate report reconcile`: a provider's bill against the ledger.

use std::{
    io::{Read, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use rust_decimal::Decimal;
use serde_json::json;
use tollgate_audit::{Compared, Store, Verdict, read_bill};

use crate::{cli::Format, keys::columns};

/// What to compare, and how.
pub(crate) struct Reconciling {
    pub(crate) providers: Vec<String>,
    pub(crate) tolerance: Decimal,
    /// Lines that are equal are told too.
    pub(crate) all: bool,
    pub(crate) format: Format,
}

const HEADER: [&str; 8] = [
    "day",
    "model",
    "measure",
    "billed",
    "ledger",
    "difference",
    "estimated",
    "verdict",
];

pub(crate) async fn run(bill: &Path, store: Store, how: Reconciling) -> anyhow::Result<ExitCode> {
    let text = if bill == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(bill)
    };
    let text = text.with_context(|| format!("cannot read {}", bill.display()))?;
    let read = read_bill(&text).with_context(|| format!("{}", bill.display()))?;
    let compared = store.reconcile(&read, &how.providers, how.tolerance).await?;
    let differs = compared.iter().any(|line| line.verdict == Verdict::Differs);
    let shown: Vec<_> = compared
        .iter()
        .filter(|line| how.all || line.verdict != Verdict::Equal)
        .collect();
    let mut out = std::io::stdout();
    match how.format {
        Format::Json => {
            let lines: Vec<_> = shown.iter().map(|line| object(line)).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&lines)?)?;
        }
        Format::Csv => {
            writeln!(out, "{}", HEADER.join(","))?;
            for line in &shown {
                writeln!(out, "{}", cells(line).map(|cell| csv_cell(&cell)).join(","))?;
            }
        }
        Format::Table => {
            if !shown.is_empty() {
                writeln!(out, "{}", columns(HEADER, shown.iter().map(|line| cells(line))))?;
            }
            let count = |verdict| compared.iter().filter(|line| line.verdict == verdict).count();
            writeln!(
                out,
                "{} lines: {} equal, {} within what the ledger estimates, {} without a price here, {} differ",
                compared.len(),
                count(Verdict::Equal),
                count(Verdict::Estimated),
                count(Verdict::Unpriced),
                count(Verdict::Differs),
            )?;
        }
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn day(line: &Compared) -> String {
    line.day.map_or_else(|| "all days".to_owned(), |day| day.to_string())
}

fn cells(line: &Compared) -> [String; 8] {
    let model = match line.model.as_str() {
        "" => "all models".to_owned(),
        model => model
            .chars()
            .map(|one| if one.is_control() { '\u{fffd}' } else { one })
            .collect(),
    };
    let number = |amount: Decimal| amount.normalize().to_string();
    [
        day(line),
        model,
        line.measure.as_str().to_owned(),
        number(line.billed),
        number(line.ledger),
        number(line.billed - line.ledger),
        number(line.estimated),
        line.verdict.as_str().to_owned(),
    ]
}

fn csv_cell(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '@', '\t', '\r']);
    let guarded = if formula { format!("'{cell}") } else { cell.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

fn object(line: &Compared) -> serde_json::Value {
    let cells = cells(line);
    json!({
        "day": line.day,
        "model": line.model,
        "measure": cells[2],
        "billed": cells[3],
        "ledger": cells[4],
        "difference": cells[5],
        "estimated": cells[6],
        "verdict": line.verdict.as_str().to_lowercase(),
    })
}
