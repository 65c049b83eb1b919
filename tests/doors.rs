//! The two doors: what they answer, and how they say no.

use serde_json::{Value, json};
use tollgate_proto::v1::{
    self, CompleteRequest, CostRequest, GroupBy, ListModelsRequest, complete_event::Event,
    gateway_client::GatewayClient, reports_client::ReportsClient,
};
use tollgate_simulator::Script;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::{
    harness::{KEY, MODELS, Options, Stack, channel, chat, events, read, streamed, text_of},
    matrix::{self, DOORS, Door},
};

fn native(text: &str) -> CompleteRequest {
    let mut message = v1::Message {
        content: vec![v1::Part {
            part: Some(v1::part::Part::Text(text.to_owned())),
            ..Default::default()
        }],
        ..v1::Message::default()
    };
    message.set_role(v1::Role::User);
    CompleteRequest {
        model: "sim-mini".to_owned(),
        messages: vec![message],
        ..CompleteRequest::default()
    }
}

fn bearer<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_whole_and_streamed() {
    let stack = Stack::with(Script::default()).await;
    let response = stack.post(&chat("sim-mini", "hello")).send().await.unwrap();
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    let (status, body) = read(response).await;
    assert_eq!(
        (status, &body["choices"][0]["message"]["content"]),
        (200, &json!("You said: hello"))
    );

    let response = stack.post(&streamed("sim-mini", "hello")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let body = response.text().await.unwrap();
    let events = events(&body);
    assert_eq!(
        (text_of(&events).as_str(), *events.last().unwrap()),
        ("You said: hello", "[DONE]")
    );
    // The usage was asked for on the ledger's behalf and is none of the client's business.
    assert!(!body.contains("usage"));

    let mut with_usage = streamed("sim-mini", "hello");
    with_usage["stream_options"] = json!({ "include_usage": true });
    let body = stack.post(&with_usage).send().await.unwrap().text().await.unwrap();
    let last = crate::harness::events(&body)[crate::harness::events(&body).len() - 2].to_owned();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["prompt_tokens"].as_u64().unwrap() > 0);

    let (_, models) = read(
        stack
            .client
            .get(format!("{}/v1/models", stack.http))
            .bearer_auth(KEY)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(models["object"], "list");
    assert!(
        models["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["id"] == "sim-mini")
    );
    stack.settled(3, std::time::Duration::from_secs(10)).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_streamed_and_whole_and_reports_the_cost() {
    let stack = Stack::with(Script::default()).await;
    let mut client = GatewayClient::new(channel(&stack.grpc).await);
    let whole = client.complete_unary(bearer(native("hello"), KEY)).await.unwrap();
    let request_id = whole
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let whole = whole.into_inner();
    assert_eq!((whole.text.as_str(), whole.request_id), ("You said: hello", request_id));
    assert_eq!(whole.finish, v1::FinishReason::Stop as i32);
    let usage = whole.usage.unwrap();

    let mut answer = client
        .complete(bearer(native("hello"), KEY))
        .await
        .unwrap()
        .into_inner();
    let (mut text, mut streamed_usage) = (String::new(), None);
    while let Some(event) = answer.message().await.unwrap() {
        match event.event.unwrap() {
            Event::Text(piece) => text.push_str(&piece),
            Event::Usage(usage) => streamed_usage = Some(usage),
            _ => {}
        }
    }
    assert_eq!((text.as_str(), streamed_usage), ("You said: hello", Some(usage)));

    let models = client
        .list_models(bearer(ListModelsRequest {}, "tg_narrow"))
        .await
        .unwrap()
        .into_inner()
        .models;
    assert_eq!(models.len(), 1);

    stack.settled(2, std::time::Duration::from_secs(10)).await;
    let mut reports = ReportsClient::new(channel(&stack.reports).await);
    let request = CostRequest {
        by: GroupBy::Model.into(),
        since_unix_ms: 0,
        until_unix_ms: 0,
        ..CostRequest::default()
    };
    let rows = reports
        .cost(bearer(request.clone(), "tg_reader"))
        .await
        .unwrap()
        .into_inner()
        .rows;
    assert_eq!(
        (rows.len(), rows[0].calls, rows[0].input_tokens),
        (1, 2, 2 * usage.input_tokens)
    );
    let refused = reports.cost(bearer(request, "tg_masked")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    stack.stop().await;
}

/// Whatever dialect a provider refuses in, the client reads the same thing in its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_providers_refusal_is_known_for_what_it_is_at_every_door() {
    let stack = Stack::start(Options::with_dialects()).await;
    let refusals = [
        ("#sim:status=429 #sim:retry_after_s=7", 429, "provider_rate_limited"),
        ("#sim:status=500", 500, "provider_error"),
        ("#sim:error_kind=context_length", 400, "context_length_exceeded"),
        ("#sim:error_kind=content_policy", 400, "content_policy"),
    ];
    for ((door, _), model) in DOORS.iter().flat_map(|door| MODELS.map(|model| (door, model))) {
        for (words, status, code) in refusals {
            for stream in [false, true] {
                let (path, body) = matrix::plain(*door, model, words, stream);
                let request = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
                let response = request.body(body.to_string()).send().await.unwrap();
                let wait = response.headers().get("retry-after").cloned();
                let found = response.status().as_u16();
                let body = response.text().await.unwrap();
                // The OpenAI door has OpenAI's names for some of them.
                let theirs = match (door, code) {
                    (Door::Chat | Door::Responses, "content_policy") => "content_policy_violation",
                    (Door::Chat | Door::Responses, "provider_rate_limited") => "rate_limit_exceeded",
                    _ => code,
                };
                let what = format!("{door:?} {model} {words}: {body}");
                assert_eq!(matrix::error_code(&body).as_deref(), Some(theirs), "{what}");
                assert_eq!(found, status, "{what}");
                assert_eq!(
                    wait.is_some_and(|wait| wait == "7"),
                    code == "provider_rate_limited",
                    "{what}"
                );
            }
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_callers_and_requests_are_told_what_is_wrong() {
    let stack = Stack::with(Script::default()).await;
    let ask = |key: &'static str, body: Value| {
        let request = stack
            .client
            .post(format!("{}/v1/chat/completions", stack.http))
            .body(body.to_string());
        async move { read(request.bearer_auth(key).send().await.unwrap()).await }
    };
    let error = |(status, body): (u16, Value)| (status, body["error"]["code"].as_str().unwrap().to_owned());
    let hello = || chat("sim-mini", "hello");
    for (key, body, expected) in [
        ("tg_wrong", hello(), (401, "invalid_api_key")),
        ("tg_expired", hello(), (401, "invalid_api_key")),
        ("tg_reader", hello(), (403, "permission_denied")),
        ("tg_narrow", hello(), (404, "model_not_found")),
        (KEY, chat("no-such-model", "hello"), (404, "model_not_found")),
        (KEY, json!({ "model": "sim-mini" }), (400, "invalid_request")),
        (
            KEY,
            json!({ "model": "sim-mini", "messages": [{ "role": "king", "content": "x" }] }),
            (400, "provider_refused"),
        ),
    ] {
        assert_eq!(error(ask(key, body).await), (expected.0, expected.1.to_owned()));
    }
    let none = stack
        .client
        .post(format!("{}/v1/chat/completions", stack.http))
        .send()
        .await
        .unwrap();
    assert_eq!(error(read(none).await).0, 401);
    let lost = stack
        .client
        .get(format!("{}/v2/nothing", stack.http))
        .send()
        .await
        .unwrap();
    assert_eq!(error(read(lost).await).0, 404);

    // Two a minute: the refused request above was one of them.
    assert_eq!(ask("tg_narrow", chat("sim-large", "1")).await.0, 200);
    let limited = stack
        .client
        .post(format!("{}/v1/chat/completions", stack.http))
        .body(hello().to_string());
    let limited = limited.bearer_auth("tg_narrow").send().await.unwrap();
    assert!(
        limited.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    assert_eq!(error(read(limited).await), (429, "rate_limit_exceeded".to_owned()));

    let mut client = GatewayClient::new(channel(&stack.grpc).await);
    let status = client
        .complete_unary(bearer(native("x"), "tg_wrong"))
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("unauthenticated", "tollgate")
    );
    let empty = CompleteRequest {
        messages: Vec::new(),
        ..native("x")
    };
    let status = client.complete_unary(bearer(empty, KEY)).await.err().unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "messages: is missing")
    );
    stack.stop().await;
}
