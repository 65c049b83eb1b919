//! The ledger against the provider's own count.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tollgate_simulator::{Outcome, Script};

use crate::harness::{Options, Stack, chat, load, streamed};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_requests_with_errors_close_to_the_token() {
    let script = Script {
        error_rate: 0.1,
        delay_ms: 2,
        ..Script::default()
    };
    let stack = Stack::with(script).await;
    let (client, http) = (stack.client.clone(), stack.http.clone());
    let statuses = load(2000, 32, move |index| {
        let body = if index % 2 == 0 {
            chat("fallback", "count me")
        } else {
            streamed("fallback", "count me")
        };
        let request = client
            .post(format!("{http}/v1/chat/completions"))
            .bearer_auth(crate::harness::KEY);
        async move {
            let response = request.body(body.to_string()).send().await.unwrap();
            let status = response.status().as_u16();
            let body = response.text().await.unwrap();
            assert!(
                status != 200 || index % 2 == 0 || body.ends_with("data: [DONE]\n\n"),
                "{body}"
            );
            status
        }
    })
    .await;
    stack.settled(2000, Duration::from_secs(60)).await;
    let stats = stack.simulator.stats();
    let attempts = stack.attempts().await;
    assert_eq!(stats.calls, attempts.len() as u64);
    let total = |of: fn(&crate::harness::Attempt) -> Option<i64>| attempts.values().filter_map(of).sum::<i64>() as u64;
    assert_eq!(stats.input_tokens, total(|attempt| attempt.input_tokens));
    assert_eq!(stats.output_tokens, total(|attempt| attempt.output_tokens));
    assert!(stats.errors > 150, "the script made no trouble: {}", stats.errors);
    let by_id = |outcome: Outcome| {
        stack
            .simulator
            .calls()
            .into_iter()
            .filter(|call| call.outcome == outcome)
            .count()
    };
    let failed = attempts
        .values()
        .filter(|attempt| attempt.outcome.as_deref() == Some("failed"))
        .count();
    assert_eq!(by_id(Outcome::Error), failed);
    // Nine in ten first tries work, and nine in ten second ones.
    let answered = statuses.iter().filter(|status| **status == 200).count();
    assert!(answered > 1900, "{answered}");
    assert_eq!(
        stack
            .count("SELECT count(*) FROM requests WHERE state = 'answered'")
            .await,
        answered as i64
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_costs_what_a_hand_calculation_says() {
    let script = Script {
        cached_tokens: 3,
        ..Script::default()
    };
    let stack = Stack::with(script).await;
    let (_, body) = stack.ask("sim-mini", "what does this cost?").await;
    stack.settled(1, Duration::from_secs(10)).await;
    let number = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap();
    let (input, output) = (number("/usage/prompt_tokens"), number("/usage/completion_tokens"));
    // 0.15, 0.075 and 0.60 USD a million: in picodollars a token, so that whole numbers do.
    let picos = (input - 3) * 150_000 + 3 * 75_000 + output * 600_000;
    let expected = format!("0.{picos:012}");
    let attempts: BTreeMap<_, _> = stack.attempts().await;
    let found = attempts.values().next().unwrap().cost_usd.clone().unwrap();
    assert_eq!(found.trim_end_matches('0'), expected.trim_end_matches('0'));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usage_that_the_provider_withholds_is_counted_and_marked() {
    let script = Script {
        omit_usage: true,
        ..Script::default()
    };
    let stack = Stack::with(script).await;
    stack.ask("sim-mini", "hello").await;
    stack
        .post(&streamed("sim-mini", "hello"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    stack.settled(2, Duration::from_secs(10)).await;
    let stats = stack.simulator.stats();
    for attempt in stack.attempts().await.values() {
        assert_eq!(attempt.usage_source.as_deref(), Some("counted"));
        assert_eq!(attempt.input_tokens, Some(stats.input_tokens as i64 / 2));
        assert_eq!(attempt.output_tokens, Some(stats.output_tokens as i64 / 2));
    }
    stack.stop().await;
}

/// Tokens that are priced apart come from the providers that report them, and each row says what it was for.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_token_and_operation_is_in_its_own_column() {
    let stack = Stack::start(Options::with_dialects()).await;
    let text = "#sim:cached_tokens=2 #sim:cache_write_tokens=3 write this to the cache";
    for model in ["via-anthropic", "via-bedrock"] {
        let (status, body) = stack.ask(model, text).await;
        assert_eq!(status, 200, "{body}");
    }
    let post = |path: &str, body: Value| {
        let request = stack.client.post(format!("{}{path}", stack.http));
        request.bearer_auth(crate::harness::KEY).body(body.to_string()).send()
    };
    let vectors = json!({ "model": "sim-embed", "input": "hello" });
    assert_eq!(post("/v1/embeddings", vectors).await.unwrap().status(), 200);
    let question = json!({ "model": "via-anthropic", "messages": [{ "role": "user", "content": "how long?" }] });
    assert_eq!(post("/v1/messages/count_tokens", question).await.unwrap().status(), 200);
    stack.settled(4, Duration::from_secs(10)).await;
    let rows = "SELECT count(*) FROM ledger WHERE operation = 'chat' AND cached_input_tokens = 2
                AND cache_write_input_tokens = 3 AND cache_write_1h_input_tokens = 0 AND input_tokens > 5";
    assert_eq!(stack.count(rows).await, 2);
    assert_eq!(
        stack
            .count("SELECT count(*) FROM ledger WHERE operation = 'embed' AND output_tokens = 0 AND input_tokens > 0")
            .await,
        1
    );
    let free = "SELECT count(*) FROM ledger WHERE operation = 'count_tokens' AND input_tokens + output_tokens = 0";
    assert_eq!(stack.count(free).await, 1);
    stack.stop().await;
}

/// Messages that the ledger stream holds.
async fn held(stack: &Stack) -> u64 {
    let nats = async_nats::connect(&stack.nats_url).await.unwrap();
    let mut stream = async_nats::jetstream::new(nats)
        .get_stream("TOLLGATE_LEDGER")
        .await
        .unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn events_leave_the_stream_once_they_are_old_and_in_the_database() {
    let stack = Stack::start(Options {
        settings: vec![("audit", "keep_events: 3s"), ("ingress", "request_timeout: 2s")],
        ..Options::default()
    })
    .await;
    for _ in 0..20 {
        assert_eq!(stack.ask("sim-mini", "hello").await.0, 200);
    }
    stack.settled(20, Duration::from_secs(20)).await;
    assert_eq!(held(&stack).await, 60);
    let begun = std::time::Instant::now();
    while held(&stack).await > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{} are left",
            held(&stack).await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    // What is not in the database stays, however old it is.
    let mut locked = stack.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *locked)
        .await
        .unwrap();
    assert_eq!(stack.ask("sim-mini", "unwritten").await.0, 200);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(held(&stack).await, 3);
    locked.rollback().await.unwrap();
    stack.settled(21, Duration::from_secs(20)).await;
    assert_eq!(stack.simulator.stats().calls, 21);
    stack.stop().await;
}
