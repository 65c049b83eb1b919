//! Streams that end early, from either side, and bodies that do not fit into a message.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_simulator::Script;

use crate::harness::{Options, Stack, events, read, streamed};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_the_provider_and_pays_for_what_came() {
    let script = Script {
        chunk_delay_ms: 20,
        ..Script::default()
    };
    let stack = Stack::with(script).await;
    let mut response = stack
        .post(&streamed("sim-mini", "on and on #sim:words=500"))
        .send()
        .await
        .unwrap();
    for _ in 0..5 {
        response.chunk().await.unwrap().unwrap();
    }
    drop(response);
    stack.provider_left(1).await;
    stack.settled(1, Duration::from_secs(10)).await;
    let attempts = stack.attempts().await;
    let row = attempts.values().next().unwrap();
    assert_eq!(
        (row.state.as_str(), row.outcome.as_deref()),
        ("settled", Some("cancelled"))
    );
    assert_eq!(row.usage_source.as_deref(), Some("counted"));
    assert_eq!(row.input_tokens, Some(stack.simulator.stats().input_tokens as i64));
    let (counted, sent) = (row.output_tokens.unwrap(), stack.simulator.stats().output_tokens as i64);
    assert!(
        counted > 0 && counted <= sent && sent < 400,
        "counted {counted} of {sent}"
    );
    assert_eq!(
        stack
            .count("SELECT count(*) FROM requests WHERE state = 'cancelled'")
            .await,
        1
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_first_byte_stops_the_provider_too() {
    let script = Script {
        delay_ms: 20_000,
        ..Script::default()
    };
    let stack = Stack::with(script).await;
    let asked = stack
        .post(&crate::harness::chat("sim-mini", "hello"))
        .timeout(Duration::from_millis(500))
        .send()
        .await;
    assert!(asked.unwrap_err().is_timeout());
    stack.settled(1, Duration::from_secs(10)).await;
    stack.provider_left(1).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_are_errors_and_never_a_clean_end() {
    let stack = Stack::with(Script::default()).await;
    for (trouble, code) in [("#sim:cut=3", "provider_broken"), ("#sim:error=3", "provider_error")] {
        let body = stack
            .post(&streamed("sim-mini", &format!("hello there {trouble}")))
            .send()
            .await
            .unwrap();
        let body = body.text().await.unwrap();
        let last: Value = serde_json::from_str(events(&body).last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], code, "{trouble}: {body}");
        assert!(!body.contains("[DONE]"));
    }
    let (status, body) = stack.ask("sim-mini", "hello #sim:cut=3").await;
    assert_eq!((status, body["error"]["code"].as_str()), (502, Some("provider_broken")));
    stack.settled(3, Duration::from_secs(10)).await;
    assert_eq!(
        stack
            .count("SELECT count(*) FROM attempts WHERE outcome = 'broken'")
            .await,
        3
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_provider_is_left_at_the_deadline() {
    let options = Options {
        settings: vec![("ingress", "request_timeout: 2s")],
        ..Options::default()
    };
    let stack = Stack::start(options).await;
    let (status, body) = stack.ask("sim-mini", "#sim:stall").await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (504, Some("deadline_exceeded"))
    );
    stack.settled(1, Duration::from_secs(10)).await;
    assert_eq!(stack.simulator.stats().open, 0);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_of_twenty_megabytes_passes_by_claim_check() {
    let stack = Stack::with(Script::default()).await;
    let pdf = format!("data:application/pdf;base64,{}", "QUJD".repeat(5 << 20));
    let body = json!({ "model": "sim-mini", "messages": [{ "role": "user", "content": [
        { "type": "text", "text": "read this" },
        { "type": "file", "file": { "filename": "a.pdf", "file_data": pdf } } ] }] });
    let (status, body) = read(stack.post(&body).send().await.unwrap()).await;
    assert_eq!(
        (status, &body["choices"][0]["message"]["content"]),
        (200, &json!("You said: read this [1 file]"))
    );
    stack.settled(1, Duration::from_secs(10)).await;
    // Once: a slow fetch must not be taken for a lost worker.
    assert_eq!(stack.simulator.stats().calls, 1);
    stack.stop().await;
}
