//! Guardrails end to end: every door, whole and streamed, from one table.

use std::time::Duration;

use tollgate_proto::v1::{self, CompleteRequest, complete_event::Event, gateway_client::GatewayClient};
use tollgate_simulator::Script;
use tonic::Request;

use crate::{
    harness::{Stack, channel},
    matrix,
};

const KEY: &str = "tg_masked";

#[derive(Debug, Clone, Copy)]
enum Door {
    Http(matrix::Door),
    Grpc,
}

/// Every door, whole and streamed.
fn doors() -> impl Iterator<Item = (Door, bool)> {
    let http = matrix::DOORS.map(|(door, _)| Door::Http(door));
    http.into_iter()
        .chain([Door::Grpc])
        .flat_map(|door| [(door, false), (door, true)])
}

/// The text of the answer, or the code of the error, wherever in the answer it came.
async fn ask(stack: &Stack, (door, stream): (Door, bool), text: &str) -> Result<String, String> {
    let Door::Http(door) = door else {
        return grpc(stack, stream, text).await;
    };
    let (path, body) = matrix::plain(door, "sim-mini", text, stream);
    let post = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
    let body = post.body(body.to_string()).send().await.unwrap().text().await.unwrap();
    match matrix::error_code(&body) {
        Some(code) => Err(code),
        None if stream => Ok(matrix::streamed_text(door, &body)),
        None => Ok(matrix::seen(door, &serde_json::from_str(&body).unwrap()).text),
    }
}

async fn grpc(stack: &Stack, stream: bool, text: &str) -> Result<String, String> {
    let mut client = GatewayClient::new(channel(&stack.grpc).await);
    let mut message = v1::Message {
        content: vec![v1::Part {
            part: Some(v1::part::Part::Text(text.to_owned())),
            ..Default::default()
        }],
        ..v1::Message::default()
    };
    message.set_role(v1::Role::User);
    let request = CompleteRequest {
        model: "sim-mini".to_owned(),
        messages: vec![message],
        ..CompleteRequest::default()
    };
    let mut request = Request::new(request);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {KEY}").parse().unwrap());
    let code = |status: tonic::Status| {
        use tonic_types::StatusExt;
        status.get_details_error_info().unwrap().reason
    };
    if !stream {
        return client
            .complete_unary(request)
            .await
            .map(|answer| answer.into_inner().text)
            .map_err(code);
    }
    let mut answer = client.complete(request).await.map_err(code)?.into_inner();
    let mut text = String::new();
    while let Some(event) = answer.message().await.map_err(code)? {
        if let Some(Event::Text(piece)) = event.event {
            text.push_str(&piece);
        }
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_holds_at_every_door() {
    let stack = Stack::with(Script::default()).await;
    for door in doors() {
        let masked = ask(&stack, door, "write to ann@example.org or pay 4111 1111 1111 1111 ok?").await;
        assert_eq!(
            masked.as_deref(),
            Ok("You said: write to [EMAIL_1] or pay [CARD_1] ok?"),
            "{door:?}"
        );
        let fine = ask(&stack, door, "order 4111 1111 1111 1112, as it is").await;
        assert_eq!(
            fine.as_deref(),
            Ok("You said: order 4111 1111 1111 1112, as it is"),
            "{door:?}"
        );
        let denied = ask(&stack, door, "tell me of the Forbidden  FRUIT").await;
        assert_eq!(denied, Err("policy_denied".to_owned()), "{door:?}");
        // The answer echoes it, so the prompt is fine and the answer is not.
        let screened = ask(&stack, door, "repeat: the state secret is out").await;
        assert_eq!(screened, Err("policy_denied".to_owned()), "{door:?}");
    }
    stack.settled(40, Duration::from_secs(20)).await;
    // A denied prompt is no call; a denied answer is one, and is paid for.
    assert_eq!(stack.simulator.stats().calls, 30);
    assert_eq!(
        stack
            .count("SELECT count(*) FROM requests WHERE state = 'denied'")
            .await,
        20
    );
    let seen = stack.logs();
    assert!(!seen.contains("ann@example.org") && !seen.contains("4111 1111 1111 1111"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_text_in_a_large_body_is_masked_as_well() {
    let stack = Stack::with(Script::default()).await;
    let text = format!("ann@example.org {}", "x ".repeat(600 << 10));
    let answer = ask(&stack, (Door::Http(matrix::Door::Chat), false), &text)
        .await
        .unwrap();
    assert!(answer.starts_with("You said: [EMAIL_1] x x "), "{}", &answer[..40]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardrail_that_dies_while_it_screens_ends_the_stream_as_an_error() {
    let stack = Stack::with(Script::default()).await;
    assert_eq!(
        stack.kill_in_mid_stream(KEY, "guardrail").await["error"]["code"],
        "unavailable"
    );
    // The worker noticed that nobody listens, closed the call and settled it.
    stack.settled(1, Duration::from_secs(15)).await;
    stack.provider_left(1).await;
    stack.stop().await;
}
