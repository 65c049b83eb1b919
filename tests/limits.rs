//! Budgets and rate limits: kept over replicas, at any moment, whatever is killed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rust_decimal::Decimal;
use serde_json::{Value, json};
use tollgate_proto::v1::{
    Limit, LimitScope, ListLimitsRequest, PutLimitRequest, RemoveLimitRequest, TopUpRequest,
    limits_client::LimitsClient,
};
use tonic::Code;

use crate::harness::{KEY, Options, Stack, bearer, channel, chat, load};

/// On a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

impl Stack {
    /// Makes a limit and waits until every ingress knows it.
    async fn limit(&self, arguments: &[&str]) {
        let put = [&["limits", "put"], arguments].concat();
        self.tollgate(&put).await.unwrap();
        // As long as an ingress is slow to learn of it, nothing can be told apart; they follow within milliseconds.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// A request for four words at most; status, code and body.
    async fn asked(&self, base: &str, key: &str, model: &str) -> (u16, String, Value) {
        let mut body = chat(model, "one two three four five six seven eight #sim:words=8");
        body["max_tokens"] = json!(8);
        self.send(base, key, &body).await
    }

    async fn send(&self, base: &str, key: &str, body: &Value) -> (u16, String, Value) {
        let request = self.client.post(format!("{base}/v1/chat/completions")).bearer_auth(key);
        let Ok(response) = request.body(body.to_string()).send().await else {
            return (0, String::new(), Value::Null);
        };
        let status = response.status().as_u16();
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap_or_default()).unwrap_or_default();
        let code = body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
        (status, code.to_owned(), body)
    }

    async fn number(&self, sql: &str) -> Decimal {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// What was spent of the budget and what may still be, by the ledger.
const COMMITTED: &str = "SELECT state.used + state.open FROM limits l CROSS JOIN LATERAL limit_state(l, '15 s') AS state \
                         WHERE l.name = 'purse'";
const SPENT: &str = "SELECT coalesce(sum(cost_usd), 0) FROM ledger WHERE key_name = 'shop'";
/// What was spent, with what is reserved for calls that have started.
const SPENT_AND_HELD: &str =
    "SELECT coalesce(sum(coalesce(cost_usd, hold_usd)), 0) FROM attempts WHERE key_name = 'shop'";

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_hard_over_three_replicas_and_nearly_all_of_it_can_be_used() {
    let stack = Stack::start(Options {
        ingresses: 3,
        // Calls of the replica that is killed take their time to end.
        concurrency: Some(256),
        ..Options::default()
    })
    .await;
    // Some twenty tokens, about a tenth of a cent.
    let price = [
        "prices",
        "set",
        "simulator",
        "sim-mini",
        "input=40",
        "output=60",
        "--source",
        "test",
    ];
    stack.tollgate(&price).await.unwrap();
    let key = stack.issue(&["shop"]).await;
    stack
        .limit(&["purse", "--usd", "0.5", "--per", "total", "--key", "shop"])
        .await;
    let most = Decimal::new(5, 1);
    let stack = Arc::new(stack);
    let over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let (stack, over) = (Arc::clone(&stack), Arc::clone(&over));
        async move {
            let (mut samples, mut highest) = (0, Decimal::ZERO);
            while !over.load(Ordering::Relaxed) {
                for sql in [COMMITTED, SPENT_AND_HELD] {
                    let found = stack.number(sql).await;
                    assert!(found <= most, "{found} of {most}: {sql}");
                    highest = highest.max(found);
                }
                samples += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (samples, highest)
        }
    });
    let begun = Instant::now();
    let tally = {
        let (stack, key) = (Arc::clone(&stack), key.clone());
        load(1500, 64, move |number| {
            let (stack, key) = (Arc::clone(&stack), key.clone());
            async move {
                if number == 300 {
                    stack.roles.kill("ingress-3").await.unwrap();
                }
                let base = stack.ingresses[number % 3].clone();
                let (status, code, body) = stack.asked(&base, &key, "sim-mini").await;
                match (status, code.as_str()) {
                    // Whoever was at the replica that was killed, or found audit too busy to say what is left.
                    (0 | 503, _) => "lost",
                    (200, _) => "answered",
                    (402, "budget_exceeded") => {
                        assert!(body.to_string().contains("purse"), "{body}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        "refused"
                    }
                    _ => panic!("{status} {body}"),
                }
            }
        })
        .await
    };
    let count = |what: &str| tally.iter().filter(|one| **one == what).count();
    assert!(
        count("refused") > 0,
        "{} answered, {} lost",
        count("answered"),
        count("lost")
    );
    // What the killed replica had in hand comes back, and can be used.
    let enough = most * Decimal::new(99, 2);
    while stack.number(SPENT).await < enough {
        stack.asked(&stack.ingresses[0], &key, "sim-mini").await;
        let left = [
            COMMITTED,
            SPENT,
            "SELECT count(*)::numeric FROM leases WHERE NOT closed",
        ];
        if begun.elapsed() > Duration::from_secs(100) {
            let mut told = Vec::new();
            for sql in left {
                told.push(stack.number(sql).await);
            }
            panic!("not used up: committed, spent, leases {told:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    let (samples, highest) = watch.await.unwrap();
    println!(
        "spent {} of {most}, at most {highest} in {samples} samples",
        stack.number(SPENT).await
    );
    // What the roll-up says is what the ledger does.
    let same =
        "SELECT (SELECT coalesce(sum(cost_usd), 0) FROM usage_slots) - (SELECT coalesce(sum(cost_usd), 0) FROM ledger)";
    assert_eq!(stack.number(same).await, Decimal::ZERO);
    // More money, and on it goes.
    stack.tollgate(&["limits", "top-up", "purse", "0.5"]).await.unwrap();
    let begun = Instant::now();
    while stack.asked(&stack.ingresses[0], &key, "sim-mini").await.0 != 200 {
        assert!(begun.elapsed() < PATIENCE, "the top-up is not known");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_in_every_sliding_window_over_two_replicas() {
    let stack = Arc::new(
        Stack::start(Options {
            ingresses: 2,
            ..Options::default()
        })
        .await,
    );
    let key = stack.issue(&["shop"]).await;
    stack
        .limit(&["pace", "--requests", "60", "--per", "6s", "--key", "shop"])
        .await;
    let begun = Instant::now();
    let admitted = {
        let (stack, key) = (Arc::clone(&stack), key.clone());
        load(32, 32, move |runner| {
            let (stack, key) = (Arc::clone(&stack), key.clone());
            async move {
                let mut admitted = 0;
                while begun.elapsed() < Duration::from_secs(20) {
                    // Most of the load is at one of the two.
                    let base = &stack.ingresses[usize::from(runner % 8 == 0)];
                    let (status, code, body) = stack.asked(base, &key, "sim-mini").await;
                    match (status, code.as_str()) {
                        (200, _) => admitted += 1,
                        // Audit is too busy to say what is left.
                        (503, _) => tokio::time::sleep(Duration::from_millis(25)).await,
                        (429, "rate_limit_exceeded") => {
                            assert!(body.to_string().contains("pace"), "{body}");
                            tokio::time::sleep(Duration::from_millis(25)).await;
                        }
                        _ => panic!("{status} {body}"),
                    }
                }
                admitted
            }
        })
        .await
    };
    let admitted: i64 = admitted.into_iter().sum();
    let known = "SELECT count(*) FROM requests WHERE key_name = 'shop' AND state = 'answered'";
    stack.until(known, admitted, PATIENCE).await;
    // A request is noted a moment after it was admitted, earlier or later than others by what the machine is busy with.
    let busiest = "SELECT max(n)::numeric FROM (SELECT count(*) OVER (ORDER BY accepted_at \
                   RANGE BETWEEN interval '5.9 s' PRECEDING AND CURRENT ROW) AS n FROM requests \
                   WHERE key_name = 'shop' AND state = 'answered') AS counted";
    let busiest = stack.number(busiest).await;
    assert!(busiest <= Decimal::from(60), "{busiest} in 6 s");
    // Four windows begin within 20 s, and most of each is used.
    assert!(admitted >= 200, "{admitted} in 20 s");
    println!("{admitted} in 20 s, at most {busiest} in 6 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_every_kind() {
    let more = "  - {name: spare, targets: [{provider: simulator, model: sim-mini}, {provider: sim-gemini, model: sim-mini}]}\n";
    let stack = Stack::start(Options {
        models: more,
        ..Options::with_dialects()
    })
    .await;
    let base = stack.http.clone();
    // Tokens: what is expected is taken, and what was not used comes back.
    let tokens = stack.issue(&["tokens"]).await;
    stack
        .limit(&["words", "--tokens", "200", "--per", "1h", "--key", "tokens"])
        .await;
    let url = format!("{base}/v1/chat/completions");
    let mut body = chat("sim-mini", "hi");
    body["max_tokens"] = json!(150);
    let request = || {
        stack
            .client
            .post(&url)
            .bearer_auth(&tokens)
            .body(body.to_string())
            .send()
    };
    let first = request().await.unwrap();
    let header = |name: &str| {
        first
            .headers()
            .get(name)
            .and_then(|value| value.to_str().unwrap().parse::<u64>().ok())
    };
    assert_eq!(
        (first.status().as_u16(), header("x-ratelimit-limit-tokens")),
        (200, Some(200))
    );
    assert!(header("x-ratelimit-remaining-tokens").unwrap() < 60);
    first.bytes().await.unwrap();
    let begun = Instant::now();
    while request().await.unwrap().status() != 200 {
        assert!(begun.elapsed() < PATIENCE, "what was not used is not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // More than the limit itself never fits.
    body["max_tokens"] = json!(1000);
    let refused = stack
        .client
        .post(&url)
        .bearer_auth(&tokens)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));

    // At once: the third has to wait.
    let few = stack.issue(&["few"]).await;
    stack.limit(&["two", "--concurrency", "2", "--key", "few"]).await;
    let slow = chat("sim-mini", "slow #sim:delay_ms=1500");
    let (one, two) = (stack.send(&base, &few, &slow), stack.send(&base, &few, &slow));
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.asked(&base, &few, "sim-mini").await
    };
    let (one, two, late) = tokio::join!(one, two, late);
    assert_eq!((one.0, two.0, late.0), (200, 200, 429), "{}", late.2);
    let begun = Instant::now();
    while stack.asked(&base, &few, "sim-mini").await.0 != 200 {
        assert!(begun.elapsed() < PATIENCE, "the places are not free again");
    }

    // A provider whose budget is used up is passed over; without a spare the client learns which budget it is.
    let spare = stack.issue(&["spare"]).await;
    stack
        .limit(&[
            "empty",
            "--usd",
            "0",
            "--per",
            "day",
            "--provider",
            "simulator",
            "--time-zone",
            "Asia/Kathmandu",
        ])
        .await;
    let (status, _, body) = stack.asked(&base, &spare, "spare").await;
    assert_eq!(status, 200, "{body}");
    let (status, code, body) = stack.asked(&base, &spare, "sim-mini").await;
    assert_eq!((status, code.as_str()), (402, "budget_exceeded"), "{body}");
    assert!(body.to_string().contains("empty"), "{body}");
    stack.tollgate(&["limits", "remove", "empty"]).await.unwrap();
    let begun = Instant::now();
    while stack.asked(&base, &spare, "sim-mini").await.0 != 200 {
        assert!(begun.elapsed() < PATIENCE, "the limit is still kept");
    }

    // A budget cannot be kept for what has no price.
    let poor = stack.issue(&["poor"]).await;
    stack.limit(&["poor", "--usd", "5", "--key", "poor"]).await;
    let (status, code, body) = stack.asked(&base, &poor, "via-anthropic").await;
    assert_eq!((status, code.as_str()), (403, "model_unpriced"), "{body}");
    assert_eq!(stack.asked(&base, &poor, "sim-mini").await.0, 200);
    // Of a label, for whoever sends it.
    stack
        .limit(&["run", "--requests", "1", "--per", "1h", "--tag", "run=7"])
        .await;
    let tagged = || {
        let request = stack
            .client
            .post(&url)
            .bearer_auth(KEY)
            .header("x-tollgate-tags", "run=7");
        request.body(chat("sim-mini", "hi").to_string()).send()
    };
    assert_eq!(
        (
            tagged().await.unwrap().status().as_u16(),
            tagged().await.unwrap().status().as_u16()
        ),
        (200, 429)
    );
    assert_eq!(stack.asked(&base, KEY, "sim-mini").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_audit_budgets_stay_hard_or_open_as_they_say() {
    let stack = Stack::start(Options::default()).await;
    let (strict, lenient) = (stack.issue(&["strict"]).await, stack.issue(&["lenient"]).await);
    stack.limit(&["closed", "--usd", "1", "--key", "strict"]).await;
    stack
        .limit(&["open", "--usd", "1", "--key", "lenient", "--when-away", "allow"])
        .await;
    let base = stack.http.clone();
    assert_eq!(stack.asked(&base, &strict, "sim-mini").await.0, 200);
    stack.roles.hold("audit", true).await.unwrap();
    // The slice in hand lasts for a while; then nobody knows.
    let begun = Instant::now();
    let refused = loop {
        let (status, code, body) = stack.asked(&base, &strict, "sim-mini").await;
        if status != 200 {
            break (status, code, body);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "spent without a lease");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((refused.0, refused.1.as_str()), (503, "unavailable"), "{}", refused.2);
    assert!(refused.2.to_string().contains("closed"), "{}", refused.2);
    assert_eq!(stack.asked(&base, &lenient, "sim-mini").await.0, 200);
    stack.roles.hold("audit", false).await.unwrap();
    let begun = Instant::now();
    while stack.asked(&base, &strict, "sim-mini").await.0 != 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "audit is back and nobody notices"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nothing that was called meanwhile is missing from the ledger.
    let calls = i64::try_from(stack.simulator.stats().calls).unwrap();
    stack
        .until("SELECT count(*) FROM ledger WHERE state <> 'open'", calls, PATIENCE)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_stays_hard_and_nothing_is_lost_while_the_database_and_audit_are_killed() {
    let stack = Stack::start(Options {
        ingresses: 2,
        concurrency: Some(256),
        ..Options::default()
    })
    .await;
    let price = [
        "prices",
        "set",
        "simulator",
        "sim-mini",
        "input=40",
        "output=60",
        "--source",
        "test",
    ];
    stack.tollgate(&price).await.unwrap();
    let key = stack.issue(&["shop"]).await;
    stack.limit(&["purse", "--usd", "0.5", "--key", "shop"]).await;
    let most = Decimal::new(5, 1);
    let stack = Arc::new(stack);
    let seen = {
        let (stack, key) = (Arc::clone(&stack), key.clone());
        load(700, 32, move |number| {
            let (stack, key) = (Arc::clone(&stack), key.clone());
            async move {
                if number == 150 {
                    let mut postgres = stack.postgres.lock().await;
                    postgres.kill().await.unwrap();
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    stack.roles.kill("audit").await.unwrap();
                    postgres.restart().await.unwrap();
                }
                let begun = Instant::now();
                let mut waited = 0;
                loop {
                    let base = stack.ingresses[number % 2].clone();
                    let (status, code, body) = stack.asked(&base, &key, "sim-mini").await;
                    match (status, code.as_str()) {
                        (200, _) => return ("answered", waited),
                        (402, "budget_exceeded") => return ("refused", waited),
                        // Nobody can say what is left: said at once, and to be tried again.
                        (503, "unavailable") if begun.elapsed() < Duration::from_secs(60) => waited += 1,
                        _ => panic!("{status} {body} after {:?}", begun.elapsed()),
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await
    };
    let count = |what: &str| seen.iter().filter(|(end, _)| *end == what).count();
    let waited: usize = seen.iter().map(|(_, waited)| waited).sum();
    let calls = i64::try_from(stack.simulator.stats().calls).unwrap();
    stack
        .until("SELECT count(*) FROM ledger WHERE state = 'settled'", calls, PATIENCE)
        .await;
    assert_eq!(usize::try_from(calls).unwrap(), count("answered"));
    let stats = stack.simulator.stats();
    for (sql, expected) in [
        ("SELECT sum(input_tokens) FROM ledger", stats.input_tokens),
        ("SELECT sum(output_tokens) FROM ledger", stats.output_tokens),
        ("SELECT sum(input_tokens) FROM usage_slots", stats.input_tokens),
    ] {
        assert_eq!(stack.number(sql).await, Decimal::from(expected), "{sql}");
    }
    let spent = stack.number(SPENT).await;
    assert!(spent <= most, "{spent}");
    println!(
        "{} answered, {} refused, {waited} told to try again; spent {spent} of {most}",
        count("answered"),
        count("refused")
    );
    assert!(count("refused") > 0, "{} answered, spent {spent}", count("answered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_belong_to_who_made_them() {
    let stack = Stack::start(Options::default()).await;
    for tenant in ["acme", "acme/red", "acme/blue", "other"] {
        stack.tollgate(&["tenants", "put", tenant]).await.unwrap();
    }
    let admin = |name: &'static str, tenant: &'static [&'static str]| {
        let stack = &stack;
        async move {
            let rights = ["--permissions", "complete,keys,report"];
            stack.issue(&[&[name][..], tenant, &rights[..]].concat()).await
        }
    };
    let acme = admin("acme-admin", &["--organisation", "acme"]).await;
    let red = admin("red-admin", &["--organisation", "acme", "--team", "red"]).await;
    let other = admin("other-admin", &["--organisation", "other"]).await;
    stack
        .limit(&["acme-month", "--usd", "100", "--per", "month", "--organisation", "acme"])
        .await;
    let client = || async { LimitsClient::new(channel(&stack.reports).await) };
    let budget = |name: &str, scope: LimitScope| PutLimitRequest {
        limit: Some(Limit {
            name: name.to_owned(),
            scope: Some(scope),
            measure: "usd".to_owned(),
            amount: "5".to_owned(),
            period: "month".to_owned(),
            ..Limit::default()
        }),
    };
    let put = async |key: &str, request: PutLimitRequest| {
        let mut limits = client().await;
        limits.put(bearer(request, key)).await.map(tonic::Response::into_inner)
    };
    let team = |team: &str| LimitScope {
        organisation: "acme".to_owned(),
        team: team.to_owned(),
        ..LimitScope::default()
    };
    put(&acme, budget("red-month", team("red"))).await.unwrap();
    // Nobody loosens what was put on him from above, or touches what is another's: by its name he makes one of his own beside it.
    let begun = Instant::now();
    let own = loop {
        match put(&red, budget("red-month", team("red"))).await {
            Ok(own) => break own,
            Err(status) => assert!(begun.elapsed() < PATIENCE, "the key is not known: {status}"),
        }
    };
    let from_above = |name: &str| {
        let limits = client();
        let name = name.to_owned();
        async move {
            let listed = limits.await.list(bearer(ListLimitsRequest::default(), KEY)).await;
            let mut all = listed.unwrap().into_inner().limits.into_iter();
            let of_name = all.find(|state| state.limit.as_ref().unwrap().name == name);
            of_name.unwrap().id
        }
    };
    let above = from_above("acme-month").await;
    for name in [above.as_str(), "acme-month"] {
        let touched = put(&acme, budget(name, team(""))).await.map(|state| state.id);
        assert_ne!(touched.as_deref().ok(), Some(above.as_str()), "{name}");
    }
    let remove = |name: &str| RemoveLimitRequest { limit: name.to_owned() };
    let mut limits = client().await;
    // Two of a name are told apart by their ids, and one's own goes first.
    let refused = limits.remove(bearer(remove("acme-month"), &other)).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    limits.remove(bearer(remove("acme-month"), &acme)).await.unwrap();
    let refused = limits.remove(bearer(remove(&above), &acme)).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    let refused = limits.remove(bearer(remove("red-month"), KEY)).await;
    assert_eq!(refused.unwrap_err().code(), Code::AlreadyExists);
    limits.remove(bearer(remove(&own.id), KEY)).await.unwrap();
    put(&other, budget("red-month", LimitScope::default())).await.unwrap();
    assert_eq!(
        put(&red, budget("b", team("blue"))).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        put(&other, budget("b", team("red"))).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    put(&red, budget("own", LimitScope::default())).await.unwrap();
    let mut limits = client().await;
    let seen = async |key: &str| {
        let listed = client()
            .await
            .list(bearer(ListLimitsRequest::default(), key))
            .await
            .unwrap();
        let names = listed.into_inner().limits.into_iter();
        names.map(|state| state.limit.unwrap().name).collect::<Vec<_>>()
    };
    assert_eq!(seen(&acme).await, ["acme-month", "own", "red-month"]);
    assert_eq!(seen(&red).await, ["own", "red-month"]);
    assert_eq!(seen(&other).await, ["red-month"]);
    limits.remove(bearer(remove("red-month"), &other)).await.unwrap();
    limits.remove(bearer(remove("red-month"), &acme)).await.unwrap();
    // What makes no sense is refused, by name.
    let all = LimitScope::default;
    let limit = |measure: &str, amount: &str, period: &str, window_seconds: u32| PutLimitRequest {
        limit: Some(Limit {
            name: "bad".to_owned(),
            measure: measure.to_owned(),
            amount: amount.to_owned(),
            period: period.to_owned(),
            window_seconds,
            ..Limit::default()
        }),
    };
    let zone = |zone: &str| {
        let mut request = budget("bad", all());
        request.limit.as_mut().unwrap().time_zone = zone.to_owned();
        request
    };
    let of_key = |key: &str| {
        budget(
            "bad",
            LimitScope {
                key: key.to_owned(),
                ..all()
            },
        )
    };
    let bad = [
        (PutLimitRequest { limit: None }, "limit"),
        (budget("a b", all()), "limit.name"),
        (limit("euro", "1", "month", 0), "limit.measure"),
        (limit("usd", "1e3", "month", 0), "limit.amount"),
        (limit("usd", "-1", "month", 0), "limit.amount"),
        (limit("usd", "0.0000000001", "month", 0), "limit.amount"),
        (limit("usd", "1", "year", 0), "limit.period"),
        (limit("usd", "1", "", 0), "limit.period"),
        (limit("usd", "1", "month", 60), "limit.window_seconds"),
        (limit("requests", "1", "", 0), "limit.window_seconds"),
        (limit("requests", "1", "", 90_000), "limit.window_seconds"),
        (limit("requests", "1.5", "", 60), "limit.amount"),
        (limit("tokens", "1", "day", 60), "limit.period"),
        (limit("concurrency", "1", "", 60), "limit.window_seconds"),
        (zone("Mars/Olympus"), "limit.time_zone"),
        (zone("UTC'; DROP TABLE limits; --"), "limit.time_zone"),
        (
            budget(
                "bad",
                LimitScope {
                    tag: "run".to_owned(),
                    ..all()
                },
            ),
            "limit.scope.tag",
        ),
        (
            budget(
                "bad",
                LimitScope {
                    model: "m\0".to_owned(),
                    ..all()
                },
            ),
            "limit.scope",
        ),
        (budget("bad", team("nobody")), "limit.scope"),
    ];
    for (request, field) in bad {
        let refused = put(KEY, request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}");
        assert!(refused.message().starts_with(field), "{}", refused.message());
    }
    assert_eq!(put(KEY, of_key("nobody")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        put(&other, of_key("red-admin")).await.unwrap_err().code(),
        Code::NotFound
    );
    let top_up = |limit: &str, usd: &str| TopUpRequest {
        limit: limit.to_owned(),
        usd: usd.to_owned(),
    };
    for (limit, usd, code) in [
        ("nobody", "1", Code::NotFound),
        ("own", "x", Code::InvalidArgument),
        ("own", "-6", Code::InvalidArgument),
        ("own", "9999999999999", Code::InvalidArgument),
    ] {
        let refused = limits.top_up(bearer(top_up(limit, usd), KEY)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{limit} {usd}");
    }
    // Each change is in the audit log, and the chain of it holds.
    stack.tollgate(&["audit", "verify"]).await.unwrap();
    let log = stack.tollgate(&["audit", "log"]).await.unwrap();
    assert_eq!(log.matches("limit.put").count(), 6, "{log}");
    assert_eq!(log.matches("limit.remove").count(), 4);
}

/// Takes webhooks: the first with an error, the rest as they should be. What came, in order.
async fn receiver() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/hook", listener.local_addr().unwrap().port());
    let (sender, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}}") {
                if socket.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            let status = if number == 0 { "500 Oops" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
            if sender.send(String::from_utf8(request).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_to_know_is_told_once_that_a_share_is_spent() {
    let stack = Stack::start(Options::default()).await;
    let (url, mut received) = receiver().await;
    let price = [
        "prices",
        "set",
        "simulator",
        "sim-mini",
        "input=1000",
        "output=1000",
        "--source",
        "test",
    ];
    stack.tollgate(&price).await.unwrap();
    let key = stack.issue(&["shop"]).await;
    let shares = ["--notify-at", "0.01,0.02,1", "--webhook", &url];
    stack
        .limit(&[&["purse", "--usd", "1", "--per", "month", "--key", "shop"][..], &shares].concat())
        .await;
    for _ in 0..3 {
        assert_eq!(stack.asked(&stack.http, &key, "sim-mini").await.0, 200);
    }
    // Two shares are spent; the first telling failed and was repeated.
    let mut told = Vec::new();
    while told.len() < 3 {
        let one = tokio::time::timeout(PATIENCE, received.recv())
            .await
            .expect("nothing is told")
            .unwrap();
        assert!(
            one.starts_with("POST /hook") && one.contains("webhook-signature: v1,"),
            "{one}"
        );
        let id = one
            .lines()
            .find_map(|line| line.strip_prefix("webhook-id: "))
            .unwrap()
            .trim()
            .to_owned();
        let body: Value = serde_json::from_str(one.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(
            (body["type"].as_str(), body["data"]["limit"].as_str()),
            (Some("budget.threshold"), Some("purse"))
        );
        told.push((id, body["data"]["share"].as_str().unwrap().to_owned()));
    }
    told.sort();
    told.dedup();
    let mut shares: Vec<_> = told.iter().map(|(_, share)| share.as_str()).collect();
    shares.sort_unstable();
    assert_eq!(shares, ["0.01", "0.02"]);
    let all_told = "SELECT count(*) FROM limit_notices WHERE told_at IS NOT NULL AND NOT given_up";
    stack.until(all_told, 2, PATIENCE).await;
    let refused = [
        "limits",
        "put",
        "bad",
        "--usd",
        "1",
        "--notify-at",
        "2",
        "--webhook",
        "https://example.com",
    ];
    assert!(stack.tollgate(&refused).await.unwrap_err().contains("notify_at"));
    let refused = [
        "limits",
        "put",
        "bad",
        "--usd",
        "1",
        "--notify-at",
        "0.5",
        "--webhook",
        "gopher://x",
    ];
    assert!(stack.tollgate(&refused).await.unwrap_err().contains("webhook"));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_without_a_price_are_refused_where_that_is_wanted() {
    let stack = Stack::start(Options {
        settings: vec![("ingress", "limits: {unpriced: refuse}")],
        ..Options::with_dialects()
    })
    .await;
    let (status, code, body) = stack.asked(&stack.http, KEY, "via-anthropic").await;
    assert_eq!((status, code.as_str()), (403, "model_unpriced"), "{body}");
    assert_eq!(stack.asked(&stack.http, KEY, "sim-mini").await.0, 200);
    assert_eq!(stack.simulator.stats().calls, 1);
}
