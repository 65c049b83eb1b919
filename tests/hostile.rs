//! What strangers send: every door stays up, says what is wrong, and lets nothing leak.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tollgate_simulator::Script;

use crate::harness::{KEY, Stack, channel, read};

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
    assert_eq!(refused.reason(), v1::refused::Reason::Gone);
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
