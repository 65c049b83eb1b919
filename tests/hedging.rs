//! A second attempt beside a slow first one: only where it is asked for, for a share of the requests, and both are paid.

use std::time::Duration;

use tollgate_simulator::{Outcome, Rule, Script};

use crate::harness::{KEY, Options, Stack, chat, read, streamed};

/// A model whose first target may hang and whose second never does; hedged, or not.
const MODELS: &str = "
  - name: hedged
    hedge: {percentile: 0.5, min_delay: 50ms, max_share: 1}
    targets: [{provider: simulator, model: sim-mini}, {provider: simulator, model: sim-large}]
  - name: alone
    hedge: {percentile: 0.5, min_delay: 50ms, max_share: 1}
    targets: [{provider: simulator, model: sim-mini}]
  - name: unhedged
    targets: [{provider: simulator, model: sim-mini}, {provider: simulator, model: sim-large}]
";

async fn stack() -> Stack {
    Stack::start(Options {
        models: MODELS,
        settings: vec![("ingress", "request_timeout: 4s")],
        ..Options::default()
    })
    .await
}

/// `model` at `delay` and `stalls`, the other as fast as it can.
fn script(delay_ms: u64, stalls: bool) -> Script {
    Script {
        rules: vec![Rule {
            model: "sim-mini".to_owned(),
            delay_ms: Some(delay_ms),
            stall_rate: Some(if stalls { 1.0 } else { 0.0 }),
            ..Rule::default()
        }],
        ..Script::default()
    }
}

/// So many requests that it is known what is slow.
async fn warm(stack: &Stack, model: &str) {
    for number in 0..20 {
        for body in [chat(model, &format!("warm {number}")), streamed(model, "warm")] {
            let response = stack.post(&body).send().await.unwrap();
            assert_eq!(response.status(), 200);
            response.bytes().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_answered_by_the_next_target_and_both_are_paid() {
    let stack = stack().await;
    warm(&stack, "hedged").await;
    let before = stack.simulator.stats().calls;
    // Nothing is hedged while nothing is slow.
    assert_eq!(before, 40);
    stack.simulator.set_script(script(0, true));
    let (status, body) = stack.ask("hedged", "who answers").await;
    assert_eq!(
        (status, body.pointer("/choices/0/message/content").unwrap().as_str()),
        (200, Some("You said: who answers"))
    );
    let stream = stack.post(&streamed("hedged", "who answers")).send().await.unwrap();
    let stream = stream.text().await.unwrap();
    assert!(
        stream.contains("You") && stream.trim_end().ends_with("data: [DONE]"),
        "{stream}"
    );
    // The slow ones were let go at once, the provider saw it, and the ledger has all four.
    stack.provider_left(2).await;
    stack.settled(42, Duration::from_secs(20)).await;
    let calls = stack.simulator.calls_since(before);
    let outcomes = |model: &str| -> Vec<Outcome> {
        let own = calls.iter().filter(|call| call.model.as_deref() == Some(model));
        own.map(|call| call.outcome).collect()
    };
    assert_eq!(outcomes("sim-mini"), [Outcome::HungUp; 2]);
    assert_eq!(outcomes("sim-large"), [Outcome::Ok; 2]);
    let count = async |sql| stack.count(sql).await;
    assert_eq!(count("SELECT count(*) FROM attempts").await, 44);
    assert_eq!(
        count("SELECT count(*) FROM ledger WHERE hedge AND outcome = 'answered' AND provider_model = 'sim-large'")
            .await,
        2
    );
    assert_eq!(
        count("SELECT count(*) FROM ledger WHERE NOT hedge AND outcome = 'cancelled' AND provider_model = 'sim-mini'")
            .await,
        2
    );
    assert_eq!(
        count(
            "SELECT count(*) FROM cost_of_hedges WHERE model = 'hedged' AND hedged_requests = 2 AND hedges = 2
               AND answered_by_hedge = 2 AND extra_usd > 0 AND extra_usd < cost_usd"
        )
        .await,
        1
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hedge_that_loses_or_has_nowhere_to_go_changes_nothing() {
    let stack = stack().await;
    for model in ["hedged", "alone"] {
        warm(&stack, model).await;
    }
    // The first is slow, and yet before the second, which is slower.
    let mut slower = script(150, false);
    slower.rules.push(Rule {
        model: "sim-large".to_owned(),
        delay_ms: Some(3000),
        ..Rule::default()
    });
    stack.simulator.set_script(slower);
    let before = stack.simulator.stats().calls;
    for model in ["hedged", "alone", "unhedged"] {
        let (status, body) = stack.ask(model, "first").await;
        assert_eq!(status, 200, "{model}: {body}");
    }
    stack.provider_left(1).await;
    stack.settled(83, Duration::from_secs(20)).await;
    assert_eq!(stack.simulator.stats().calls - before, 4);
    let hedges = "SELECT count(*) FROM ledger WHERE hedge AND outcome = 'cancelled' AND provider_model = 'sim-large'";
    assert_eq!(stack.count(hedges).await, 1);
    // Where the second target fails, the first goes on.
    let mut failing = script(300, false);
    failing.rules.push(Rule {
        model: "sim-large".to_owned(),
        error_rate: Some(1.0),
        ..Rule::default()
    });
    stack.simulator.set_script(failing);
    let (status, body) = stack.ask("hedged", "on").await;
    assert_eq!(status, 200, "{body}");
    // A job has time.
    stack.simulator.set_script(script(300, false));
    let job = serde_json::json!({ "url": "/v1/chat/completions", "body": chat("hedged", "a job") });
    let url = format!("{}/v1/jobs", stack.http);
    let submit = stack.client.post(&url).bearer_auth(KEY).body(job.to_string());
    let (_, accepted) = read(submit.send().await.unwrap()).await;
    let one = format!("{url}/{}?wait=10", accepted["id"].as_str().unwrap());
    let (_, done) = read(stack.client.get(one).bearer_auth(KEY).send().await.unwrap()).await;
    assert_eq!(done["state"], "answered", "{done}");
    stack
        .until(
            "SELECT count(*) FROM ledger WHERE state <> 'open'",
            87,
            Duration::from_secs(20),
        )
        .await;
    assert_eq!(stack.count("SELECT count(*) FROM ledger WHERE hedge").await, 2);
    stack.stop().await;
}
