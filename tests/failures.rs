//! Services killed with -9 under load, and providers on a bad day.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tollgate_proto::v1::{
    DrainTargetRequest, ListTargetsRequest, ListTargetsResponse, TargetState, targets_client::TargetsClient,
};
use tollgate_simulator::{Outcome, Script};
use tonic::{Code, Request};

use crate::harness::{KEY, Options, Stack, bearer, channel, chat, events, load, read, streamed};

#[tokio::test(flavor = "multi_thread")]
async fn killed_services_lose_no_request_and_no_call() {
    let script = Script {
        delay_ms: 30,
        error_rate: 0.05,
        ..Script::default()
    };
    let stack = Arc::new(Stack::with(script).await);
    let done = Arc::new(AtomicUsize::new(0));
    let total = 2000;
    let killer = tokio::spawn({
        let (stack, done) = (Arc::clone(&stack), Arc::clone(&done));
        async move {
            for (role, at) in [
                ("guardrail", 200),
                ("router", 500),
                ("worker", 800),
                ("audit", 1100),
                ("worker", 1500),
            ] {
                while done.load(Ordering::Relaxed) < at {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                stack.roles.kill(role).await.unwrap();
            }
        }
    });
    let (client, http) = (stack.client.clone(), stack.http.clone());
    let outcomes = load(total, 32, move |index| {
        let body = if index % 2 == 0 {
            chat("fallback", "survive")
        } else {
            streamed("fallback", "survive")
        };
        let request = client
            .post(format!("{http}/v1/chat/completions"))
            .bearer_auth(KEY)
            .body(body.to_string());
        let done = Arc::clone(&done);
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body = response.text().await.unwrap();
            done.fetch_add(1, Ordering::Relaxed);
            (status, clear(index % 2 == 1, status, &body))
        }
    })
    .await;
    killer.await.unwrap();
    assert_eq!(outcomes.len(), total);
    let unclear: Vec<_> = outcomes.iter().filter(|(_, clear)| !clear).collect();
    assert!(unclear.is_empty(), "{unclear:?}");
    let answered = outcomes.iter().filter(|(status, _)| *status == 200).count();
    assert!(answered > total * 9 / 10, "{answered} answered");
    let stack = Arc::into_inner(stack).unwrap();
    stack.settled(total as i64, Duration::from_secs(60)).await;
    reconcile(&stack).await;
    stack.stop().await;
}

/// Whether a client knows where it stands: an answer that is complete, or an error that says so.
fn clear(stream: bool, status: u16, body: &str) -> bool {
    if status != 200 || !stream {
        return serde_json::from_str::<Value>(body).is_ok_and(|body| (status == 200) == body["error"].is_null());
    }
    match events(body).last() {
        Some(&"[DONE]") => true,
        Some(last) => serde_json::from_str::<Value>(last).is_ok_and(|event| event["error"].is_object()),
        None => false,
    }
}

/// Every call that the provider logged has one row, with its tokens; a row without a call is an orphan: its worker died
/// between writing it and calling.
async fn reconcile(stack: &Stack) {
    let calls = stack.simulator.calls();
    let mut rows = stack.attempts().await;
    let ids: BTreeSet<_> = calls.iter().map(|call| call.id.clone().unwrap()).collect();
    assert_eq!(ids.len(), calls.len(), "an attempt reached the provider twice");
    for call in &calls {
        let row = rows.remove(call.id.as_ref().unwrap()).expect("a call without a row");
        if row.state == "settled" && call.outcome == Outcome::Ok {
            assert_eq!(row.input_tokens, Some(call.input_tokens as i64));
            assert_eq!(row.output_tokens, Some(call.output_tokens as i64));
        }
    }
    assert!(
        rows.values().all(|row| row.state == "orphaned"),
        "rows of calls that were never made: {rows:?}"
    );
    println!("{} calls, {} rows without a call", calls.len(), rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_worker_is_killed_ends_as_an_error() {
    let stack = Stack::with(Script::default()).await;
    assert_eq!(
        stack.kill_in_mid_stream(KEY, "worker").await["error"]["code"],
        "unavailable"
    );
    // The row does not wait for the request's deadline: ingress told audit that the worker was lost.
    stack.settled(1, Duration::from_secs(15)).await;
    let attempts = stack.attempts().await;
    assert_eq!(attempts.values().next().unwrap().state, "orphaned");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_that_dies_stops_the_calls_it_owned() {
    let stack = Stack::start(Options {
        script: Script {
            chunk_delay_ms: 50,
            ..Script::default()
        },
        settings: vec![("ingress", "request_timeout: 8s")],
        ..Options::default()
    })
    .await;
    let mut response = stack
        .post(&streamed("sim-mini", "a long answer #sim:words=100"))
        .send()
        .await
        .unwrap();
    response.chunk().await.unwrap().unwrap();
    stack.roles.kill("ingress").await.unwrap();
    // The client sees its connection break; the worker sees that nobody listens and settles what it used.
    while let Ok(Some(_)) = response.chunk().await {}
    stack.provider_left(1).await;
    stack
        .until(
            "SELECT count(*) FROM attempts WHERE outcome = 'cancelled'",
            1,
            Duration::from_secs(15),
        )
        .await;
    // Nobody is left to say how the request ended, so that audit does, once nobody would.
    let lost = "SELECT count(*) FROM requests WHERE state = 'failed' AND error_code = 'unavailable'";
    stack.until(lost, 1, Duration::from_secs(30)).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_is_followed_by_the_next() {
    let rule = r#"{"rules": [{"model": "sim-mini", "error_rate": 1.0, "error_status": 503, "retry_after_s": 7}]}"#;
    let stack = Stack::start(Options {
        script: serde_json::from_str(rule).unwrap(),
        ..Options::default()
    })
    .await;
    let (status, body) = stack.ask("fallback", "hello").await;
    assert_eq!((status, body["model"].as_str()), (200, Some("sim-large")));
    let (status, body) = stack.ask("half-dead", "hello").await;
    assert_eq!((status, &body["error"]["type"]), (503, &Value::from("server_error")));
    // One target only: the provider's status and its Retry-After go through.
    let response = stack.post(&chat("sim-mini", "hello")).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(read(response).await.0, 503);
    let (status, body) = stack.ask("dead", "hello").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (502, Some("provider_unreachable"))
    );
    stack.settled(4, Duration::from_secs(10)).await;
    assert_eq!(
        stack
            .count("SELECT count(*) FROM attempts WHERE outcome = 'failed'")
            .await,
        5
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_worker_says_so_and_calls_nobody() {
    let script = Script {
        delay_ms: 1500,
        ..Script::default()
    };
    let stack = Stack::start(Options {
        script,
        concurrency: Some(2),
        ..Options::default()
    })
    .await;
    let (client, http) = (stack.client.clone(), stack.http.clone());
    let statuses = load(6, 6, move |_| {
        let request = client.post(format!("{http}/v1/chat/completions")).bearer_auth(KEY);
        async move {
            let response = request
                .body(chat("sim-mini", "hello").to_string())
                .send()
                .await
                .unwrap();
            (
                response.status().as_u16(),
                response.headers().contains_key("retry-after"),
            )
        }
    })
    .await;
    assert_eq!(
        statuses.iter().filter(|status| **status == (200, false)).count(),
        2,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == (429, true)).count(),
        4,
        "{statuses:?}"
    );
    assert_eq!(stack.simulator.stats().calls, 2);
    stack.stop().await;
}

/// A target that fails is left alone for a while: the requests go where they are answered, without a detour.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_is_ejected_and_tried_again_later() {
    let options = Options {
        settings: vec![("router", "health: {ejection: 2s, recovery: 1s}")],
        ..Options::default()
    };
    let stack = Stack::start(options).await;
    for _ in 0..40 {
        assert_eq!(stack.ask("half-dead", "hello").await.0, 200);
    }
    stack.settled(40, Duration::from_secs(10)).await;
    let dead = "SELECT count(*) FROM attempts WHERE provider = 'dead'";
    // Five failures are enough; the share of a target that recovers is small.
    let before = stack.count(dead).await;
    assert!((5..=8).contains(&before), "{before} calls to a dead provider");
    // It is tried again once its time is over, and found to be dead still.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for _ in 0..20 {
        assert_eq!(stack.ask("half-dead", "hello").await.0, 200);
    }
    stack.settled(60, Duration::from_secs(10)).await;
    let after = stack.count(dead).await - before;
    assert!((1..=8).contains(&after), "{after} more");
    // With nobody else to ask, an ejected target is better than none.
    let (status, body) = stack.ask("dead", "hello").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (502, Some("provider_unreachable"))
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_tried_again_when_the_configuration_says_so() {
    let options = Options {
        settings: vec![("router", "retries: 2")],
        ..Options::default()
    };
    let stack = Stack::start(options).await;
    let (status, _) = stack.ask("sim-mini", "#sim:status=503").await;
    assert_eq!(status, 503);
    assert_eq!(stack.simulator.stats().calls, 3);
    // Not for what would fail again, nor for a provider that wants more time than a client has.
    stack.ask("sim-mini", "#sim:status=400").await;
    stack.ask("sim-mini", "#sim:status=429 #sim:retry_after_s=30").await;
    assert_eq!(stack.simulator.stats().calls, 5);
    stack.stop().await;
}

/// What the operator's door says of each target by `provider/model`.
fn states(told: &ListTargetsResponse) -> BTreeMap<String, TargetState> {
    let targets = told.targets.iter();
    targets
        .map(|target| (format!("{}/{}", target.provider, target.model), target.state()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_target_gets_nothing_until_it_is_restored() {
    let stack = Stack::with(Script::default()).await;
    let mut targets = TargetsClient::new(channel(&stack.grpc).await);
    let drain = |provider: &str, model: &str| DrainTargetRequest {
        provider: provider.to_owned(),
        model: model.to_owned(),
    };
    // Only for who may.
    let refused = async |key: Option<&str>| {
        let mut request = Request::new(drain("simulator", ""));
        if let Some(key) = key {
            request = bearer(request.into_inner(), key);
        }
        TargetsClient::new(channel(&stack.grpc).await)
            .drain(request)
            .await
            .unwrap_err()
            .code()
    };
    assert_eq!(refused(None).await, Code::Unauthenticated);
    assert_eq!(refused(Some("tg_masked")).await, Code::PermissionDenied);
    let unknown = targets.drain(bearer(drain("simulator", "nobody"), KEY)).await;
    assert_eq!(unknown.unwrap_err().code(), Code::InvalidArgument);
    let all = targets
        .list(bearer(ListTargetsRequest {}, KEY))
        .await
        .unwrap()
        .into_inner();
    let all = states(&all);
    assert_eq!(all.len(), 4);
    assert!(all.values().all(|state| *state == TargetState::Well), "{all:?}");

    // The next one takes over, also after the router was killed and knows only what is stored.
    let drained = targets
        .drain(bearer(drain("simulator", "sim-mini"), KEY))
        .await
        .unwrap();
    assert_eq!(
        states(drained.get_ref()),
        BTreeMap::from([("simulator/sim-mini".to_owned(), TargetState::Drained)])
    );
    assert_eq!(drained.get_ref().targets[0].drained_by, "tests");
    let asked = async |since: u64| -> Vec<String> {
        assert_eq!(stack.ask("fallback", "who").await.0, 200);
        let calls = stack.simulator.calls_since(since);
        calls.into_iter().filter_map(|call| call.model).collect()
    };
    let begun = std::time::Instant::now();
    while asked(stack.simulator.stats().calls).await != ["sim-large"] {
        assert!(begun.elapsed() < Duration::from_secs(10), "still used");
    }
    stack.roles.kill("router").await.unwrap();
    let since = stack.simulator.stats().calls;
    for _ in 0..20 {
        asked(since).await;
    }
    assert_eq!(asked(since).await, vec!["sim-large"; 21]);

    // Without a target left, a client is told to come back, and a job waits.
    targets.drain(bearer(drain("simulator", ""), KEY)).await.unwrap();
    let begun = std::time::Instant::now();
    let response = loop {
        let response = stack.post(&chat("fallback", "nobody")).send().await.unwrap();
        if response.status() == 503 {
            break response;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "still used");
    };
    assert_eq!(response.headers()["retry-after"], "30");
    let job = serde_json::json!({ "url": "/v1/chat/completions", "body": chat("fallback", "later") });
    let url = format!("{}/v1/jobs", stack.http);
    let submit = stack.client.post(&url).bearer_auth(KEY).body(job.to_string());
    let (_, accepted) = read(submit.send().await.unwrap()).await;
    let one = format!("{url}/{}", accepted["id"].as_str().unwrap());
    let waits = async |seconds: u32| {
        let get = stack.client.get(format!("{one}?wait={seconds}")).bearer_auth(KEY);
        read(get.send().await.unwrap()).await.1["state"].clone()
    };
    assert_eq!(waits(2).await, "waiting");
    let restored = targets.restore(bearer(drain("simulator", ""), KEY)).await.unwrap();
    let restored = states(restored.get_ref());
    assert!(
        restored.values().all(|state| *state == TargetState::Well),
        "{restored:?}"
    );
    assert_eq!(waits(60).await, "answered");
    assert_eq!(stack.ask("fallback", "again").await.0, 200);

    // What fails is seen to be ejected, and why.
    for _ in 0..6 {
        assert_ne!(stack.ask("dead", "x").await.0, 200);
    }
    let begun = std::time::Instant::now();
    loop {
        let told = targets
            .list(bearer(ListTargetsRequest {}, KEY))
            .await
            .unwrap()
            .into_inner();
        let dead = told.targets.iter().find(|target| target.provider == "dead").unwrap();
        if dead.state() == TargetState::Ejected {
            assert_eq!((dead.strikes, dead.reason.as_str()), (1, "provider_unreachable"));
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{dead:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let noted = "SELECT count(*) FROM audit_events WHERE actor = 'tests' AND (action, subject) IN
                 (('target.drain', 'simulator/sim-mini'), ('target.drain', 'simulator'), ('target.restore', 'simulator'))";
    stack.until(noted, 3, Duration::from_secs(10)).await;
    stack.stop().await;
}

/// A stream that takes nothing more, as when the disk is full; the limit that it had.
async fn fill(stack: &Stack, name: &str, max_bytes: Option<i64>) -> i64 {
    let nats = async_nats::connect(&stack.nats_url).await.unwrap();
    let jetstream = async_nats::jetstream::new(nats);
    let mut stream = jetstream.get_stream(name).await.unwrap();
    let info = stream.info().await.unwrap();
    let (mut config, used) = (info.config.clone(), i64::try_from(info.state.bytes).unwrap());
    let before = std::mem::replace(&mut config.max_bytes, max_bytes.unwrap_or(used.max(1)));
    jetstream.update_stream(config).await.unwrap();
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_and_loses_nothing() {
    let stack = Stack::with(Script::default()).await;
    assert_eq!(stack.ask("sim-mini", "before").await.0, 200);
    stack.settled(1, Duration::from_secs(20)).await;
    let submit = async || {
        let job = serde_json::json!({ "url": "/v1/chat/completions", "body": chat("sim-mini", "job") });
        let url = format!("{}/v1/jobs", stack.http);
        stack
            .client
            .post(url)
            .bearer_auth(KEY)
            .body(job.to_string())
            .send()
            .await
            .unwrap()
    };
    // Jobs: not accepted, and told so; requests that somebody waits for go on.
    let before = fill(&stack, "TOLLGATE_JOBS", None).await;
    let refused = submit().await;
    assert!(refused.headers().contains_key("retry-after"));
    let (status, body) = read(refused).await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (503, Some("unavailable")),
        "{body}"
    );
    assert_eq!(stack.ask("sim-mini", "meanwhile").await.0, 200);
    fill(&stack, "TOLLGATE_JOBS", Some(before)).await;
    assert_eq!(submit().await.status(), 202);
    // Two that somebody waited for, and the job's.
    stack.settled(3, Duration::from_secs(20)).await;
    stack
        .until(
            "SELECT count(*) FROM jobs WHERE state = 'answered'",
            1,
            Duration::from_secs(20),
        )
        .await;
    // The ledger: what cannot be written down is not called.
    let before = fill(&stack, "TOLLGATE_LEDGER", None).await;
    let calls = stack.simulator.stats().calls;
    let begun = std::time::Instant::now();
    let refused = stack.post(&chat("sim-mini", "unwritten")).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "5");
    let (status, body) = read(refused).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (503, Some("unavailable")),
        "{body}"
    );
    assert_eq!(stack.simulator.stats().calls, calls);
    let accepted = submit().await;
    assert_eq!(accepted.status(), 202);
    fill(&stack, "TOLLGATE_LEDGER", Some(before)).await;
    stack
        .until(
            "SELECT count(*) FROM jobs WHERE state = 'answered'",
            2,
            Duration::from_secs(60),
        )
        .await;
    assert_eq!(stack.ask("sim-mini", "after").await.0, 200);
    let calls = stack.simulator.stats().calls;
    stack
        .until(
            "SELECT count(*) FROM attempts WHERE state = 'settled'",
            i64::try_from(calls).unwrap(),
            Duration::from_secs(30),
        )
        .await;
    assert_eq!(calls, 5);
    stack.stop().await;
}
