//! Reports against sums made by hand, and the views against the reports.

use std::{collections::BTreeMap, time::Duration};

use tollgate_audit::{Actor, CostRow, GroupBy};
use tollgate_pricing::{Consumption, Unit};
use tollgate_types::{
    Grant, Millis, Tenant,
    ledger::{AttemptOutcome, LedgerEvent, Settlement},
};

use crate::support::{Database, START, attempt, caller, settlement, started};

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
    let region = |provider: &str, region: Option<&str>| (provider.to_owned(), region.map(str::to_owned));
    // Twice the same is once; what is so before it was known counts for all that was before.
    for _ in 0..2 {
        let regions = [region("simulator", Some("eu-central-1")), region("elsewhere", None)];
        database.store.note_regions(&regions).await.unwrap();
    }
    assert_eq!(
        database.texts("SELECT count(*)::text FROM provider_regions").await,
        ["2"]
    );
    database
        .run("INSERT INTO provider_regions VALUES ('p', '2026-03-01', 'a'), ('p', '2026-03-02', NULL), ('p', '2026-03-03', 'c')")
        .await
        .unwrap();
    let moved = "SELECT coalesce(provider_region('p', at), '-') FROM unnest(
                 '{2026-02-01, 2026-03-01, 2026-03-02 12:00, 2026-03-03, 2027-01-01}'::timestamptz[]) AS at";
    assert_eq!(database.texts(moved).await, ["a", "a", "-", "c", "c"]);
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
        (
            GroupBy::Region,
            vec![row("", 1, "0", 1), row("eu-central-1", 3, "0.00072", 0)],
        ),
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

/// A call with what its provider reported.
fn reported(number: u128, model: &str, consumption: Consumption) -> LedgerEvent {
    let mut attempt = attempt(number);
    attempt.target.model = model.to_owned();
    let settlement = Settlement {
        served_model: None,
        consumption: Some(Box::new(consumption)),
        ..settlement()
    };
    LedgerEvent::Settled { attempt, settlement }
}

#[tokio::test(flavor = "multi_thread")]
async fn finance_adds_up() {
    let database = Database::fresh().await;
    let used = |quantities: &[(Unit, u64)]| Consumption {
        quantities: quantities.iter().copied().collect(),
        ..Consumption::default()
    };
    let mut failed = attempt(4);
    failed.retry = 0;
    failed.request_id = attempt(1).request_id;
    let lost = LedgerEvent::Settled {
        attempt: failed,
        settlement: Settlement {
            outcome: AttemptOutcome::Broken,
            consumption: Some(Box::new(used(&[(Unit::Input, 1000)]))),
            ..settlement()
        },
    };
    let stated = Consumption {
        stated_usd: Some("0.5".parse().unwrap()),
        ..used(&[])
    };
    let mut discounted = reported(
        3,
        "elsewhere",
        used(&[(Unit::Input, 1_000_000), (Unit::Output, 1_000_000)]),
    );
    if let LedgerEvent::Settled { attempt, .. } = &mut discounted {
        attempt.target.provider = "contract".to_owned();
    }
    let sheet =
        r#"{"provider": "contract", "model": "*", "per_million": {"input": "1", "output": "3"}, "discount": "0.5"}"#;
    let sheets = [tollgate_pricing::Sheet::read(sheet, "x").unwrap()];
    let by = Actor {
        key_id: caller().key_id,
        name: "somebody".to_owned(),
        tenant: Tenant::default(),
        grant: Grant::default(),
    };
    let now = START.to_datetime();
    database.store.import_prices(&sheets, now, Some(&by)).await.unwrap();
    // sim-mini: 0.15, cached 0.075, output 0.6 for a million.
    database
        .record(&[
            reported(
                1,
                "sim-mini",
                used(&[(Unit::Input, 1000), (Unit::CachedInput, 4000), (Unit::Output, 100)]),
            ),
            reported(2, "sim-mini", used(&[(Unit::CachedInput, 2000)])),
            discounted,
            lost,
            reported(5, "sim-mini", stated),
        ])
        .await;
    let texts = async |sql: &str| database.texts(sql).await;
    // 6000 tokens at half the price, of which those of the second call have nothing beside them.
    assert_eq!(
        texts("SELECT concat_ws(' ', cached_tokens, trim_scale(cost_usd), trim_scale(saved_usd)) FROM cache_savings")
            .await,
        ["6000 0.00045 0.00045"]
    );
    assert_eq!(
        texts(
            "SELECT concat_ws(' ', unit, quantity, trim_scale(usd), trim_scale(average_rate_usd)) FROM unit_prices_paid
               WHERE provider = 'simulator' ORDER BY unit"
        )
        .await,
        [
            "cached_input 6000 0.00045 0.075",
            "input 2000 0.0003 0.15",
            "output 100 0.00006 0.6"
        ]
    );
    assert_eq!(
        texts("SELECT concat_ws(' ', sum(requests_tried_again), sum(further_calls), sum(never_answered), trim_scale(sum(lost_usd)))
               FROM cost_of_retries").await,
        ["1 1 0 0.00015"]
    );
    // The export comes to what the ledger says, discount and stated cost included.
    let billed = "SELECT concat_ws(' ', \"ConsumedUnit\", trim_scale(\"BilledCost\")) FROM focus_export
                  WHERE \"ProviderName\" = 'contract' OR \"ConsumedUnit\" = 'call' ORDER BY 1";
    assert_eq!(texts(billed).await, ["call 0.5", "input 0.5", "output 1.5"]);
    let difference = "SELECT trim_scale(round((SELECT sum(cost_usd) FROM ledger) - (SELECT sum(\"BilledCost\") FROM focus_export), 12))::text";
    assert_eq!(texts(difference).await, ["0"]);
    let hours = "SELECT concat_ws(' ', calls, trim_scale(cost_usd)) FROM cost_by_hour";
    assert_eq!(
        texts(hours).await,
        texts("SELECT concat_ws(' ', count(*), trim_scale(sum(cost_usd))) FROM ledger").await
    );
    // The calls are of another month than this one.
    assert_eq!(texts("SELECT count(*)::text FROM cost_forecast").await, ["0"]);
    let mut today = attempt(6);
    today.started_at = Millis::now();
    today.deadline = today.started_at.after(Duration::from_secs(60));
    database
        .record(&[LedgerEvent::Settled {
            attempt: today,
            settlement: settlement(),
        }])
        .await;
    let forecast = "SELECT concat_ws(' ', organisation, team, trim_scale(spent_usd), forecast_usd >= spent_usd) FROM cost_forecast";
    assert_eq!(texts(forecast).await, ["acme web 0.00024 t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_documented() {
    let database = Database::fresh().await;
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sql.md")).unwrap();
    let views = "SELECT viewname::text FROM pg_views WHERE schemaname = 'public' ORDER BY 1";
    let missing: Vec<_> = database
        .texts(views)
        .await
        .into_iter()
        .filter(|view| !documented.contains(&format!("`{view}`")))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    // An auditor's grant, as it is written there, covers views and no secrets.
    let (_, grant) = documented.split_once("GRANT SELECT").unwrap();
    let grant = format!("GRANT SELECT{}", grant.split_once(';').unwrap().0);
    database.run("DROP ROLE IF EXISTS auditor").await.unwrap();
    database.run("CREATE ROLE auditor").await.unwrap();
    database.run(&grant).await.unwrap();
    let may = |table: &str| format!("SELECT has_table_privilege('auditor', '{table}', 'SELECT')::text");
    assert_eq!(database.text(&may("ledger")).await, "true");
    assert_eq!(database.text(&may("key_secrets")).await, "false");
    database.run("DROP OWNED BY auditor").await.unwrap();
    database.run("DROP ROLE auditor").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_says_what_it_is() {
    let database = Database::fresh().await;
    let silent =
        "SELECT c.relname::text FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
                  AND obj_description(c.oid, 'pg_class') IS NULL";
    assert_eq!(database.texts(silent).await, Vec::<String>::new());
}

/// The report as a plain sum over the ledger.
const PLAIN: &str = "SELECT concat_ws(' ', name, count(*), sum(input_tokens), sum(output_tokens), trim_scale(coalesce(sum(cost_usd), 0)),
                            count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned'))
                     FROM ledger CROSS JOIN LATERAL (SELECT GROUP AS name) AS named
                     WHERE state <> 'open' AND started_at >= to_timestamp(SINCE / 1000.0) AND started_at < to_timestamp(UNTIL / 1000.0)
                       AND (TENANT) GROUP BY name ORDER BY name COLLATE \"C\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_any_time_is_the_sum_over_the_ledger() {
    let database = Database::fresh().await;
    let minute = 60_000;
    for number in 1..=120u64 {
        let mut attempt = attempt(u128::from(number));
        attempt.started_at = Millis(START.0 + number * minute + number * 7);
        if number % 3 == 0 {
            attempt.caller.tenant = Tenant {
                organisation: Some("acme".to_owned()),
                team: None,
            };
        }
        if number % 5 == 0 {
            attempt.caller.tenant = Tenant::default();
            attempt.caller.tags.clear();
            "nobody-knows".clone_into(&mut attempt.target.model);
        }
        let mut settlement = settlement();
        settlement.served_model = None;
        settlement.usage.input_tokens += number;
        database.record(&[LedgerEvent::Settled { attempt, settlement }]).await;
    }
    let groups = [
        (GroupBy::Day, "day::text"),
        (
            GroupBy::Hour,
            "to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00')",
        ),
        (GroupBy::Model, "model"),
        (GroupBy::Key, "key_name"),
        (GroupBy::Organisation, "coalesce(organisation, '')"),
        (GroupBy::Team, "coalesce(organisation || '/' || team, '')"),
        (GroupBy::User, "coalesce(end_user, '')"),
    ];
    let acme = Tenant {
        organisation: Some("acme".to_owned()),
        team: None,
    };
    let web = Tenant {
        team: Some("web".to_owned()),
        ..acme.clone()
    };
    // Within a quarter of an hour, over its edges, on them, and without end.
    let quarter = START.0 - START.0 % (15 * minute) + 15 * minute;
    let day = START.0 - START.0 % (24 * 60 * minute);
    let times = [
        (0, u64::MAX),
        (START.0 + 3 * minute, START.0 + 5 * minute),
        (START.0 + 3 * minute + 1, START.0 + 100 * minute + 1),
        (quarter, quarter + 30 * minute),
        (quarter + 1, quarter + 15 * minute),
        (quarter, quarter + 1),
        (quarter + 5 * minute, quarter),
        (day, day + 24 * 60 * minute),
        (day + 1, day + 2 * 24 * 60 * minute),
    ];
    for (since, until) in times {
        for (tenant, filter) in [
            (Tenant::default(), "true"),
            (acme.clone(), "organisation = 'acme'"),
            (web.clone(), "organisation = 'acme' AND team = 'web'"),
        ] {
            for (by, group) in groups {
                let found = database
                    .store
                    .cost(by, &tenant, Millis(since), Millis(until))
                    .await
                    .unwrap();
                let mut found: Vec<_> = found
                    .iter()
                    .map(|row| {
                        format!(
                            "{} {} {} {} {} {} {}",
                            row.group,
                            row.calls,
                            row.input_tokens,
                            row.output_tokens,
                            row.cost_usd,
                            row.unpriced_calls,
                            row.orphaned_calls
                        )
                    })
                    .collect();
                found.sort();
                let most = 253_402_300_799_000u64;
                let plain = PLAIN
                    .replace("GROUP AS", &format!("{group} AS"))
                    .replace("SINCE", &since.min(most).to_string())
                    .replace("UNTIL", &until.min(most).to_string())
                    .replace("TENANT", filter);
                let mut plain = database.texts(&plain).await;
                plain.sort();
                assert_eq!(found, plain, "{by:?} {since} {until} {filter}");
            }
        }
    }
}
