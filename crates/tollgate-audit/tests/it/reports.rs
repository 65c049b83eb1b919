//! Reports against sums made by hand, and the views against the reports.

use std::{collections::BTreeMap, time::Duration};

use tollgate_audit::{CostRow, GroupBy};
use tollgate_types::{Millis, Tenant, ledger::LedgerEvent};

use crate::support::{Database, START, attempt, settlement, started};

/// One settled call: its day, names, tags and numbers.
fn call(number: u128, seconds: u64, model: &str, provider: &str, tags: &[(&str, &str)]) -> LedgerEvent {
    let mut attempt = attempt(number);
    attempt.started_at = Millis(START.0 + seconds * 1000);
    attempt.deadline = attempt.started_at.after(Duration::from_secs(60));
    attempt.model = model.to_owned();
    attempt.target.provider = provider.to_owned();
    attempt.caller.key_name = format!("key-{}", number % 2);
    attempt.caller.tenant.team = Some(if number.is_multiple_of(2) { "web" } else { "ops" }.to_owned());
    attempt.caller.tags = tags
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect::<BTreeMap<_, _>>();
    LedgerEvent::Settled {
        attempt,
        settlement: settlement(),
    }
}

async fn filled() -> Database {
    let database = Database::fresh().await;
    database
        .record(&[
            call(1, 0, "fast", "simulator", &[("team", "web")]),
            // The next UTC day begins one second later.
            call(2, 1, "fast", "simulator", &[("team", "web"), ("env", "prod")]),
            call(3, 2, "smart", "elsewhere", &[]),
            call(4, 3, "smart", "simulator", &[("team", "ops=2")]),
            // Under way, and in no report.
            started(5),
        ])
        .await;
    database
}

fn row(group: &str, calls: u64, cost: &str, unpriced_calls: u64) -> CostRow {
    let cost_usd = cost.parse().unwrap();
    let group = group.to_owned();
    CostRow {
        group,
        calls,
        input_tokens: calls * 1000,
        output_tokens: calls * 200,
        cost_usd,
        unpriced_calls,
        orphaned_calls: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_grouping_equals_the_sum_by_hand() {
    let database = filled().await;
    let cases = [
        (
            GroupBy::Day,
            vec![row("2026-03-01", 1, "0.00024", 0), row("2026-03-02", 3, "0.00048", 1)],
        ),
        (
            GroupBy::Model,
            vec![row("fast", 2, "0.00048", 0), row("smart", 2, "0.00024", 1)],
        ),
        (
            GroupBy::Provider,
            vec![row("elsewhere", 1, "0", 1), row("simulator", 3, "0.00072", 0)],
        ),
        (
            GroupBy::Key,
            vec![row("key-0", 2, "0.00048", 0), row("key-1", 2, "0.00024", 1)],
        ),
        (
            GroupBy::Tag,
            vec![
                row("env=prod", 1, "0.00024", 0),
                row("team=ops=2", 1, "0.00024", 0),
                row("team=web", 2, "0.00048", 0),
            ],
        ),
        (GroupBy::Organisation, vec![row("acme", 4, "0.00072", 1)]),
        (
            GroupBy::Team,
            vec![row("acme/ops", 2, "0.00024", 1), row("acme/web", 2, "0.00048", 0)],
        ),
        (GroupBy::User, vec![row("u-1", 4, "0.00072", 1)]),
    ];
    for (by, expected) in cases {
        assert_eq!(
            database
                .store
                .cost(by, &Tenant::default(), Millis(0), Millis(u64::MAX))
                .await
                .unwrap(),
            expected,
            "{by:?}"
        );
        let group = match by {
            GroupBy::Day => "day::text",
            GroupBy::Key => "key_name",
            GroupBy::Team => "concat_ws('/', organisation, team)",
            GroupBy::User => "end_user",
            _ => by.as_str(),
        };
        let sql = format!(
            "SELECT concat_ws(' ', {group}, sum(calls), sum(input_tokens), sum(output_tokens),
                              trim_scale(sum(cost_usd)), sum(unpriced_calls), sum(orphaned_calls))
             FROM cost_by_{} GROUP BY {group} ORDER BY {group} COLLATE \"C\"",
            by.as_str()
        );
        let line = |row: &CostRow| {
            let CostRow {
                group,
                calls,
                input_tokens,
                output_tokens,
                cost_usd,
                unpriced_calls,
                orphaned_calls,
            } = row;
            format!("{group} {calls} {input_tokens} {output_tokens} {cost_usd} {unpriced_calls} {orphaned_calls}")
        };
        assert_eq!(
            database.texts(&sql).await,
            expected.iter().map(line).collect::<Vec<_>>(),
            "{by:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_calls() {
    let database = filled().await;
    let calls = async |organisation: Option<&str>, team: Option<&str>| -> u64 {
        let tenant = Tenant {
            organisation: organisation.map(str::to_owned),
            team: team.map(str::to_owned),
        };
        let rows = database
            .store
            .cost(GroupBy::Hour, &tenant, Millis(0), Millis(u64::MAX))
            .await;
        rows.unwrap().iter().map(|row| row.calls).sum()
    };
    assert_eq!(calls(None, None).await, 4);
    assert_eq!(calls(Some("acme"), None).await, 4);
    assert_eq!(calls(Some("acme"), Some("ops")).await, 2);
    assert_eq!(calls(Some("acme"), Some("nobody")).await, 0);
    assert_eq!(calls(Some("other"), Some("ops")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_begins_at_since_and_ends_before_until() {
    let database = filled().await;
    let calls = async |since: u64, until: u64| {
        let bounds = [since, until].map(|seconds| Millis(START.0 + seconds * 1000));
        let rows = database
            .store
            .cost(GroupBy::Model, &Tenant::default(), bounds[0], bounds[1])
            .await
            .unwrap();
        rows.iter().map(|row| row.calls).sum::<u64>()
    };
    assert_eq!(
        [
            calls(0, 3).await,
            calls(1, 3).await,
            calls(3, 4).await,
            calls(4, 9).await
        ],
        [3, 2, 1, 0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_says_what_it_is() {
    let database = Database::fresh().await;
    let silent =
        "SELECT c.relname::text FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
                  AND obj_description(c.oid, 'pg_class') IS NULL";
    assert_eq!(database.texts(silent).await, Vec::<String>::new());
}
