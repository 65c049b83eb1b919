//! The catalogue: how sheets take each other's place, and what they make of calls.

use chrono::{DateTime, Utc};
use tollgate_audit::{Actor, Error, PriceChange, Store, migrate};
use tollgate_pricing::{Catalogue, Consumption, PriceLists, Sheet, Tier, Unit};
use tollgate_types::{Grant, KeyId, Tenant, ledger::LedgerEvent};

use crate::support::{Database, START, attempt, settlement};

fn sheets(lines: &str) -> Vec<Sheet> {
    Catalogue::read(lines, "test").unwrap().sheets().cloned().collect()
}

fn own(input: &str, more: &str) -> String {
    format!(r#"{{"provider": "mine", "model": "m", "per_million": {{"input": "{input}"}}, "custom": true{more}}}"#)
}

fn somebody() -> Actor {
    Actor {
        key_id: KeyId::from_hash(&[1; 32]),
        name: "somebody".to_owned(),
        tenant: Tenant::default(),
        grant: Grant::default(),
    }
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

const PERIODS: &str = "SELECT concat_ws(' ', sheet #>> '{per_million,input}', coalesce(valid_from::date::text, 'ever'),
                              coalesce(valid_to::date::text, 'open'), version)
                       FROM price_sheets WHERE provider = 'mine' ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sheet_ends_the_one_before() {
    let database = Database::fresh().await;
    let import = async |lines: &str, now: &str, dry: bool| -> Result<Vec<PriceChange>, Error> {
        database
            .store
            .import_prices(&sheets(lines), at(now), Some(&somebody()).filter(|_| !dry))
            .await
    };
    let first = import(&own("1", ""), "2026-01-01T00:00:00Z", false).await.unwrap();
    assert_eq!((first.len(), &first[0].before), (1, &None));
    // Once more changes nothing; tried out, another changes nothing either.
    assert_eq!(import(&own("1", ""), "2026-01-02T00:00:00Z", false).await.unwrap(), []);
    let tried = import(&own("2", ""), "2026-02-01T00:00:00Z", true).await.unwrap();
    assert_eq!(
        tried[0].before.as_ref().map(|before| before.per_million.clone()),
        Some(first[0].after.per_million.clone())
    );
    import(&own("2", ""), "2026-02-01T00:00:00Z", false).await.unwrap();
    // Two at once, the second announced for later.
    let both = [own("3", ""), own("1", r#", "valid_from": "2026-06-01T00:00:00Z""#)].join("\n");
    import(&both, "2026-03-01T00:00:00Z", false).await.unwrap();
    let periods = database.texts(PERIODS).await;
    let version = |row: &str| row.rsplit_once(' ').unwrap().1.to_owned();
    let times: Vec<&str> = periods.iter().map(|row| row.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(
        times,
        [
            "1 ever 2026-02-01",
            "2 2026-02-01 2026-03-01",
            "3 2026-03-01 2026-06-01",
            "1 2026-06-01 open"
        ]
    );
    // The first and the last ask the same.
    assert_eq!(version(&periods[0]), version(&periods[3]));
    assert_ne!(version(&periods[0]), version(&periods[1]));
    // What the ledger may have used already is not changed behind its back.
    let early = own("9", r#", "valid_from": "2026-01-15T00:00:00Z""#);
    let refused = import(&early, "2026-07-01T00:00:00Z", false).await.unwrap_err();
    assert!(matches!(refused, Error::Prices(_)), "{refused}");
    assert_eq!(database.texts(PERIODS).await, periods);
    // Nor does what ships with a later version touch an own price.
    migrate(&database.url).await.unwrap();
    assert_eq!(database.texts(PERIODS).await, periods);
}

#[tokio::test(flavor = "multi_thread")]
async fn sheets_are_listed_as_they_hold() {
    let database = Database::fresh().await;
    let store = &database.store;
    let mine = [
        own("1", r#", "valid_to": "2026-02-01T00:00:00Z""#),
        own("2", r#", "valid_from": "2026-02-01T00:00:00Z""#),
    ];
    let now = at("2026-01-01T00:00:00Z");
    store
        .import_prices(&sheets(&mine.join("\n")), now, Some(&somebody()))
        .await
        .unwrap();
    let count = async |provider, model, at| store.prices(provider, model, at).await.unwrap().len();
    assert_eq!(count(Some("mine"), None, None).await, 2);
    assert_eq!(count(Some("mine"), Some("m"), Some(now)).await, 1);
    assert_eq!(count(Some("mine"), Some("other"), None).await, 0);
    assert!(count(None, None, Some(now)).await > 1900);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_priced_by_all_that_its_provider_reports() {
    let database = Database::fresh().await;
    let lists: PriceLists = [("mine".to_owned(), "openai".to_owned(), None)].into_iter().collect();
    let store = Store::connect(&database.url, 2).unwrap().with_price_lists(lists);
    let event = |number, consumption| {
        let (mut attempt, mut settlement) = (attempt(number), settlement());
        attempt.target.provider = "mine".to_owned();
        attempt.target.model = "gpt-4o".to_owned();
        settlement.served_model = Some("gpt-4o-2024-08-06".to_owned());
        settlement.consumption = Some(Box::new(consumption));
        (number as u64, LedgerEvent::Settled { attempt, settlement })
    };
    let batch = Consumption {
        quantities: [(Unit::Input, 1000), (Unit::Output, 100)].into(),
        prompt_tokens: 1000,
        tier: Some(Tier::Batch),
        ..Consumption::default()
    };
    let warp = Consumption {
        served: vec!["warp".to_owned()],
        ..batch.clone()
    };
    let recorded = store.record(&[event(1, batch.clone()), event(2, warp)]).await.unwrap();
    assert_eq!((recorded.settled, recorded.unpriced), (2, 1));
    let rows = "SELECT concat_ws(' ', trim_scale(l.cost_usd), p.provider, p.model, l.cost_breakdown ->> 'tier')
                FROM ledger l JOIN price_sheets p ON p.id = l.price_id ORDER BY attempt_id";
    // 1000 × 1.25 + 100 × 5 millionths.
    assert_eq!(
        database.texts(rows).await,
        ["0.00175 openai gpt-4o-2024-08-06 batch", "openai gpt-4o-2024-08-06"]
    );
    let parts = "SELECT concat_ws(' ', unit, quantity, trim_scale(rate_usd), trim_scale(usd), tier)
                 FROM cost_components ORDER BY unit";
    assert_eq!(
        database.texts(parts).await,
        ["input 1000 1.25 0.00125 batch", "output 100 5 0.0005 batch"]
    );
    let unpriced = "SELECT concat_ws(' ', provider, served_model, calls) FROM unpriced_calls";
    assert_eq!(database.texts(unpriced).await, ["mine gpt-4o-2024-08-06 1"]);
    // A price that is entered for it holds from then on, and for the model that was asked for.
    let own =
        r#"{"provider": "mine", "model": "gpt-4o*", "per_million": {"input": "7", "output": "0"}, "custom": true}"#;
    store
        .import_prices(&sheets(own), START.to_datetime(), Some(&somebody()))
        .await
        .unwrap();
    store.record(&[event(3, batch)]).await.unwrap();
    let last = "SELECT trim_scale(cost_usd)::text FROM ledger ORDER BY attempt_id DESC LIMIT 1";
    // Its batches cost half.
    assert_eq!(database.text(last).await, "0.0035");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_usage_that_nobody_makes_are_refused() {
    let database = Database::fresh().await;
    let refused = async |consumption: Consumption| {
        let event = LedgerEvent::Settled {
            attempt: attempt(1),
            settlement: tollgate_types::ledger::Settlement {
                consumption: Some(Box::new(consumption)),
                ..settlement()
            },
        };
        database
            .store
            .record(&[(1, event)])
            .await
            .unwrap_err()
            .refusal()
            .unwrap()
    };
    let none = Consumption::default;
    let quantities = [(Unit::Output, u64::MAX)].into();
    let served = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (consumption, expected) in [
        (Consumption { quantities, ..none() }, "quantities"),
        (
            Consumption {
                prompt_tokens: u64::MAX,
                ..none()
            },
            "prompt_tokens",
        ),
        (
            Consumption {
                served: served(&["a", "b", "c", "d"]),
                ..none()
            },
            "served",
        ),
        (
            Consumption {
                served: served(&["\0"]),
                ..none()
            },
            "served",
        ),
        (
            Consumption {
                served: served(&[&"x".repeat(65)]),
                ..none()
            },
            "served",
        ),
        (
            Consumption {
                stated_usd: Some((-1).into()),
                ..none()
            },
            "stated_usd",
        ),
        (
            Consumption {
                stated_usd: Some(2_000_000_000.into()),
                ..none()
            },
            "stated_usd",
        ),
    ] {
        let reason = refused(consumption).await;
        assert_eq!(reason, format!("consumption.{expected} is out of range"));
    }
}
