//! Streams that end early, from either side, and bodies that do not fit into a message.

use std::time::Duration;

use serde_json::json;
use tollgate_simulator::Script;

use crate::{
    harness::{KEY, MODELS, Options, Stack, read, streamed},
    matrix::{self, DOORS},
};

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
    // On a machine that is slow enough, a request that nobody takes in a second is sent again, which is another call.
    let stack = Stack::start(Options {
        settings: vec![("ingress", "claim_timeout: 20s")],
        ..Options::with_dialects()
    })
    .await;
    let mut asked = 0;
    for (door, model) in DOORS.iter().flat_map(|(door, _)| MODELS.map(|model| (*door, model))) {
        for (stream, trouble, code) in [
            (true, "#sim:cut=3", "provider_broken"),
            (true, "#sim:error=3", "provider_error"),
            (false, "#sim:cut=3", "provider_broken"),
        ] {
            let (path, body) = matrix::plain(door, model, &format!("hello there {trouble} #sim:words=30"), stream);
            let request = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
            let response = request.body(body.to_string()).send().await.unwrap();
            assert_eq!(response.status(), if stream { 200 } else { 502 }, "{door:?} {model}");
            let body = response.text().await.unwrap();
            assert_eq!(
                matrix::error_code(&body).as_deref(),
                Some(code),
                "{door:?} {model}: {body}"
            );
            let ends = ["[DONE]", "message_stop", "response.completed", "\"finishReason\""];
            assert!(!ends.iter().any(|end| body.contains(end)), "{door:?} {model}: {body}");
            asked += 1;
        }
    }
    stack.settled(asked, Duration::from_secs(10)).await;
    let broken = "SELECT count(*) FROM attempts WHERE outcome = 'broken' AND usage_source = 'counted'";
    assert_eq!(stack.count(broken).await, asked);
    let heard = "SELECT count(*) FROM attempts WHERE stream AND output_tokens > 0";
    assert_eq!(stack.count(heard).await, asked / 3 * 2);
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

/// Flow control is each answer's own: on the one connection from a worker to an ingress, those that nobody reads must not
/// hold up the others.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_hold_up_nobody_else() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let stack = Stack::with(Script::default()).await;
    let address = stack.http.strip_prefix("http://").unwrap();
    let body = streamed("sim-mini", "go on #sim:words=80000 #sim:chunk_tokens=50").to_string();
    let mut unread = Vec::new();
    for _ in 0..4 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 256];
        assert!(socket.read(&mut first).await.unwrap() > 0);
        unread.push(socket);
    }
    // All buffers on the way are full by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..50 {
        let asked = tokio::time::timeout(Duration::from_secs(10), stack.ask("sim-mini", "hello"));
        assert_eq!(asked.await.expect("held up").0, 200);
    }
    // Read after all, an answer is whole.
    let mut rest = Vec::new();
    let mut socket = unread.pop().unwrap();
    loop {
        let mut some = [0; 65536];
        let read = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut some)).await;
        let read = read.expect("the answer stands still").unwrap();
        rest.extend_from_slice(&some[..read]);
        if read == 0
            || rest
                .windows(12)
                .rev()
                .take(4096)
                .any(|window| window == b"data: [DONE]")
        {
            break;
        }
    }
    assert!(
        rest.len() > 1 << 19,
        "{} bytes are too few to fill anything",
        rest.len()
    );
    drop(unread);
    stack.stop().await;
}
