//! Files and batches, beside what OpenAI's own client shows: killed while a file is read, and hostile uploads.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use serde_json::{Value, json};
use tollgate_simulator::Script;

use crate::harness::{KEY, Options, Stack, chat, read};

/// The lease of a replica that was killed runs out after half a minute.
const LEASE: Duration = Duration::from_secs(90);

fn file(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, index| {
        let line = json!({
            "custom_id": format!("n{index}"), "method": "POST", "url": "/v1/chat/completions",
            "body": chat("sim-mini", &format!("number {index}")),
        });
        writeln!(text, "{line}").unwrap();
        text
    })
}

/// A form with a boundary of its own, whole or not.
async fn post_form(stack: &Stack, key: &str, boundary: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = stack
        .client
        .post(format!("{}/v1/files", stack.http))
        .bearer_auth(key)
        .header("content-type", format!("multipart/form-data; boundary={boundary}"));
    read(request.body(body).send().await.unwrap()).await
}

fn form(purpose: &str, content: &str) -> String {
    format!(
        "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"../a.jsonl\"\r\n\r\n{content}\r\n\
         --x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--x--\r\n"
    )
}

async fn upload(stack: &Stack, content: &str) -> String {
    let (status, body) = post_form(stack, KEY, "x", form("batch", content)).await;
    assert_eq!(status, 200, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn create(stack: &Stack, file: &str, idempotency_key: &str) -> (u16, Value) {
    let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "1h"});
    let request = stack
        .client
        .post(format!("{}/v1/batches", stack.http))
        .bearer_auth(KEY)
        .header("idempotency-key", idempotency_key)
        .body(body.to_string());
    read(request.send().await.unwrap()).await
}

async fn get(stack: &Stack, key: &str, path: &str) -> Option<(u16, Value)> {
    let url = format!("{}/v1/{path}", stack.http);
    Some(read(stack.client.get(url).bearer_auth(key).send().await.ok()?).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_outlives_the_ingress_that_reads_it() {
    const COUNT: usize = 3000;
    let stack = Stack::with(Script::default()).await;
    let file = upload(&stack, &file(COUNT)).await;
    let (status, batch) = create(&stack, &file, "july").await;
    assert_eq!((status, batch["status"].as_str()), (200, Some("validating")), "{batch}");
    // In the middle of its reading, as far as can be told from outside.
    while stack.count("SELECT count(*) FROM jobs").await < 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stack.roles.kill("ingress").await.unwrap();
    let id = batch["id"].as_str().unwrap();
    let deadline = tokio::time::Instant::now() + 2 * LEASE;
    let batch = loop {
        match get(&stack, KEY, &format!("batches/{id}")).await {
            Some((200, batch)) if batch["status"] == "completed" => break batch,
            found => assert!(tokio::time::Instant::now() < deadline, "{found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(
        batch["request_counts"],
        json!({"total": COUNT, "completed": COUNT, "failed": 0})
    );
    // Sent again, it is the same batch.
    let (status, again) = create(&stack, &file, "july").await;
    assert_eq!((status, &again["id"]), (200, &batch["id"]));
    let output = batch["output_file_id"].as_str().unwrap();
    let url = format!("{}/v1/files/{output}/content", stack.http);
    let text = stack
        .client
        .get(url)
        .bearer_auth(KEY)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let names: BTreeSet<String> = text
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let name = row["custom_id"].as_str().unwrap().to_owned();
            let said = row.pointer("/response/body/choices/0/message/content").unwrap();
            assert_eq!(*said, format!("You said: number {}", &name[1..]));
            name
        })
        .collect();
    assert_eq!((names.len(), text.lines().count()), (COUNT, COUNT));
    assert_eq!(stack.count("SELECT count(*) FROM jobs").await, COUNT as i64);
    // A call whose dispatcher was killed goes on at its worker: none is made twice.
    assert_eq!(stack.simulator.stats().calls, COUNT as u64);
    stack.settled(COUNT as i64, LEASE).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_their_owners_and_bad_ones_are_refused() {
    let stack = Stack::start(Options {
        settings: vec![("ingress", "jobs: {max_file: 64KiB, max_batch: 20}")],
        ..Options::default()
    })
    .await;
    let refused = async |boundary: &str, body: &str| post_form(&stack, KEY, boundary, body.to_owned()).await;
    let good = form("batch", "{}");
    for (boundary, body) in [
        ("y", good.as_str()),
        ("x", ""),
        ("x", "--x--\r\n"),
        ("x", &good[..good.len() - 40]),
        ("x", &good[..60]),
        ("x", &form("assistants", "{}")),
        ("x", &good.replace("purpose", "other")),
        ("x", &good.replace("name=\"file\"", "name=\"purpose\"")),
        ("", good.as_str()),
    ] {
        let (status, answer) = refused(boundary, body).await;
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (400, Some("invalid_request")),
            "{body}"
        );
    }
    let (status, answer) = refused("x", &form("batch", &"x".repeat(70 << 10))).await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (413, Some("request_too_large")),
        "{answer}"
    );
    assert_eq!(post_form(&stack, "tg_no", "x", good.clone()).await.0, 401);
    let (_, files) = get(&stack, KEY, "files").await.unwrap();
    assert_eq!(files["data"], json!([]), "something was left");

    let mine = upload(&stack, &file(3)).await;
    for path in ["files/{}", "files/{}/content"] {
        let path = path.replace("{}", &mine);
        assert_eq!(get(&stack, KEY, &path.replace("/content", "")).await.unwrap().0, 200);
        let (status, answer) = get(&stack, "tg_masked", &path).await.unwrap();
        assert_eq!(
            (status, answer["error"]["code"].as_str()),
            (404, Some("file_not_found"))
        );
    }
    let (_, batch) = create(&stack, &mine, "one").await;
    let id = batch["id"].as_str().unwrap();
    assert_eq!(get(&stack, "tg_masked", &format!("batches/{id}")).await.unwrap().0, 404);
    let (_, none) = get(&stack, "tg_masked", "batches").await.unwrap();
    assert_eq!(none["data"], json!([]));
    // Too many lines, not UTF-8, and a key that stands for something else.
    let many = upload(&stack, &file(21)).await;
    let (status, conflict) = create(&stack, &many, "one").await;
    assert_eq!(
        (status, conflict["error"]["code"].as_str()),
        (409, Some("idempotency_conflict"))
    );
    let (_, batch) = create(&stack, &many, "many").await;
    let id = batch["id"].as_str().unwrap();
    let failed = loop {
        let (_, batch) = get(&stack, KEY, &format!("batches/{id}")).await.unwrap();
        if batch["status"] == "failed" {
            break batch;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(failed["errors"]["data"][0]["code"], "too_many_tasks");
    for query in ["limit=0", "limit=x", "limit=101", "after=nothing"] {
        let status = get(&stack, KEY, &format!("batches?{query}")).await.unwrap().0;
        assert!([400, 404].contains(&status), "{query}: {status}");
    }
    stack.stop().await;
}
