//! What strangers send: every door stays up, says what is wrong, and lets nothing leak.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tollgate_simulator::Script;

use crate::harness::{KEY, Options, Stack, channel, read};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_requests() {
    let stack = Stack::with(Script::default()).await;
    let deep = format!(
        "{{\"model\":\"sim-mini\",\"messages\":{}{}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let twice = r#"{"model":"sim-mini","messages":[{"role":"user","content":"a","content":"b"}]}"#;
    let bodies: [(&str, Vec<u8>); 8] = [
        ("nothing", Vec::new()),
        ("not JSON", b"{model: sim-mini}".to_vec()),
        ("cut off", br#"{"model":"sim-mini","messages":[{"role":"us"#.to_vec()),
        (
            "not UTF-8",
            b"{\"model\":\"sim-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}".to_vec(),
        ),
        ("too deep", deep.into_bytes()),
        ("a field twice", twice.as_bytes().to_vec()),
        ("an array", b"[]".to_vec()),
        ("wrong types", br#"{"model":{"a":1},"messages":7}"#.to_vec()),
    ];
    for (name, body) in bodies {
        let (status, answer) = read(stack.post_bytes(body).send().await.unwrap()).await;
        assert_eq!(
            (status, &answer["error"]["type"]),
            (400, &Value::from("invalid_request_error")),
            "{name}: {answer}"
        );
    }
    let (status, answer) = read(stack.post_bytes(vec![b' '; 50 << 20]).send().await.unwrap()).await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (413, Some("request_too_large"))
    );
    // Of unknown length, too large all the same.
    let pieces = (0..50).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
    let body = reqwest::Body::wrap_stream(futures_stream(pieces));
    assert_eq!(read(stack.post_bytes(body).send().await.unwrap()).await.0, 413);
    let unknown = r#"{"model":"sim-mini","messages":[{"role":"user","content":"x"}],"api_base":"http://evil"}"#;
    let (status, answer) = read(stack.post_bytes(unknown).send().await.unwrap()).await;
    assert_eq!(status, 400, "the provider's own refusal goes through: {answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("api_base"));
    assert_eq!(stack.ask("sim-mini", "still there?").await.0, 200);
    stack.stop().await;
}

/// The same nonsense, and that of each dialect, at every door; every refusal in the shape that the door's clients read.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_no_dialect_knows() {
    let stack = Stack::start(Options::with_dialects()).await;
    let doors = [
        ("/v1/chat/completions", "/error/type", json!("invalid_request_error")),
        ("/v1/responses", "/error/type", json!("invalid_request_error")),
        ("/v1/embeddings", "/error/type", json!("invalid_request_error")),
        ("/v1/messages", "/error/type", json!("invalid_request_error")),
        (
            "/v1/messages/count_tokens",
            "/error/type",
            json!("invalid_request_error"),
        ),
        (
            "/v1beta/models/via-bedrock:generateContent",
            "/error/status",
            json!("INVALID_ARGUMENT"),
        ),
        (
            "/v1beta/models/via-openai:streamGenerateContent?alt=sse",
            "/error/status",
            json!("INVALID_ARGUMENT"),
        ),
        (
            "/v1beta/models/embed-gemini:embedContent",
            "/error/status",
            json!("INVALID_ARGUMENT"),
        ),
        (
            "/v1beta/models/via-gemini:countTokens",
            "/error/status",
            json!("INVALID_ARGUMENT"),
        ),
    ];
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "[]",
        "null",
        "7",
        "\"text\"",
        "{",
        "{}",
        "{\"model\":null}",
        "{\"model\":\"via-bedrock\"}",
        "{\"model\":\"via-bedrock\",\"model\":\"sim-mini\"}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    bodies.push(b"{\"model\":\"\xff\"}".to_vec());
    bodies.push(format!("{{\"model\":{}1{}}}", "[".repeat(200), "]".repeat(200)).into_bytes());
    // A list where the dialect has one, of what never belongs there.
    for item in [
        "7",
        "null",
        "\"x\"",
        "[]",
        "{}",
        "{\"role\":7}",
        "{\"role\":\"user\",\"content\":7}",
        "{\"role\":\"user\",\"content\":[7],\"parts\":[7]}",
        "{\"role\":\"king\",\"parts\":\"x\",\"content\":{}}",
    ] {
        for list in ["messages", "input", "contents", "tools", "system"] {
            let body = format!("{{\"model\":\"via-bedrock\",\"max_tokens\":-1,\"{list}\":[{item}]}}");
            bodies.push(body.into_bytes());
        }
    }
    for (path, pointer, expected) in &doors {
        for body in &bodies {
            let request = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
            let (status, answer) = read(request.body(body.clone()).send().await.unwrap()).await;
            let said = String::from_utf8_lossy(body);
            // `/v1/embeddings` takes a list of anything that is text, and Gemini a content without parts.
            assert!((400..500).contains(&status), "{path} {said}: {status} {answer}");
            let found = answer.pointer(pointer).or(answer.pointer(&format!("/0{pointer}")));
            assert!(
                found == Some(expected) || status == 404,
                "{path} {said}: {status} {answer}"
            );
        }
    }
    assert_eq!(stack.ask("sim-mini", "still there?").await.0, 200);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_request_are_settings() {
    let options = Options {
        settings: vec![
            ("ingress", "max_depth: 5"),
            ("ingress", "max_headers: 20"),
            ("ingress", "max_header_bytes: 8KiB"),
            ("ingress", "max_body: 1MiB"),
        ],
        ..Options::default()
    };
    let stack = Stack::start(options).await;
    let nested = |depth: usize| {
        let text = format!("{}7{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"model\":\"sim-mini\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"user\":{text}}}")
    };
    let (status, answer) = read(stack.post_bytes(nested(5)).send().await.unwrap()).await;
    assert_eq!(
        (status, answer["error"]["message"].as_str()),
        (400, Some("the request body is nested deeper than 5"))
    );
    // As deep as is allowed: what is wrong with it is for the provider to say.
    let (_, answer) = read(stack.post_bytes(nested(4)).send().await.unwrap()).await;
    assert_eq!(answer["error"]["code"], "provider_refused");
    let with_headers = |count: usize, length: usize| {
        let request = stack.post_bytes(crate::harness::chat("sim-mini", "x").to_string());
        (0..count).fold(request, |request, index| {
            request.header(format!("x-{index}"), "v".repeat(length))
        })
    };
    assert_eq!(with_headers(10, 1).send().await.unwrap().status(), 200);
    assert_eq!(with_headers(30, 1).send().await.unwrap().status(), 431);
    assert_eq!(with_headers(1, 9000).send().await.unwrap().status(), 431);
    let (status, answer) = read(stack.post_bytes(vec![b' '; (1 << 20) + 1]).send().await.unwrap()).await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (413, Some("request_too_large"))
    );
    stack.stop().await;
}

fn futures_stream<I: Iterator + Send + 'static>(items: I) -> impl futures::Stream<Item = I::Item> + Send {
    futures::stream::iter(items)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_requests() {
    let stack = Stack::with(Script::default()).await;
    let address = stack.http.trim_start_matches("http://").to_owned();
    let key = format!("authorization: bearer {KEY}\r\n");
    let chat = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n";
    for (name, request) in [
        ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned()),
        (
            "two lengths",
            format!("{chat}{key}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}x"),
        ),
        (
            "length and chunks",
            format!("{chat}{key}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a folded header",
            format!("{chat}{key}x: a\r\n b\r\ncontent-length: 2\r\n\r\n{{}}"),
        ),
        ("a NUL", format!("{chat}{key}x: a\0b\r\ncontent-length: 2\r\n\r\n{{}}")),
        (
            "two credentials",
            format!("{chat}{key}authorization: bearer other\r\ncontent-length: 2\r\n\r\n{{}}"),
        ),
        (
            "SQL for a key",
            format!("{chat}authorization: bearer ' OR 1=1 --\r\ncontent-length: 2\r\n\r\n{{}}"),
        ),
        (
            "a key of 100 kB",
            format!(
                "{chat}authorization: bearer {}\r\ncontent-length: 2\r\n\r\n{{}}",
                "k".repeat(100_000)
            ),
        ),
        (
            "a thousand headers",
            format!("{chat}{key}{}\r\n", "a: b\r\n".repeat(1000)),
        ),
    ] {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = connection.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), connection.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        assert!(["400", "401", "431", "closed"].contains(&status), "{name}: {answer}");
        assert!(!answer.contains(KEY), "{name} gave the key away");
    }
    assert_eq!(stack.simulator.stats().calls, 0);
    assert_eq!(stack.ask("sim-mini", "still there?").await.0, 200);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_queue() {
    let stack = Stack::with(Script::default()).await;
    let nats = async_nats::connect(&stack.nats_url).await.unwrap();
    let subjects = ["guard", "route", "work.simulator"].map(|stage| format!("tollgate.v1.{stage}"));
    for payload in [&b""[..], b"\0\xff\xfe", b"{\"event\":\"started\"}", &[7; 4096]] {
        for subject in &subjects {
            nats.publish(subject.clone(), bytes::Bytes::copy_from_slice(payload))
                .await
                .unwrap();
        }
        for subject in ["started.att_x", "settled.nothing", "concluded.x.y", "made-up"] {
            let subject = format!("tollgate.v1.ledger.{subject}");
            nats.publish(subject, bytes::Bytes::copy_from_slice(payload))
                .await
                .unwrap();
        }
    }
    nats.flush().await.unwrap();
    stack
        .until("SELECT count(*) FROM ledger_quarantine", 16, Duration::from_secs(10))
        .await;
    assert_eq!(stack.ask("sim-mini", "still there?").await.0, 200);
    stack.settled(1, Duration::from_secs(10)).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_deliveries() {
    use tollgate_proto::v1::{self, delivery_client::DeliveryClient};
    let stack = Stack::with(Script::default()).await;
    // The internal listener is not for clients; whoever reaches it all the same cannot claim what is not there.
    let port = stack.delivery_port();
    let mut client = DeliveryClient::new(channel(&format!("http://127.0.0.1:{port}")).await);
    let claim = v1::Claim {
        request_id: tollgate_types::RequestId::generate().to_string(),
        attempt_id: tollgate_types::AttemptId::generate().to_string(),
        target: Some(v1::Target {
            provider: "simulator".to_owned(),
            model: "m".to_owned(),
        }),
        owner: format!("http://127.0.0.1:{port}"),
        dialect: v1::Dialect::OpenaiChat.into(),
        ..v1::Claim::default()
    };
    let message = |claim| v1::DeliverRequest {
        message: Some(v1::deliver_request::Message::Claim(claim)),
    };
    let unknown = client
        .deliver(futures::stream::iter([message(claim.clone())]))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await;
    let Some(v1::deliver_response::Message::Refused(refused)) = unknown.unwrap().unwrap().message else {
        panic!("a claim for nothing was granted")
    };
    assert!(refused.reason() == v1::refused::Reason::Gone);
    let bad = v1::Claim {
        request_id: "req_\0".to_owned(),
        ..claim
    };
    let status = client.deliver(futures::stream::iter([message(bad)])).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let frame = v1::deliver_request::Message::Frame(v1::Frame::default());
    let first = v1::DeliverRequest { message: Some(frame) };
    assert!(client.deliver(futures::stream::iter([first])).await.is_err());
    stack.stop().await;
}
