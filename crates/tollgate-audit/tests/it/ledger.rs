//! Recording: replays, orders, two writers at once, and what no row can hold.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;
use tollgate_audit::{Error, Recorded, Store};
use tollgate_types::{Millis, Operation, Tenant, UsageSource, ledger::LedgerEvent};

use crate::support::{Database, EVERY_KIND, abandoned, attempt, concluded, settled, settlement, started};

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_changes_nothing() {
    let database = Database::fresh().await;
    let mut events: Vec<(u64, LedgerEvent)> = Vec::new();
    for number in 1..=40 {
        let sequence = number as u64;
        events.push((sequence, started(number)));
        match number % 4 {
            0 => events.push((sequence, settled(number))),
            1 => events.push((sequence, abandoned(number))),
            2 => events.push((sequence, concluded(number))),
            _ => {}
        }
    }
    let first = database.store.record(&events).await.unwrap();
    let expected = Recorded {
        opened: 30,
        settled: 10,
        unpriced: 0,
        corrected: 0,
        abandoned: 10,
        concluded: 10,
    };
    assert_eq!(first, expected);
    let before = database.fingerprint().await;
    assert_eq!(database.store.record(&events).await.unwrap(), Recorded::default());
    events.reverse();
    for (sequence, event) in events {
        assert_eq!(
            database.store.record(&[(sequence, event)]).await.unwrap(),
            Recorded::default()
        );
    }
    assert_eq!(database.fingerprint().await, before);
}

/// The different orders of the letters.
fn orders(letters: &str) -> BTreeSet<String> {
    if letters.is_empty() {
        return BTreeSet::from([String::new()]);
    }
    let without = |at: usize| format!("{}{}", &letters[..at], &letters[at + 1..]);
    let from = |at: usize| {
        orders(&without(at))
            .into_iter()
            .map(move |rest| format!("{}{rest}", &letters[at..=at]))
    };
    (0..letters.len()).flat_map(from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_and_repetition_gives_the_same_row() {
    let database = Database::fresh().await;
    let mut number = 0;
    // Started, ended, abandoned, each told twice; in batches of one, of four, and all at once.
    for order in orders("ssaaee") {
        for batch in [1, 4, 6] {
            number += 1;
            let event = |letter| match letter {
                's' => (1, started(number)),
                'e' => (2, settled(number)),
                _ => (3, abandoned(number)),
            };
            let events: Vec<_> = order.chars().map(event).collect();
            for some in events.chunks(batch) {
                database.store.record(some).await.unwrap();
            }
        }
    }
    assert_eq!(number, 270);
    let rows = "SELECT count(*)::text || ' ' || state || ' ' || cost_usd
                FROM (SELECT to_jsonb(l) - 'attempt_id' - 'request_id' AS row, state, cost_usd FROM ledger l) AS seen
                GROUP BY row, state, cost_usd";
    assert_eq!(database.texts(rows).await, ["270 settled 0.00024"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_alone_is_a_whole_row() {
    let database = Database::fresh().await;
    database.record(&[settled(1), started(1)]).await;
    let row = "SELECT to_jsonb(a)::text FROM attempts a";
    let row: BTreeMap<String, serde_json::Value> = serde_json::from_str(&database.text(row).await).unwrap();
    let empty: Vec<&str> = row
        .iter()
        .filter(|(_, value)| value.is_null())
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(empty, ["error_code", "hold_leases", "hold_usd"]);
    assert_eq!(
        (row["provider_model"].as_str(), row["first_token_ms"].as_u64()),
        (Some("sim-mini"), Some(120))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_settlement_stays() {
    let database = Database::fresh().await;
    let mut other = settlement();
    other.usage.output_tokens = 9;
    let other = LedgerEvent::Settled {
        attempt: attempt(1),
        settlement: other,
    };
    database.record(&[settled(1), other.clone()]).await;
    database.store.record(&[(1, settled(2)), (2, other)]).await.unwrap();
    assert_eq!(
        database.texts("SELECT output_tokens::text FROM attempts").await,
        ["200", "200"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_price_has_no_cost() {
    let database = Database::fresh().await;
    let event = |number, served: Option<&str>, asked: &str, source| {
        let (mut attempt, mut settlement) = (attempt(number), settlement());
        attempt.target.model = asked.to_owned();
        settlement.served_model = served.map(str::to_owned);
        settlement.usage_source = source;
        (1, LedgerEvent::Settled { attempt, settlement })
    };
    let events = [
        event(1, Some("sim-large"), "sim-mini", UsageSource::Provider),
        event(2, Some("sim-mini-2031"), "sim-mini", UsageSource::Counted),
        event(3, None, "sim-mini", UsageSource::Provider),
        event(4, Some("unheard-of"), "unheard-of", UsageSource::Provider),
        event(5, None, "unheard-of", UsageSource::None),
        event(6, None, "sim-mini", UsageSource::None),
    ];
    let recorded = database.store.record(&events).await.unwrap();
    assert_eq!((recorded.settled, recorded.unpriced), (6, 1));
    let rows = "SELECT coalesce(cost_usd::text, 'unpriced') || ' ' || coalesce(p.model, 'no price')
                FROM attempts LEFT JOIN price_sheets p ON p.id = price_id ORDER BY attempt_id";
    // 600 × 2.50 + 400 × 1.25 + 200 × 10 = 1500 + 500 + 2000 millionths
    let expected = [
        "0.004 sim-large",
        "0.00024 sim-mini",
        "0.00024 sim-mini",
        "unpriced no price",
        "0 no price",
        "0 sim-mini",
    ];
    let rows = database.texts(rows).await;
    assert_eq!(rows.iter().map(|row| simple(row)).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_a_column_and_costs_its_own_rate() {
    let database = Database::fresh().await;
    let event = |number, model: &str, operation| {
        let (mut attempt, mut settlement) = (attempt(number), settlement());
        attempt.target.provider = if model == "sim-mini" { "simulator" } else { "openai" }.to_owned();
        attempt.target.model = model.to_owned();
        attempt.operation = operation;
        settlement.served_model = None;
        settlement.usage = EVERY_KIND;
        (1, LedgerEvent::Settled { attempt, settlement })
    };
    // A price without rates for sound and the like does not make them free.
    let events = [
        event(1, "sim-mini", Operation::Chat),
        event(2, "gpt-4o", Operation::Embed),
    ];
    assert_eq!(database.store.record(&events).await.unwrap().unpriced, 1);
    let rows = "SELECT concat_ws(' ', operation, cache_write_input_tokens, cache_write_1h_input_tokens,
                                 audio_input_tokens, audio_output_tokens, web_searches,
                                 coalesce(trim_scale(cost_usd)::text, 'unpriced'))
                FROM ledger ORDER BY attempt_id";
    assert_eq!(
        database.texts(rows).await,
        ["chat 300 200 100 50 2 0.02043125", "embed 300 200 100 50 2 unpriced"]
    );
}

/// The row without zeros at the end of its number.
fn simple(row: &str) -> String {
    let (number, rest) = row.split_once(' ').unwrap();
    match number.split_once('.') {
        Some(_) => format!("{} {rest}", number.trim_end_matches('0').trim_end_matches('.')),
        None => row.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_row_can_hold_is_refused_by_name() {
    let database = Database::fresh().await;
    let mut cases: Vec<(LedgerEvent, &str)> = Vec::new();
    let mut huge = settlement();
    huge.usage.output_tokens = u64::MAX;
    cases.push((
        LedgerEvent::Settled {
            attempt: attempt(1),
            settlement: huge,
        },
        "usage.output_tokens is out of range",
    ));
    let mut late = attempt(1);
    late.deadline = Millis(u64::MAX);
    cases.push((LedgerEvent::Started(late), "deadline is out of range"));
    let mut served = settlement();
    served.served_model = Some("gpt\0".to_owned());
    cases.push((
        LedgerEvent::Settled {
            attempt: attempt(1),
            settlement: served,
        },
        "served_model has a NUL",
    ));
    let mut tagged = attempt(1);
    tagged.caller.tags.insert("team".to_owned(), "\0".to_owned());
    cases.push((LedgerEvent::Started(tagged), "the value of a tag has a NUL"));
    let before = database.fingerprint().await;
    for (event, expected) in cases {
        let error = database.store.record(&[(6, settled(2)), (7, event)]).await.unwrap_err();
        assert!(
            matches!(&error, Error::Refused { sequence: 7, reason } if *reason == expected),
            "{error:?}"
        );
        assert_eq!(error.refusal().unwrap(), expected);
    }
    assert_eq!(database.fingerprint().await, before);
    // The largest counts that fit do not break what sums them up.
    let mut most = settlement();
    most.usage.input_tokens = i64::MAX as u64;
    for number in 1..=3 {
        database
            .record(&[LedgerEvent::Settled {
                attempt: attempt(number),
                settlement: most.clone(),
            }])
            .await;
    }
    let rows = database
        .store
        .cost(
            tollgate_audit::GroupBy::Model,
            &Tenant::default(),
            Millis(0),
            Millis(u64::MAX),
        )
        .await
        .unwrap();
    assert_eq!((rows[0].calls, rows[0].input_tokens), (3, i64::MAX as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_the_same_events_do_not_get_in_each_others_way() {
    let database = Database::fresh().await;
    let other = Store::connect(&database.url, 4).unwrap();
    let events = |number: u128| {
        [
            (1, started(number)),
            (2, settled(number)),
            (3, abandoned(number)),
            (4, concluded(number)),
        ]
    };
    let all: Vec<(u64, LedgerEvent)> = (1..=400).flat_map(events).collect();
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let store = if writer % 2 == 0 {
            database.store.clone()
        } else {
            other.clone()
        };
        // Each in an order and in batches of its own.
        let mut mine = all.clone();
        mine.rotate_left(writer * 397);
        if writer >= 2 {
            mine.reverse();
        }
        writers.spawn(async move {
            let mut sum = (0, 0);
            for batch in mine.chunks(90 + writer * 37) {
                let recorded = store.record(batch).await.unwrap();
                sum = (sum.0 + recorded.settled, sum.1 + recorded.concluded);
            }
            sum
        });
    }
    let sums = writers
        .join_all()
        .await
        .into_iter()
        .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert_eq!(sums, (400, 400));
    let states = "SELECT state || ' ' || count(*) || ' ' || sum(cost_usd) FROM ledger GROUP BY state";
    assert_eq!(
        database
            .texts(states)
            .await
            .iter()
            .map(|row| simple_tail(row))
            .collect::<Vec<_>>(),
        ["settled 400 0.096"]
    );
    other.close().await;
}

fn simple_tail(row: &str) -> &str {
    row.trim_end_matches('0')
}
