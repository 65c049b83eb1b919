//! Leases of limits and the sums they rest on, under whatever order of events.

use std::{collections::HashMap, time::Duration};

use rust_decimal::Decimal;
use tollgate_audit::{Actor, Asked, LimitInfo, NewLimit};
use tollgate_types::{
    AttemptId, Grant, Hold, KeyId, LeaseId, LimitId, Millis, RequestId, Tenant, Usage, UsageSource,
    ledger::{Attempt, AttemptOutcome, LedgerEvent},
    limit::{Measure, Period, Scope, WhenAway},
};
use uuid::Uuid;

use crate::support::{Database, START, attempt, caller, settlement};

/// Numbers that look drawn and are the same each time.
struct Lots(u64);

impl Lots {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn actor() -> Actor {
    Actor {
        key_id: KeyId::generate(),
        name: "tests".to_owned(),
        tenant: Tenant::default(),
        grant: Grant::default(),
    }
}

fn limit(measure: Measure, amount: &str) -> NewLimit {
    NewLimit {
        name: "l".to_owned(),
        scope: Scope {
            key_id: Some(caller().key_id),
            ..Scope::default()
        },
        measure,
        amount: amount.parse().unwrap(),
        period: (measure == Measure::Usd).then_some(Period::Total),
        time_zone: None,
        window_seconds: None,
        when_away: WhenAway::Refuse,
        notify_at: Vec::new(),
        webhook: None,
    }
}

async fn stands(database: &Database) -> LimitInfo {
    database.store.limits(&Tenant::default()).await.unwrap().pop().unwrap()
}

const SUMS: &str = "SELECT concat_ws(' ', slot, organisation, team, key_name, model, provider, calls, unpriced_calls,
                                     orphaned_calls, input_tokens, cached_input_tokens, output_tokens, trim_scale(cost_usd))
                    FROM usage_slots ORDER BY 1";
const TAGS: &str = "SELECT concat_ws(' ', slot, organisation, name, value, calls, unpriced_calls, orphaned_calls,
                                     input_tokens, output_tokens, trim_scale(cost_usd)) FROM usage_tags ORDER BY 1";
const USERS: &str =
    "SELECT concat_ws(' ', day, organisation, team, end_user, calls, unpriced_calls, orphaned_calls, input_tokens,
                                      output_tokens, trim_scale(cost_usd)) FROM usage_users ORDER BY 1";
const PARTS: &str =
    "SELECT concat_ws(' ', day, organisation, team, key_name, model, provider, tier, unit, trim_scale(rate_usd),
                                      quantity, trim_scale(usd), trim_scale(billed_usd), trim_scale(saved_usd))
                     FROM usage_parts WHERE (quantity, billed_usd) <> (0, 0) ORDER BY 1";
/// Views, and what they are without sums and indexes.
const PLAINLY: [(&str, &str); 4] = [
    (
        "cost_by_user",
        "SELECT day, organisation, team, end_user, count(*), sum(input_tokens), sum(output_tokens), coalesce(sum(cost_usd), 0),
                count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned')
         FROM ledger WHERE state <> 'open' AND end_user IS NOT NULL GROUP BY 1, 2, 3, 4",
    ),
    (
        "unpriced_calls",
        "SELECT day, provider, provider_model, coalesce(served_model, provider_model), key_id, key_name, count(*),
                sum(input_tokens), sum(output_tokens), organisation, team
         FROM ledger WHERE state <> 'open' AND cost_usd IS NULL GROUP BY 1, 2, 3, 4, 5, 6, 10, 11",
    ),
    (
        "orphaned_calls",
        "SELECT day, provider, model, key_id, key_name, count(*), sum(input_tokens), sum(output_tokens),
                coalesce(sum(cost_usd), 0), organisation, team
         FROM ledger WHERE state = 'orphaned' GROUP BY 1, 2, 3, 4, 5, 10, 11",
    ),
    (
        "cost_of_retries",
        "SELECT day, model, count(*) FILTER (WHERE calls > 1), sum(calls - 1), count(*) FILTER (WHERE NOT answered),
                sum(lost_usd), sum(cost_usd)
         FROM (
             SELECT day, model, request_id, count(*) AS calls, coalesce(sum(cost_usd), 0) AS cost_usd,
                    bool_or(outcome = 'answered') AS answered,
                    coalesce(sum(cost_usd) FILTER (WHERE NOT hedge AND outcome IS DISTINCT FROM 'answered'), 0) AS lost_usd
             FROM ledger WHERE state <> 'open' GROUP BY 1, 2, 3
         ) AS tried GROUP BY 1, 2",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_those_of_the_ledger_in_whatever_order_it_was_written() {
    let database = Database::fresh().await;
    let mut lots = Lots(7);
    let mut events = Vec::new();
    for number in 1..=300u128 {
        let mut attempt = attempt(number);
        attempt.started_at = Millis(START.0 + lots.below(40 * 60 * 1000));
        attempt.deadline = Millis(attempt.started_at.0 + 1000);
        if lots.below(4) == 0 {
            "unknown".clone_into(&mut attempt.target.model);
        }
        attempt.caller.user = [None, Some("u-1"), Some("u-2")][usize::try_from(number % 3).unwrap()].map(str::to_owned);
        attempt.generation = 0;
        // One call in four is a request's second.
        let first = if number % 4 == 0 { number - 1 } else { number };
        if first % 3 == 0 {
            attempt.caller.tenant = Tenant::default();
        }
        attempt.request_id = RequestId::from(Uuid::from_u128(first << 64));
        if first != number {
            (attempt.generation, attempt.retry, attempt.hedge) =
                [(0, 1, false), (1, 0, false), (0, 0, true)][usize::try_from(lots.below(3)).unwrap()];
        }
        let mut end = settlement();
        end.served_model = None;
        if lots.below(4) == 0 {
            end.outcome = AttemptOutcome::Failed;
        }
        end.usage.input_tokens = lots.below(100_000);
        end.usage.output_tokens = lots.below(1000);
        if lots.below(10) == 0 {
            (end.usage, end.usage_source) = (Usage::default(), UsageSource::None);
        }
        let started = LedgerEvent::Started(attempt.clone());
        let settled = LedgerEvent::Settled {
            attempt,
            settlement: end,
        };
        // Some never settle, some settle too late, some start after they have settled, and some say all of it twice.
        events.push(match lots.below(5) {
            0 => (vec![started], vec![]),
            1 => (vec![started], vec![settled]),
            2 => (vec![settled, started], vec![]),
            _ => (vec![started, settled.clone()], vec![settled]),
        });
    }
    let in_batches = async |events: Vec<LedgerEvent>, size: usize| {
        for batch in events.chunks(size) {
            let batch: Vec<_> = batch.iter().map(|event| (1, event.clone())).collect();
            database.store.record(&batch).await.unwrap();
        }
    };
    let (early, late): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    in_batches(early.into_iter().flatten().collect(), 7).await;
    let after_all = Millis(START.0 + 24 * 3_600_000);
    assert!(database.store.orphan(after_all, Duration::ZERO).await.unwrap() > 50);
    in_batches(late.into_iter().flatten().collect(), 11).await;
    let (sums, tags) = (database.texts(SUMS).await, database.texts(TAGS).await);
    assert!(sums.len() > 6 && tags.len() > 6, "{} {}", sums.len(), tags.len());
    let totals = |from: &str| {
        format!(
            "SELECT concat_ws(' ', sum(calls), sum(unpriced), sum(orphaned), sum(input), sum(output), trim_scale(sum(cost)))
             FROM (SELECT {from}) AS all_of_it"
        )
    };
    let of_the_ledger = totals(
        "1 AS calls, (cost_usd IS NULL)::int AS unpriced, (state = 'orphaned')::int AS orphaned, input_tokens AS input,
         output_tokens AS output, cost_usd AS cost FROM ledger WHERE state <> 'open'",
    );
    let of_the_sums = totals(
        "calls, unpriced_calls AS unpriced, orphaned_calls AS orphaned, input_tokens AS input, output_tokens AS output,
         cost_usd AS cost FROM usage_slots",
    );
    assert_eq!(database.text(&of_the_sums).await, database.text(&of_the_ledger).await);
    let parts = database.texts(PARTS).await;
    let users = database.texts(USERS).await;
    assert!(users.len() >= 4, "{users:#?}");
    // Made anew from the ledger they are the same, to the last digit.
    database
        .run("SELECT usage_rebuild('-infinity', 'infinity')")
        .await
        .unwrap();
    assert_eq!((database.texts(SUMS).await, database.texts(TAGS).await), (sums, tags));
    assert_eq!(database.texts(PARTS).await, parts);
    assert_eq!(database.texts(USERS).await, users);
    assert_eq!(parts.len(), 8, "{parts:#?}");
    // Reports that do not read every call say what doing so says.
    for (view, plain) in PLAINLY {
        let rows = |from: &str| format!("SELECT rows::text FROM ({from}) AS rows ORDER BY 1");
        let told = database.texts(&rows(&format!("SELECT * FROM {view}"))).await;
        assert!(!told.is_empty(), "{view}");
        assert_eq!(told, database.texts(&rows(plain)).await, "{view}");
    }
}

/// What one ingress replica thinks that it has.
#[derive(Default)]
struct Holder {
    lease: Option<LeaseId>,
    granted: Decimal,
    returned: Decimal,
    spent: Decimal,
}

impl Holder {
    fn left(&self) -> Decimal {
        self.granted - self.returned - self.spent
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spent_and_leased_never_pass_a_budget() {
    let database = Database::fresh().await;
    let amount: Decimal = "0.01".parse().unwrap();
    let made = database
        .store
        .put_limit(&actor(), &limit(Measure::Usd, "0.01"))
        .await
        .unwrap();
    let mut lots = Lots(11);
    let mut holders: Vec<Holder> = (0..3).map(|_| Holder::default()).collect();
    let mut open: HashMap<u128, (Attempt, usize)> = HashMap::new();
    let hold: Decimal = "0.0004".parse().unwrap();
    let (mut highest, mut refused) = (Decimal::ZERO, 0);
    for step in 1..=600u128 {
        let who = usize::try_from(lots.below(3)).unwrap();
        match lots.below(8) {
            // It asks for more.
            0 | 1 => {
                let holder = &mut holders[who];
                let lease_id = *holder.lease.get_or_insert_with(LeaseId::generate);
                let asked = Asked {
                    limit_id: made.limit_id,
                    lease_id,
                    returned: holder.returned,
                    wanted: hold * Decimal::from(lots.below(6)),
                    needed: hold,
                    last: false,
                };
                let granted = database
                    .store
                    .lease("h", &[asked], Duration::from_secs(60))
                    .await
                    .unwrap();
                if granted[0].valid {
                    holder.granted = granted[0].granted;
                } else {
                    holder.lease = None;
                    *holder = Holder::default();
                }
            }
            // It gives something back, and says so when it asks next.
            2 => {
                let holder = &mut holders[who];
                let back = holder.left() / Decimal::TWO;
                holder.returned += back.round_dp(6).min(holder.left());
            }
            // It is killed; what it had in hand nobody uses.
            3 if step % 5 == 0 => holders[who] = Holder::default(),
            // All that has not been heard of for long ends.
            4 if step % 7 == 0 => {
                database
                    .run("UPDATE leases SET expires_at = now() - interval '1 hour' WHERE random() < 0.3")
                    .await
                    .unwrap();
                let live: Vec<_> = holders.iter().filter_map(|holder| holder.lease).collect();
                let later = format!(
                    "UPDATE leases SET expires_at = now() + interval '1 hour' WHERE lease_id::text IN ('{}')",
                    live.iter()
                        .map(|lease| lease.as_uuid().to_string())
                        .collect::<Vec<_>>()
                        .join("','")
                );
                database.run(&later).await.unwrap();
                database.store.sweep_leases(Millis::now()).await.unwrap();
            }
            // A call ends, for less than was reserved or for as much.
            5 | 6 if !open.is_empty() => {
                let number = *open.keys().min().unwrap();
                let (attempt, who) = open.remove(&number).unwrap();
                let mut end = settlement();
                end.usage.output_tokens = lots.below(460);
                let cost = Decimal::from(120 + 60 * end.usage.output_tokens / 100) / Decimal::from(1_000_000);
                let lease = attempt.hold.as_ref().unwrap().leases[0];
                if holders[who].lease == Some(lease) {
                    holders[who].spent += cost - hold;
                }
                let settled = LedgerEvent::Settled {
                    attempt,
                    settlement: end,
                };
                database.record(std::slice::from_ref(&settled)).await;
                if lots.below(5) == 0 {
                    database.record(&[settled]).await;
                }
            }
            _ => {
                let holder = &mut holders[who];
                if holder.left() < hold {
                    refused += 1;
                    continue;
                }
                holder.spent += hold;
                let mut attempt = attempt(step);
                (attempt.started_at, attempt.deadline) = (Millis::now(), Millis(Millis::now().0 + 3_600_000));
                attempt.hold = Some(Hold {
                    leases: vec![holder.lease.unwrap()],
                    usd: hold,
                });
                database.record(&[LedgerEvent::Started(attempt.clone())]).await;
                open.insert(step, (attempt, who));
            }
        }
        let now = stands(&database).await;
        assert!(
            now.spent + now.leased <= amount,
            "step {step}: {} and {}",
            now.spent,
            now.leased
        );
        let in_hand: Decimal = holders.iter().map(Holder::left).sum();
        let under_way = hold * Decimal::from(open.len());
        let at_most = now.spent + under_way + in_hand;
        assert!(at_most <= amount, "step {step}: {at_most} can be spent");
        highest = highest.max(now.spent);
    }
    assert!(
        highest > amount * Decimal::new(7, 1),
        "only {highest} was spent, {refused} refused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_a_window_and_of_places_come_back_with_time() {
    let database = Database::fresh().await;
    let mut window = limit(Measure::Requests, "100");
    window.window_seconds = Some(60);
    let made = database.store.put_limit(&actor(), &window).await.unwrap();
    let ask = |limit_id: LimitId, lease_id, wanted: u32, needed: u32, returned: u32| Asked {
        limit_id,
        lease_id,
        returned: returned.into(),
        wanted: wanted.into(),
        needed: needed.into(),
        last: false,
    };
    let lease = async |asked: Asked| {
        database
            .store
            .lease("h", &[asked], Duration::from_secs(15))
            .await
            .unwrap()
            .remove(0)
    };
    let first = LeaseId::generate();
    // An eighth at a time, rounded up, or what is needed.
    assert_eq!(
        lease(ask(made.limit_id, first, 100, 1, 0)).await.granted,
        Decimal::from(13)
    );
    let second = lease(ask(made.limit_id, LeaseId::generate(), 80, 80, 0)).await;
    assert_eq!(
        (second.granted, second.free, second.lasts),
        (80.into(), 7.into(), Duration::from_secs(1))
    );
    let third = lease(ask(made.limit_id, LeaseId::generate(), 80, 8, 0)).await;
    assert_eq!((third.granted, third.valid), (0.into(), true));
    assert!(third.resets.unwrap() > Duration::from_secs(59));
    // What was not used is free at once; the slice itself gets no more.
    let back = lease(ask(made.limit_id, first, 0, 0, 5)).await;
    assert_eq!((back.valid, back.free), (false, 12.into()));
    let whole = lease(ask(made.limit_id, LeaseId::generate(), 80, 12, 0)).await;
    assert_eq!(whole.granted, Decimal::from(12));
    let earlier =
        "UPDATE leases SET opened_at = opened_at - interval '60.5 s', expires_at = expires_at - interval '60.5 s'";
    database.run(earlier).await.unwrap();
    assert_eq!(
        lease(ask(made.limit_id, LeaseId::generate(), 1, 1, 0)).await.granted,
        Decimal::ZERO
    );
    database.run(&earlier.replace("60.5", "0.6")).await.unwrap();
    assert_eq!(
        lease(ask(made.limit_id, LeaseId::generate(), 100, 100, 0))
            .await
            .granted,
        Decimal::from(100)
    );
    database.store.remove_limit(&actor(), "l").await.unwrap();
    assert!(!lease(ask(made.limit_id, LeaseId::generate(), 1, 1, 0)).await.valid);
    assert!(
        !lease(ask(LimitId::generate(), LeaseId::generate(), 1, 1, 0))
            .await
            .valid
    );

    // Places are held until they are given back, or their holder is gone.
    let places = database
        .store
        .put_limit(&actor(), &limit(Measure::Concurrency, "3"))
        .await
        .unwrap();
    let mine = LeaseId::generate();
    assert_eq!(
        lease(ask(places.limit_id, mine, 3, 3, 0)).await.granted,
        Decimal::from(3)
    );
    assert_eq!(
        lease(ask(places.limit_id, LeaseId::generate(), 1, 1, 0)).await.granted,
        Decimal::ZERO
    );
    assert_eq!(lease(ask(places.limit_id, mine, 0, 0, 1)).await.free, Decimal::ONE);
    let theirs = LeaseId::generate();
    assert_eq!(lease(ask(places.limit_id, theirs, 1, 1, 0)).await.granted, Decimal::ONE);
    database
        .run("UPDATE leases SET expires_at = now() - interval '1 hour'")
        .await
        .unwrap();
    database.store.sweep_leases(Millis::now()).await.unwrap();
    assert!(!lease(ask(places.limit_id, theirs, 0, 0, 0)).await.valid);
    assert_eq!(
        lease(ask(places.limit_id, LeaseId::generate(), 3, 3, 0)).await.granted,
        Decimal::from(3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_begins_at_midnight_where_its_owner_lives() {
    let database = Database::fresh().await;
    let monthly = NewLimit {
        period: Some(Period::Month),
        time_zone: Some("Asia/Kathmandu".to_owned()),
        ..limit(Measure::Usd, "1")
    };
    database.store.put_limit(&actor(), &monthly).await.unwrap();
    // Midnight in Kathmandu is a quarter past six in the evening before, in UTC.
    let period = |at: &str| {
        format!(
            "SELECT concat_ws(' ', p.began AT TIME ZONE 'UTC', p.ends AT TIME ZONE 'UTC')
             FROM limits l CROSS JOIN LATERAL budget_period(l, '{at}') AS p"
        )
    };
    assert_eq!(
        database.text(&period("2026-03-31 18:14:59+00")).await,
        "2026-02-28 18:15:00 2026-03-31 18:15:00"
    );
    assert_eq!(
        database.text(&period("2026-03-31 18:15:00+00")).await,
        "2026-03-31 18:15:00 2026-04-30 18:15:00"
    );
    let weekly = NewLimit {
        period: Some(Period::Week),
        time_zone: Some("Europe/Berlin".to_owned()),
        ..monthly.clone()
    };
    database.store.put_limit(&actor(), &weekly).await.unwrap();
    // The week in which summer time begins has 167 hours.
    assert_eq!(
        database.text(&period("2026-03-25 12:00:00+00")).await,
        "2026-03-22 23:00:00 2026-03-29 22:00:00"
    );
    // What was spent before a budget was made is not spent of it, and what is spent after it is changed still is.
    let now = |number| {
        let mut attempt = attempt(number);
        attempt.attempt_id = AttemptId::generate();
        attempt.request_id = RequestId::generate();
        attempt.started_at = Millis::now();
        LedgerEvent::Settled {
            attempt,
            settlement: settlement(),
        }
    };
    database.store.remove_limit(&actor(), "l").await.unwrap();
    database.record(&[now(1)]).await;
    let total = limit(Measure::Usd, "1");
    assert_eq!(
        database.store.put_limit(&actor(), &total).await.unwrap().spent,
        Decimal::ZERO
    );
    database.record(&[now(2), now(3)]).await;
    let spent = Decimal::new(48, 5);
    assert_eq!(stands(&database).await.spent, spent);
    let larger = NewLimit {
        amount: Decimal::TEN,
        ..total.clone()
    };
    assert_eq!(database.store.put_limit(&actor(), &larger).await.unwrap().spent, spent);
    let another = NewLimit {
        scope: Scope::default(),
        ..total
    };
    assert!(database.store.put_limit(&actor(), &another).await.is_err());
}

/// An attempt that was made at this time, with an id that says so.
fn made_at(at: Millis, number: u64) -> Attempt {
    let id = format!("{:012x}70008000{number:012x}", at.0);
    let mut attempt = attempt(1);
    attempt.attempt_id = AttemptId::of(id.parse().unwrap());
    attempt.request_id = RequestId::generate();
    (attempt.started_at, attempt.deadline) = (at, Millis(at.0 + 1000));
    attempt
}

#[tokio::test(flavor = "multi_thread")]
async fn months_go_at_once_and_what_they_cost_stays() {
    let database = Database::fresh().await;
    let now = chrono::Utc::now();
    let month = |ahead: u32| {
        let first = chrono::Datelike::with_day(&now, 1).unwrap().date_naive();
        let at = (first + chrono::Months::new(ahead)).and_hms_opt(12, 0, 0).unwrap();
        at.and_utc()
    };
    let made = database.store.make_partitions(month(3)).await.unwrap();
    assert!((1..=2).contains(&made), "{made}");
    assert_eq!(database.store.make_partitions(month(3)).await.unwrap(), 0);
    for ahead in [0, 1, 2, 3, 100] {
        let attempt = made_at(Millis::from(month(ahead)), 1);
        database.record(&[LedgerEvent::Started(attempt.clone())]).await;
        if ahead == 1 {
            // An orphan that settles after all.
            database
                .store
                .orphan(Millis(Millis::from(month(1)).0 + 10_000), Duration::ZERO)
                .await
                .unwrap();
        }
        let settlement = settlement();
        database.record(&[LedgerEvent::Settled { attempt, settlement }]).await;
    }
    let places = "SELECT DISTINCT tableoid::regclass::text FROM attempts ORDER BY 1";
    let before = database.texts(places).await;
    assert_eq!(before.len(), 5, "{before:?}");
    assert!(before.contains(&"attempts_first".to_owned()) && before.contains(&"attempts_stray".to_owned()));
    let cost = "SELECT trim_scale(sum(cost_usd)) || ' ' || sum(calls) FROM cost_by_day";
    let sums = database.text(cost).await;
    assert_eq!(
        database.text("SELECT count(*)::text FROM attempt_corrections").await,
        "1"
    );
    // Only whole months go.
    assert_eq!(database.store.forget_calls(month(0)).await.unwrap(), 0);
    assert_eq!(database.store.forget_calls(month(2)).await.unwrap(), 2);
    assert_eq!(database.store.forget_calls(month(2)).await.unwrap(), 0);
    assert_eq!(database.texts(places).await.len(), 3);
    assert_eq!(
        database.text("SELECT count(*)::text FROM attempt_corrections").await,
        "0"
    );
    assert_eq!(database.text(cost).await, sums);
    // Of months without calls there are no users, and nothing is said of what was tried again.
    for view in ["cost_by_user", "cost_of_retries"] {
        let days = format!("SELECT count(DISTINCT day)::text FROM {view}");
        assert_eq!(database.text(&days).await, "3", "{view}");
    }
    // What is there is still nobody's to change, whichever way.
    for table in database.texts(places).await {
        for change in [
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("UPDATE {table} SET cost_usd = 0"),
        ] {
            assert!(database.run(&change).await.is_err(), "{change}");
        }
    }
    assert!(database.run("TRUNCATE attempts").await.is_err());
    // Times that have a partition no more are stray, and known by their ids all the same.
    let late = made_at(Millis::from(month(0)), 2);
    let settled = LedgerEvent::Settled {
        attempt: late,
        settlement: settlement(),
    };
    database.record(&[settled.clone(), settled]).await;
    let stray = "SELECT count(*)::text FROM attempts WHERE tableoid = 'attempts_stray'::regclass";
    assert_eq!(database.text(stray).await, "2");
}
