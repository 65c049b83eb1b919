//! Attempts whose end nobody saw, and those that settle after all.

use std::time::Duration;

use tollgate_audit::{GroupBy, Recorded};
use tollgate_types::{Millis, Tenant, ledger::LedgerEvent};

use crate::support::{Database, EVERY_KIND, START, abandoned, attempt, concluded, settled, settlement, started};

const GRACE: Duration = Duration::from_secs(5);
/// One millisecond past deadline and grace of `attempt`.
const OVERDUE: Millis = Millis(START.0 + 65_001);

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_attempt_is_completed_with_an_estimate() {
    let database = Database::fresh().await;
    database.record(&[started(1), settled(2)]).await;
    assert_eq!(database.store.orphan(Millis(OVERDUE.0 - 1), GRACE).await.unwrap(), 0);
    assert_eq!(database.store.orphan(OVERDUE, GRACE).await.unwrap(), 1);
    assert_eq!(database.store.orphan(OVERDUE, GRACE).await.unwrap(), 0);
    let row =
        "SELECT concat_ws(' ', input_tokens, output_tokens, usage_source, trim_scale(cost_usd), price_id IS NOT NULL)
               FROM attempts WHERE state = 'orphaned'";
    // 100 × 0.15 + 256 × 0.60 = 15 + 153.6 millionths
    assert_eq!(database.texts(row).await, ["100 256 estimated 0.0001686 t"]);
    // A repeated start does not open it again.
    database.record(&[started(1)]).await;
    assert_eq!(database.texts(row).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_settlement_is_a_correction_and_the_view_has_the_truth() {
    let database = Database::fresh().await;
    let settled = |number| {
        let (attempt, mut settlement) = (attempt(number), settlement());
        settlement.usage = EVERY_KIND;
        LedgerEvent::Settled { attempt, settlement }
    };
    database.record(&[started(1), started(2), settled(3)]).await;
    assert_eq!(database.store.orphan(OVERDUE, GRACE).await.unwrap(), 2);
    let row = "SELECT to_jsonb(a)::text FROM attempts a ORDER BY attempt_id";
    let before = database.texts(row).await;
    let corrected = Recorded {
        corrected: 1,
        ..Recorded::default()
    };
    assert_eq!(database.store.record(&[(9, settled(1))]).await.unwrap(), corrected);
    assert_eq!(
        database
            .store
            .record(&[(9, settled(1)), (9, started(1))])
            .await
            .unwrap(),
        Recorded::default()
    );
    assert_eq!(database.texts(row).await, before, "the orphan's own row is as it was");
    let deltas = "SELECT concat_ws(' ', input_tokens_delta, cached_input_tokens_delta, output_tokens_delta,
                                   reasoning_tokens_delta, cache_write_input_tokens_delta,
                                   cache_write_1h_input_tokens_delta, audio_input_tokens_delta,
                                   audio_output_tokens_delta, web_searches_delta, trim_scale(cost_usd_delta))
                  FROM attempt_corrections";
    // 1000 − 100, 200 − 256, 0.02043125 − 0.0001686
    assert_eq!(
        database.texts(deltas).await,
        ["900 100 -56 20 300 200 100 50 2 0.02026265"]
    );
    // Corrected and settled in time read the same.
    let truth = "SELECT count(*)::text FROM (
                     SELECT to_jsonb(l) - 'attempt_id' - 'request_id' - 'corrected' AS row FROM ledger l
                     WHERE outcome = 'answered') AS seen
                 GROUP BY row";
    assert_eq!(database.texts(truth).await, ["2"]);
    let rows = database
        .store
        .cost(GroupBy::Provider, &Tenant::default(), Millis(0), OVERDUE)
        .await
        .unwrap();
    assert_eq!((rows.len(), rows[0].calls, rows[0].orphaned_calls), (1, 3, 1));
    assert_eq!((rows[0].input_tokens, rows[0].output_tokens), (2100, 656));
    assert_eq!(rows[0].cost_usd.to_string(), "0.0410311");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_gives_a_price_to_what_had_none_and_takes_it() {
    let database = Database::fresh().await;
    let with_models = |number, asked: &str, served: &str| {
        let (mut attempt, mut settlement) = (attempt(number), settlement());
        attempt.target.model = asked.to_owned();
        settlement.served_model = Some(served.to_owned());
        [
            LedgerEvent::Started(attempt.clone()),
            LedgerEvent::Settled { attempt, settlement },
        ]
    };
    let [open, end] = with_models(1, "unheard-of", "sim-mini");
    database.record(&[open]).await;
    assert_eq!(database.store.orphan(OVERDUE, GRACE).await.unwrap(), 1);
    let cost = "SELECT trim_scale(cost_usd)::text FROM ledger";
    assert_eq!(database.texts(cost).await, ["NULL"]);
    database.record(&[end]).await;
    assert_eq!(database.texts(cost).await, ["0.00024"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_attempt_is_overdue_earlier_whenever_the_news_comes() {
    let database = Database::fresh().await;
    database
        .record(&[abandoned(1), started(1), started(2), abandoned(2), started(3)])
        .await;
    database
        .store
        .record(&[(1, abandoned(4)), (2, started(4))])
        .await
        .unwrap();
    // Abandoned 5 s after the start, with a grace of 5 s.
    assert_eq!(database.store.orphan(Millis(START.0 + 10_000), GRACE).await.unwrap(), 0);
    assert_eq!(database.store.orphan(Millis(START.0 + 10_001), GRACE).await.unwrap(), 3);
    assert_eq!(
        database.texts("SELECT state FROM attempts ORDER BY attempt_id").await,
        ["orphaned", "orphaned", "open", "orphaned"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_orphans_by_any_number_of_searchers() {
    let database = Database::fresh().await;
    let events: Vec<_> = (1..=1203).map(|number| (1, started(number))).collect();
    database.store.record(&events).await.unwrap();
    let (one, two) = tokio::join!(
        database.store.orphan(OVERDUE, GRACE),
        database.store.orphan(OVERDUE, GRACE)
    );
    let rest = database.store.orphan(OVERDUE, GRACE).await.unwrap();
    assert_eq!(one.unwrap() + two.unwrap() + rest, 1203);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_owner_was_lost_ends_once() {
    let database = Database::fresh().await;
    // The first was concluded, the second is a job's, the third was sent again before its owner was lost.
    let mut again = attempt(4);
    (again.request_id, again.generation) = (attempt(3).request_id, 9);
    let settlement = settlement();
    let events = [
        settled(1),
        concluded(1),
        settled(2),
        started(3),
        LedgerEvent::Settled {
            attempt: again,
            settlement,
        },
    ];
    database.record(&events).await;
    let job = "INSERT INTO job_submissions (job_id, key_id, key_name, tags, priority, model, dialect, operation, submitted_at, deadline_at)
               SELECT request_id, key_id, key_name, tags, 'normal', model, dialect, operation, started_at, deadline_at
               FROM attempts ORDER BY attempt_id LIMIT 1 OFFSET 1";
    database.run(job).await.unwrap();
    let end = async |since: u64, until: u64| {
        let store = &database.store;
        store
            .end_lost_requests(Millis(START.0 + since), Millis(START.0 + until))
            .await
            .unwrap()
    };
    assert_eq!((end(1, 60_000).await, end(0, 0).await), (0, 0));
    assert_eq!((end(0, 60_000).await, end(0, 60_000).await), (1, 0));
    let rows = "SELECT concat_ws(' ', r.state, r.error_code, r.resends, r.organisation, r.request_id = a.request_id)
                FROM requests r JOIN attempts a ON a.generation = 9 WHERE r.error_code = 'unavailable'";
    assert_eq!(database.texts(rows).await, ["failed unavailable 1 acme t"]);
}
