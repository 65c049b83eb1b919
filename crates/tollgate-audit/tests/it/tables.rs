//! Reports beside costs by a group: each of one tenant, or of all.

use std::time::Duration;

use tollgate_audit::{Days, Page, Store, Table};
use tollgate_types::{
    Millis, RequestId, Tenant,
    ledger::{Attempt, AttemptOutcome, LedgerEvent},
};
use uuid::Uuid;

use crate::support::{Database, attempt, settlement};

const ALL: [Table; 8] = [
    Table::UnitPrices,
    Table::CacheSavings,
    Table::Retries,
    Table::Hedges,
    Table::Unpriced,
    Table::Orphaned,
    Table::Forecast,
    Table::Focus,
];
const EVERYTHING: Page = Page { limit: 100, offset: 0 };

fn tenant(organisation: &str, team: Option<&str>) -> Tenant {
    Tenant {
        organisation: Some(organisation.to_owned()),
        team: team.map(str::to_owned),
    }
}

/// A call of this request that began now.
fn call(number: u128, request: u128, of: &Tenant, at: Millis) -> Attempt {
    let mut attempt = attempt(number);
    (attempt.started_at, attempt.deadline) = (at, Millis(at.0 + 1000));
    attempt.request_id = RequestId::from(Uuid::from_u128(request << 64));
    attempt.caller.tenant = of.clone();
    attempt.generation = 0;
    attempt
}

/// `acme/web` has a call that failed and one that answered, `acme/ops` two that answered, the second a hedge, and one without a
/// price; of a call of nobody's the end was not seen.
async fn filled(at: Millis) -> Database {
    let database = Database::fresh().await;
    let (web, ops) = (tenant("acme", Some("web")), tenant("acme", Some("ops")));
    let ended = |attempt: Attempt, outcome| {
        let mut settlement = settlement();
        settlement.served_model = None;
        settlement.outcome = outcome;
        LedgerEvent::Settled { attempt, settlement }
    };
    let mut again = call(2, 1, &web, at);
    again.retry = 1;
    let mut hedge = call(4, 2, &ops, at);
    hedge.hedge = true;
    let mut unpriced = call(5, 3, &ops, at);
    "nobody-knows".clone_into(&mut unpriced.target.model);
    database
        .record(&[
            ended(call(1, 1, &web, at), AttemptOutcome::Failed),
            ended(again, AttemptOutcome::Answered),
            ended(call(3, 2, &ops, at), AttemptOutcome::Answered),
            ended(hedge, AttemptOutcome::Answered),
            ended(unpriced, AttemptOutcome::Answered),
            LedgerEvent::Started(call(6, 4, &Tenant::default(), at)),
        ])
        .await;
    let later = Millis(at.0 + 3_600_000);
    assert_eq!(database.store.orphan(later, Duration::ZERO).await.unwrap(), 1);
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_of_one_tenant_or_of_all() {
    let at = Millis::now();
    let database = filled(at).await;
    let day = at.to_datetime().date_naive();
    let read = async |table: Table, of: &Tenant, days: Days, page: Page| {
        let rows = database.store.table(table, of, days, page).await.unwrap();
        for row in &rows {
            assert_eq!(row.len(), table.columns().len(), "{table:?}");
        }
        rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>()
    };
    let rows = async |table, of: &Tenant| read(table, of, Days::ALL, EVERYTHING).await;
    let (web, ops) = (tenant("acme", Some("web")), tenant("acme", Some("ops")));
    // Twice 600 tokens at 0.15, 400 cached at 0.075, and 200 out, 20 of them thought, at 0.60 dollars a million.
    assert_eq!(
        rows(Table::UnitPrices, &web).await,
        [
            format!("{day} simulator sim-mini standard cached_input 800 0.00006 0.075 0.075 0.075"),
            format!("{day} simulator sim-mini standard input 1200 0.00018 0.15 0.15 0.15"),
            format!("{day} simulator sim-mini standard output 360 0.000216 0.6 0.6 0.6"),
            format!("{day} simulator sim-mini standard reasoning 40 0.000024 0.6 0.6 0.6"),
        ]
    );
    assert_eq!(
        rows(Table::CacheSavings, &web).await,
        [format!("{day} simulator sim-mini acme web shop 800 0.00006 0.00006")]
    );
    assert_eq!(
        rows(Table::Retries, &web).await,
        [format!("{day} fast 1 1 0 0.00024 0.00048")]
    );
    assert_eq!(
        rows(Table::Retries, &ops).await,
        [format!("{day} fast 1 1 0 0 0.00048")]
    );
    assert!(rows(Table::Hedges, &web).await.is_empty());
    let hedges = [format!("{day} fast 1 1 1 0.00048 0.00024")];
    assert_eq!(rows(Table::Hedges, &ops).await, hedges);
    assert_eq!(rows(Table::Hedges, &Tenant::default()).await, hedges);
    assert!(rows(Table::Unpriced, &web).await.is_empty());
    let unpriced = [format!(
        "{day} simulator nobody-knows nobody-knows acme ops shop 1 1000 200"
    )];
    assert_eq!(rows(Table::Unpriced, &ops).await, unpriced);
    // With its estimate.
    assert!(rows(Table::Orphaned, &tenant("acme", None)).await.is_empty());
    let orphaned = [format!("{day} simulator fast   shop 1 100 256 0.0001686")];
    assert_eq!(rows(Table::Orphaned, &Tenant::default()).await, orphaned);
    let forecast = rows(Table::Forecast, &web).await;
    let month = day.format("%Y-%m-01");
    assert!(
        forecast[0].starts_with(&format!("{month} acme web 0.00048 ")),
        "{forecast:?}"
    );
    let focus = rows(Table::Focus, &web).await;
    assert_eq!(focus.len(), 4);
    assert!(
        focus[0].starts_with("0.00006 USD ") && focus[0].contains(&format!(" Usage {day}T00:00:00Z ")),
        "{focus:?}"
    );
    for table in ALL {
        let all = rows(table, &Tenant::default()).await;
        assert!(!all.is_empty(), "{table:?}");
        assert!(rows(table, &tenant("other", Some("web"))).await.is_empty(), "{table:?}");
        // Page by page it is the same.
        let mut paged = Vec::new();
        for offset in 0..=u32::try_from(all.len()).unwrap() {
            paged.extend(read(table, &Tenant::default(), Days::ALL, Page { limit: 1, offset }).await);
        }
        assert_eq!(paged, all, "{table:?}");
        let tomorrow = Days {
            since: day + chrono::Months::new(1),
            ..Days::ALL
        };
        let before = Days {
            until: day - chrono::Months::new(1),
            ..Days::ALL
        };
        for days in [tomorrow, before] {
            assert!(
                read(table, &Tenant::default(), days, EVERYTHING).await.is_empty(),
                "{table:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_takes_too_long_ends_and_changes_nothing() {
    let at = Millis::now();
    let database = filled(at).await;
    let reports = Store::connect_reports(&database.url, 1, Duration::from_millis(200)).unwrap();
    let read = async || {
        reports
            .table(Table::UnitPrices, &Tenant::default(), Days::ALL, EVERYTHING)
            .await
    };
    assert!(!read().await.unwrap().is_empty());
    let mut lock = database.pool.begin().await.unwrap();
    let statement = sqlx::query("LOCK TABLE usage_parts IN ACCESS EXCLUSIVE MODE");
    statement.execute(&mut *lock).await.unwrap();
    let error = read().await.unwrap_err();
    assert!(error.took_too_long(), "{error:?}");
    lock.rollback().await.unwrap();
    assert!(!read().await.unwrap().is_empty());
    let started = LedgerEvent::Started(call(7, 5, &Tenant::default(), at));
    assert!(reports.record(&[(1, started)]).await.is_err());
}
