//! What the database refuses to anybody, and that setting it up twice at once is safe.

use std::time::Duration;

use tollgate_audit::migrate;
use tollgate_types::Millis;

use crate::support::{Database, START, concluded, settled, started};

#[tokio::test(flavor = "multi_thread")]
async fn completed_rows_are_immutable() {
    let database = Database::fresh().await;
    database
        .record(&[started(1), started(2), settled(3), concluded(3)])
        .await;
    let overdue = Millis(START.0 + 70_000);
    database.store.orphan(overdue, Duration::ZERO).await.unwrap();
    database.record(&[settled(1), started(4)]).await;
    let before = database.fingerprint().await;
    let forbidden = [
        "UPDATE attempts SET cost_usd = 0 WHERE state = 'settled'",
        "UPDATE attempts SET input_tokens = 1 WHERE state = 'orphaned'",
        "UPDATE attempts SET state = 'open' WHERE state = 'orphaned'",
        "UPDATE attempts SET deadline_at = now() WHERE state = 'open'",
        "UPDATE attempts SET key_name = 'other' WHERE state = 'open'",
        "UPDATE attempts SET state = 'orphaned', usage_source = 'estimated', input_tokens = 0, cached_input_tokens = 0,
                output_tokens = 0, reasoning_tokens = 0, provider = 'other' WHERE state = 'open'",
        "UPDATE attempts SET operation = 'embed' WHERE state = 'open'",
        "UPDATE attempts SET web_searches = 1 WHERE state = 'settled'",
        "DELETE FROM attempts WHERE state = 'open'",
        "DELETE FROM attempts",
        "TRUNCATE attempts CASCADE",
        "UPDATE attempt_corrections SET cost_usd_delta = 0",
        "DELETE FROM attempt_corrections",
        "TRUNCATE attempt_corrections",
        "UPDATE requests SET state = 'answered'",
        "DELETE FROM requests",
        "TRUNCATE requests",
    ];
    for sql in forbidden {
        let error = database.run(sql).await.expect_err(sql);
        assert_eq!(
            error.as_database_error().and_then(|error| error.code()).as_deref(),
            Some("23000"),
            "{sql}: {error}"
        );
    }
    assert_eq!(database.fingerprint().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_completed_rows_are_refused() {
    let database = Database::fresh().await;
    database.record(&[started(1)]).await;
    let without_kinds = "state = 'orphaned', usage_source = 'estimated', input_tokens = 0, cached_input_tokens = 0,
                         output_tokens = 0, reasoning_tokens = 0";
    for change in [
        "state = 'settled'",
        "state = 'orphaned'",
        "state = 'paid'",
        without_kinds,
    ] {
        let error = database
            .run(&format!("UPDATE attempts SET {change}"))
            .await
            .expect_err(change);
        assert_eq!(
            error.as_database_error().and_then(|error| error.code()).as_deref(),
            Some("23514"),
            "{change}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_ends_once_and_never_overlaps() {
    let database = Database::fresh().await;
    let insert = |from: &str| {
        format!(
            r#"INSERT INTO price_sheets (provider, model, valid_from, custom, source, version, sheet)
               VALUES ('simulator', 'sim-mini', '{from}', false, 'test', 'v',
                       '{{"provider": "simulator", "model": "sim-mini", "per_million": {{"input": "1", "output": "2"}}}}')"#
        )
    };
    let ours = "provider = 'simulator' AND model = 'sim-mini'";
    let run = async |sql: String| database.run(&sql).await;
    let refused = run(insert("2026-02-01T00:00:00Z")).await;
    refused.expect_err("the shipped price still holds");
    let refused = run(format!("UPDATE price_sheets SET sheet = '{{}}' WHERE {ours}")).await;
    refused.expect_err("immutable");
    database.run("DELETE FROM price_sheets").await.expect_err("append-only");
    database
        .run("TRUNCATE price_sheets CASCADE")
        .await
        .expect_err("append-only");
    let end = |at: &str| run(format!("UPDATE price_sheets SET valid_to = '{at}' WHERE {ours}"));
    end("2026-03-01T00:00:00Z").await.unwrap();
    end("2027-03-01T00:00:00Z").await.expect_err("once");
    run(insert("2026-03-01T00:00:00Z")).await.unwrap();
    // The attempt starts on 2026-03-01: 1000 × 1 + 200 × 2 millionths.
    database.record(&[settled(1)]).await;
    assert_eq!(
        database.texts("SELECT trim_scale(cost_usd)::text FROM attempts").await,
        ["0.0014"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_may_migrate_at_once() {
    let database = Database::empty().await;
    let url = database.url.as_str();
    let (a, b, c) = tokio::join!(migrate(url), migrate(url), migrate(url));
    a.and(b).and(c).unwrap();
    let known = "SELECT string_agg(model, ' ' ORDER BY model) FROM price_sheets WHERE provider = 'simulator'";
    assert_eq!(database.text(known).await, "gpt-4o gpt-4o-mini sim-large sim-mini");
    let count = database.text("SELECT count(*)::text FROM price_sheets").await;
    assert_eq!(count, tollgate_pricing::shipped().sheets().count().to_string());
}
