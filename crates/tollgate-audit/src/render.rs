//! Reports as text: a table for people, CSV for spreadsheets, JSON for programs.
//!
//! Names come from configuration and from clients. A table shows no control characters, and a spreadsheet must not take
//! a name for a formula.

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde_json::{Map, Value};

use crate::{CostRow, GroupBy, Kind, Table};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns and a line of totals.
    Table,
    /// RFC 4180 with a header line, and an apostrophe before a name that a spreadsheet would take for a formula.
    Csv,
    /// An array of objects; the cost is a string, as an exact decimal.
    Json,
    /// A bar for each group, as long as its cost.
    Chart,
}

const COLUMNS: [&str; 6] = [
    "calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "unpriced_calls",
    "orphaned_calls",
];

/// The report as text, with a newline at its end.
#[must_use]
pub fn render(rows: &[CostRow], by: GroupBy, format: Format) -> String {
    match format {
        Format::Table => table(rows, by),
        Format::Csv => csv(rows, by),
        Format::Json => json(rows, by),
        Format::Chart => chart(rows),
    }
}

/// A report that is no cost by a group, as text; it has no chart.
#[must_use]
pub fn render_table(of: Table, rows: &[Vec<String>], format: Format) -> String {
    let header: Vec<_> = of.columns().iter().map(|(name, _)| (*name).to_owned()).collect();
    match format {
        Format::Table | Format::Chart => {
            let shown = rows
                .iter()
                .map(|cells| cells.iter().map(|cell| printable(cell)).collect());
            let right: Vec<_> = of.columns().iter().map(|(_, kind)| *kind != Kind::Text).collect();
            laid_out(&std::iter::once(header).chain(shown).collect::<Vec<_>>(), &right)
        }
        Format::Csv => {
            let cell = |(cell, (_, kind)): (&String, &(_, Kind))| match kind {
                Kind::Text => csv_name(cell),
                Kind::Count | Kind::Decimal => cell.clone(),
            };
            let lines = rows
                .iter()
                .map(|cells| cells.iter().zip(of.columns()).map(cell).collect());
            let lines = std::iter::once(header).chain(lines);
            lines.map(|cells: Vec<_>| cells.join(",") + "\n").collect()
        }
        Format::Json => {
            let value = |cell: &String, kind: Kind| match kind {
                Kind::Count => cell.parse::<u64>().map_or_else(|_| cell.as_str().into(), Value::from),
                Kind::Text | Kind::Decimal => cell.as_str().into(),
            };
            let object = |cells: &Vec<String>| {
                let named = of.columns().iter().zip(cells);
                Value::Object(
                    named
                        .map(|((name, kind), cell)| ((*name).to_owned(), value(cell, *kind)))
                        .collect(),
                )
            };
            format!("{:#}\n", Value::from_iter(rows.iter().map(object)))
        }
    }
}

fn json(rows: &[CostRow], by: GroupBy) -> String {
    let object = |row: &CostRow| {
        let group = (by.as_str().to_owned(), Value::from(row.group.as_str()));
        let numbers: [Value; 6] = [
            row.calls.into(),
            row.input_tokens.into(),
            row.output_tokens.into(),
            row.cost_usd.to_string().into(),
            row.unpriced_calls.into(),
            row.orphaned_calls.into(),
        ];
        let columns = COLUMNS.map(str::to_owned).into_iter().zip(numbers);
        Value::Object(Map::from_iter(std::iter::once(group).chain(columns)))
    };
    format!("{:#}\n", Value::from_iter(rows.iter().map(object)))
}

fn csv(rows: &[CostRow], by: GroupBy) -> String {
    let mut text = format!("{},{}\n", by.as_str(), COLUMNS.join(","));
    for row in rows {
        text.push_str(&csv_name(&row.group));
        for cell in numbers(row) {
            text.push(',');
            text.push_str(&cell);
        }
        text.push('\n');
    }
    text
}

fn csv_name(name: &str) -> String {
    let guarded = if name.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{name}")
    } else {
        name.to_owned()
    };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

fn table(rows: &[CostRow], by: GroupBy) -> String {
    let line = |name: String, numbers: [String; 6]| std::iter::once(name).chain(numbers).collect();
    let mut lines: Vec<Vec<_>> = vec![line(by.as_str().to_owned(), COLUMNS.map(str::to_owned))];
    lines.extend(rows.iter().map(|row| line(printable(&row.group), numbers(row))));
    // A call counts once for each of its labels, so that the sum over labels is a number of nothing.
    if by != GroupBy::Tag {
        lines.push(line("total".to_owned(), numbers(&total(rows))));
    }
    laid_out(&lines, &[false, true, true, true, true, true, true])
}

/// Cells in columns, those of numbers at the right.
fn laid_out(lines: &[Vec<String>], right: &[bool]) -> String {
    let mut widths = vec![0; right.len()];
    for cells in lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for cells in lines {
        let mut line = String::new();
        for ((cell, width), right) in cells.iter().zip(&widths).zip(right) {
            line.push_str(&if *right {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Cells of the longest bar.
const BAR: i64 = 50;
/// Parts of a cell, an eighth each.
const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

fn chart(rows: &[CostRow]) -> String {
    let costs: Vec<Decimal> = rows.iter().map(|row| row.cost_usd.amount()).collect();
    let most = costs.iter().copied().max().unwrap_or_default();
    let names: Vec<_> = rows.iter().map(|row| printable(&row.group)).collect();
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let name_width = width(&mut names.iter().map(|name| name.chars().count()));
    let cost_width = width(&mut rows.iter().map(|row| row.cost_usd.to_string().len()));
    let mut text = String::new();
    for ((row, cost), name) in rows.iter().zip(costs).zip(names) {
        let share = cost.checked_div(most).unwrap_or_default();
        let eighths = (share * Decimal::from(BAR * 8)).round().to_usize().unwrap_or_default();
        let bar = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
        let (usd, calls) = (row.cost_usd.to_string(), row.calls);
        let unpriced = match row.unpriced_calls {
            0 => String::new(),
            some => format!(", {some} of them unpriced"),
        };
        text.push_str(&format!(
            "{name:<name_width$}  {usd:>cost_width$}  {bar}  {calls} calls{unpriced}\n"
        ));
    }
    text
}

fn numbers(row: &CostRow) -> [String; 6] {
    [
        row.calls.to_string(),
        row.input_tokens.to_string(),
        row.output_tokens.to_string(),
        row.cost_usd.to_string(),
        row.unpriced_calls.to_string(),
        row.orphaned_calls.to_string(),
    ]
}

fn total(rows: &[CostRow]) -> CostRow {
    let sum = |count: fn(&CostRow) -> u64| rows.iter().map(count).fold(0, u64::saturating_add);
    CostRow {
        group: String::new(),
        calls: sum(|row| row.calls),
        input_tokens: sum(|row| row.input_tokens),
        output_tokens: sum(|row| row.output_tokens),
        cost_usd: rows.iter().map(|row| row.cost_usd).sum(),
        unpriced_calls: sum(|row| row.unpriced_calls),
        orphaned_calls: sum(|row| row.orphaned_calls),
    }
}

fn printable(name: &str) -> String {
    name.chars()
        .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<CostRow> {
        let row =
            |group: &str, calls, input_tokens, output_tokens, cost: &str, unpriced_calls, orphaned_calls| CostRow {
                group: group.to_owned(),
                calls,
                input_tokens,
                output_tokens,
                cost_usd: cost.parse().unwrap(),
                unpriced_calls,
                orphaned_calls,
            };
        vec![
            row("=cmd()|' /C calc'!A0", 1, 0, 0, "0", 1, 0),
            row("gpt-4o-mini", 1200, 1_234_567, 89_012, "0.23859225", 0, 3),
            row("say \"hi\", all\u{1b}[2J", 2, 10, 20, "12.5", 0, 0),
        ]
    }

    #[test]
    fn table_lines_up() {
        insta::assert_snapshot!(render(&rows(), GroupBy::Model, Format::Table), @r#"
        model                 calls  input_tokens  output_tokens     cost_usd  unpriced_calls  orphaned_calls
        =cmd()|' /C calc'!A0      1             0              0            0               1               0
        gpt-4o-mini            1200       1234567          89012   0.23859225               0               3
        say "hi", all�[2J         2            10             20         12.5               0               0
        total                  1203       1234577          89032  12.73859225               1               3
        "#);
    }

    #[test]
    fn bars_are_as_long_as_costs() {
        insta::assert_snapshot!(render(&rows(), GroupBy::Model, Format::Chart), @r#"
        =cmd()|' /C calc'!A0           0    1 calls, 1 of them unpriced
        gpt-4o-mini           0.23859225  █  1200 calls
        say "hi", all�[2J           12.5  ██████████████████████████████████████████████████  2 calls
        "#);
        assert_eq!(render(&[], GroupBy::Day, Format::Chart), "");
        // Costs of nothing divide by nothing.
        assert!(render(&rows()[..1], GroupBy::Day, Format::Chart).ends_with("0    1 calls, 1 of them unpriced\n"));
    }

    #[test]
    fn tables_of_any_columns() {
        let cells = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let rows = [
            cells(["2026-11-01", "acme", "=cmd()", "1.5", "20.000001"]),
            cells(["2026-11-01", "", "", "0", "0"]),
        ];
        insta::assert_snapshot!(render_table(Table::Forecast, &rows, Format::Table), @r"
        month       organisation  team    spent_usd  forecast_usd
        2026-11-01  acme          =cmd()        1.5     20.000001
        2026-11-01                                0             0
        ");
        insta::assert_snapshot!(render_table(Table::Forecast, &rows, Format::Csv), @r"
        month,organisation,team,spent_usd,forecast_usd
        2026-11-01,acme,'=cmd(),1.5,20.000001
        2026-11-01,,,0,0
        ");
        insta::assert_snapshot!(render_table(Table::Forecast, &rows[1..], Format::Json), @r#"
        [
          {
            "month": "2026-11-01",
            "organisation": "",
            "team": "",
            "spent_usd": "0",
            "forecast_usd": "0"
          }
        ]
        "#);
        let row = ["2026-11-01", "m", "1", "2", "0", "0.1", "0.3"]
            .map(str::to_owned)
            .to_vec();
        let json: Value = serde_json::from_str(&render_table(Table::Retries, &[row], Format::Json)).unwrap();
        assert_eq!(
            (&json[0]["further_calls"], &json[0]["lost_usd"]),
            (&Value::from(2), &Value::from("0.1"))
        );
    }

    #[test]
    fn labels_have_no_total() {
        let text = render(&rows()[1..2], GroupBy::Tag, Format::Table);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains("total"));
    }

    #[test]
    fn csv_quotes_and_guards() {
        let expected = concat!(
            "key,calls,input_tokens,output_tokens,cost_usd,unpriced_calls,orphaned_calls\n",
            "'=cmd()|' /C calc'!A0,1,0,0,0,1,0\n",
            "gpt-4o-mini,1200,1234567,89012,0.23859225,0,3\n",
            "\"say \"\"hi\"\", all\u{1b}[2J\",2,10,20,12.5,0,0\n",
        );
        assert_eq!(render(&rows(), GroupBy::Key, Format::Csv), expected);
    }

    #[test]
    fn json_is_exact_and_in_order() {
        insta::assert_snapshot!(render(&rows()[1..2], GroupBy::Provider, Format::Json), @r#"
        [
          {
            "provider": "gpt-4o-mini",
            "calls": 1200,
            "input_tokens": 1234567,
            "output_tokens": 89012,
            "cost_usd": "0.23859225",
            "unpriced_calls": 0,
            "orphaned_calls": 3
          }
        ]
        "#);
        assert_eq!(render(&[], GroupBy::Day, Format::Json), "[]\n");
    }
}
