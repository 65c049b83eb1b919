//! The provider as a client meets it, over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tollgate_simulator::{Outcome, Rule, Script, Simulator, Stats, run};

/// A running simulator; its task ends when this is dropped.
struct Provider {
    simulator: Simulator,
    address: std::net::SocketAddr,
    client: Client,
    task: JoinSet<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Provider {
    async fn start(script: Script) -> Self {
        // Another test may have installed it; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let simulator = Simulator::new(script);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(listener, simulator.clone(), stop.clone()));
        Self {
            simulator,
            address,
            client: Client::builder().no_proxy().build().unwrap(),
            task,
            stop,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn chat(&self, body: &Value) -> Response {
        let request = self.client.post(self.url("/v1/chat/completions"));
        request
            .bearer_auth("sk-test")
            .header("content-type", "application/json")
            .header("x-client-request-id", "att_1")
            .body(body.to_string())
            .send()
            .await
            .unwrap()
    }

    /// A socket on which the chat request has been written by hand.
    async fn raw_chat(&self, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer k\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    }

    /// Waits until the stats satisfy a condition, and says what they were if they never do.
    async fn until(&self, condition: impl Fn(&Stats) -> bool) -> Stats {
        for _ in 0..500 {
            let stats = self.simulator.stats();
            if condition(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("stats stayed {:?}", self.simulator.stats());
    }
}

fn ask(text: &str, fields: Value) -> Value {
    let mut body = json!({"model": "sim-mini", "messages": [{"role": "user", "content": text}]});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn streamed(text: &str) -> Value {
    ask(text, json!({"stream": true, "stream_options": {"include_usage": true}}))
}

async fn json_of(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// The data of every event, `[DONE]` as a string.
fn events(text: &str) -> Vec<Value> {
    text.split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").expect("a data line"))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into()))
        .collect()
}

#[tokio::test]
async fn a_stream_has_the_services_shape_and_the_whole_answers_usage() {
    let provider = Provider::start(Script::default()).await;
    let text = "Zoë likes 🦀 and 日本語";
    let whole = json_of(provider.chat(&ask(text, json!({}))).await).await;
    let response = provider.chat(&streamed(text)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(response.headers().contains_key("x-request-id"));
    let events = events(&response.text().await.unwrap());

    let [head, contents @ .., finish, usage, done] = events.as_slice() else {
        panic!("too few events: {events:?}");
    };
    assert_eq!(head["choices"][0]["delta"]["role"], "assistant");
    let said: String = contents
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(said, format!("You said: {text}"));
    assert_eq!(whole["choices"][0]["message"]["content"], said);
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!((&usage["choices"], done), (&json!([]), &json!("[DONE]")));
    for chunk in [head, finish] {
        assert_eq!((&chunk["id"], &chunk["usage"]), (&usage["id"], &Value::Null));
        assert_eq!(chunk["object"], "chat.completion.chunk");
    }

    assert_eq!(usage["usage"], whole["usage"]);
    let of = |key: &str| whole["usage"][key].as_u64().unwrap();
    let stats = provider.simulator.stats();
    assert_eq!((stats.calls, stats.ok), (2, 2));
    assert_eq!(stats.input_tokens, 2 * of("prompt_tokens"));
    assert_eq!(stats.output_tokens, 2 * of("completion_tokens"));
    assert_eq!(provider.simulator.calls()[0].id.as_deref(), Some("att_1"));
}

#[tokio::test]
async fn limits_tools_and_formats_shape_the_answer() {
    let provider = Provider::start(Script::default()).await;
    let cut = json_of(provider.chat(&ask("#sim:words=50", json!({"max_tokens": 7}))).await).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["usage"]["completion_tokens"], 7);

    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    let fields = json!({"tools": tools, "tool_choice": "required", "stream": true});
    let events = events(&provider.chat(&ask("Rome", fields)).await.text().await.unwrap());
    let calls: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"]["tool_calls"][0])
        .collect();
    assert_eq!(calls[0]["function"]["name"], "weather");
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&arguments).unwrap(),
        json!({"city": "Rome"})
    );
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");

    let url = format!("data:image/png;base64,{}", "A".repeat(5 << 20));
    let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    let large = json_of(provider.chat(&ask("", json!({"messages": picture}))).await).await;
    assert_eq!(large["usage"]["prompt_tokens"], 85 + 4 + 3);

    let format = json!({"response_format": {"type": "json_object"}, "n": 2});
    let answer = json_of(provider.chat(&ask("some json", format)).await).await;
    let content = answer["choices"][1]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap().is_object());
}

#[tokio::test]
async fn refusals_are_calls_without_cost() {
    let provider = Provider::start(Script::default()).await;
    let refused = provider.chat(&ask("hi", json!({"top_k": 1}))).await;
    assert_eq!(refused.status(), 400);
    let bad_key = provider
        .client
        .post(provider.url("/v1/chat/completions"))
        .bearer_auth("sk-invalid");
    let bad_key = bad_key.body("{}").send().await.unwrap();
    assert_eq!(bad_key.status(), 401);
    assert_eq!(json_of(bad_key).await["error"]["code"], "invalid_api_key");
    let unknown = provider.chat(&ask("hi", json!({"model": "gpt-9"}))).await;
    assert_eq!(unknown.status(), 404);
    let expected = Stats {
        calls: 3,
        refused: 3,
        ..Stats::default()
    };
    assert_eq!(provider.simulator.stats(), expected);
}

#[tokio::test]
async fn the_share_of_errors_is_exact_under_concurrency() {
    let provider = Provider::start(Script {
        error_rate: 0.1,
        error_status: 429,
        retry_after_s: Some(2),
        rules: vec![Rule {
            model: "sim-large".into(),
            error_rate: Some(0.0),
            ..Rule::default()
        }],
        ..Script::default()
    })
    .await;
    let mut clients = JoinSet::new();
    for lane in 0..8 {
        let request = provider.client.post(provider.url("/v1/chat/completions"));
        let request = request.bearer_auth("k").header("content-type", "application/json");
        let model = if lane == 0 { "sim-large" } else { "sim-mini" };
        let request = request.body(ask("hi", json!({"model": model})).to_string());
        clients.spawn(async move {
            let mut failed = 0;
            for _ in 0..100 {
                let response = request.try_clone().unwrap().send().await.unwrap();
                if response.status() == 429 {
                    assert_eq!(
                        (lane == 0, &response.headers()["retry-after"]),
                        (false, &"2".parse().unwrap())
                    );
                    failed += 1;
                }
                response.bytes().await.unwrap();
            }
            failed
        });
    }
    let failed: u64 = clients.join_all().await.iter().sum();
    let stats = provider.simulator.stats();
    assert_eq!((stats.errors, stats.ok), (failed, 800 - failed));
    assert!(failed.abs_diff(70) <= 1, "{failed} of 700");
}

#[tokio::test]
async fn a_cut_answer_is_broken_on_the_wire() {
    let provider = Provider::start(Script::default()).await;
    let mut bytes = Vec::new();
    let mut socket = provider.raw_chat(&streamed("#sim:cut=4 #sim:words=50")).await;
    // The connection may end with a reset: what matters is what came before.
    let read = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the connection must not stay open");
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(
        text.matches("chat.completion.chunk").count(),
        5,
        "the role and four contents: {text}"
    );
    assert!(!text.contains("[DONE]") && !text.ends_with("0\r\n\r\n"), "{text}");

    let whole = provider.chat(&ask("#sim:cut", json!({}))).await;
    assert_eq!(whole.status(), 200);
    assert!(whole.bytes().await.is_err(), "a cut body must not pass for a whole one");

    let inside = provider.chat(&streamed("#sim:error=2")).await.text().await.unwrap();
    let inside = events(&inside);
    assert_eq!((inside.len(), &inside[3]["error"]["type"]), (4, &json!("server_error")));

    let stats = provider.until(|stats| stats.open == 0).await;
    assert_eq!((stats.calls, stats.cut, stats.errors), (3, 2, 1));
    let calls = provider.simulator.calls();
    assert_eq!((calls[0].outcome, calls[0].output_tokens), (Outcome::Cut, 4));
    assert_eq!((calls[2].outcome, calls[2].input_tokens), (Outcome::Error, 0));
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_wherever_the_answer_stands() {
    let provider = Provider::start(Script::default()).await;
    for body in [
        ask("#sim:delay_ms=60000", json!({})),
        streamed("#sim:stall"),
        streamed("#sim:words=500 #sim:chunk_delay_ms=20"),
    ] {
        let mut socket = provider.raw_chat(&body).await;
        provider.until(|stats| stats.open == 1).await;
        if body["messages"][0]["content"].as_str().unwrap().contains("words") {
            let mut buffer = [0; 1024];
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
        }
        drop(socket);
        provider.until(|stats| stats.open == 0).await;
    }
    let calls = provider.simulator.calls();
    assert!(calls.iter().all(|call| call.outcome == Outcome::HungUp), "{calls:?}");
    assert!(calls.iter().all(|call| call.input_tokens > 0), "{calls:?}");
    let statuses: Vec<u16> = calls.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [0, 200, 200]);
    assert!((1..500).contains(&calls[2].output_tokens), "{calls:?}");
}

#[tokio::test]
async fn a_script_is_set_over_http_and_a_misspelt_one_refused() {
    let provider = Provider::start(Script::default()).await;
    let put = |body: &'static str| provider.client.put(provider.url("/script")).body(body).send();
    let refused = put(r#"{"eror_rate": 1}"#).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("unknown field `eror_rate`"));
    let refused = put(r#"{"rules": [{"model": "sim-mini", "cut_rate": 2}]}"#)
        .await
        .unwrap();
    assert!(
        refused
            .text()
            .await
            .unwrap()
            .contains("rules[0].cut_rate: must be between 0 and 1")
    );
    assert_eq!(
        put(r#"{"error_rate": 1, "error_statuses": [503]}"#)
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(provider.chat(&ask("hi", json!({}))).await.status(), 503);

    let get = |path: &str| provider.client.get(provider.url(path)).bearer_auth("k").send();
    assert_eq!(json_of(get("/stats").await.unwrap()).await["errors"], 1);
    assert_eq!(
        json_of(get("/calls?since=0").await.unwrap()).await[0]["outcome"],
        "error"
    );
    assert_eq!(json_of(get("/calls?since=1").await.unwrap()).await, json!([]));
    assert_eq!(
        json_of(get("/v1/models").await.unwrap()).await["data"][0]["id"],
        "sim-mini"
    );
    provider.client.post(provider.url("/reset")).send().await.unwrap();
    assert_eq!(provider.simulator.stats(), Stats::default());
}

#[tokio::test]
async fn a_stop_ends_open_calls_within_its_second() {
    let mut provider = Provider::start(Script::default()).await;
    let _socket = provider.raw_chat(&streamed("#sim:stall")).await;
    provider.until(|stats| stats.open == 1).await;
    provider.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(3), provider.task.join_next()).await;
    assert!(matches!(ended, Ok(Some(Ok(Ok(()))))), "{ended:?}");
    assert_eq!(provider.simulator.calls()[0].outcome, Outcome::Cut);
}

/// A request that the service refuses, by a word of its complaint.
#[tokio::test]
async fn every_format_is_as_strict_as_its_service() {
    let provider = Provider::start(Script::default()).await;
    let turn = |role: &str, content: Value| json!({"role": role, "content": content});
    let user = turn("user", json!("hi"));
    let call = json!({"type": "tool_use", "id": "a", "name": "t", "input": {}});
    let tools = json!([{"name": "t", "input_schema": {"type": "object"}}]);
    let claude = |fields: Value| {
        let mut body = json!({"model": "sim-claude", "max_tokens": 9, "messages": [user]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        body
    };
    let messages = "/v1/messages";
    let gemini = "/v1beta/models/sim-gemini:generateContent";
    let converse = "/model/sim-claude/converse";
    let responses = "/v1/responses";
    let content = |role: &str, part: Value| json!({"role": role, "parts": [part]});
    for (path, body, complaint) in [
        (
            messages,
            json!({"model": "sim-claude", "messages": [user]}),
            "max_tokens: Field required",
        ),
        (messages, claude(json!({"messages": [user, user]})), "must alternate"),
        (
            messages,
            claude(json!({"messages": [turn("assistant", json!("x"))]})),
            "first message must use",
        ),
        (
            messages,
            claude(json!({"tools": tools, "messages": [user, turn("assistant", json!([call])), user]})),
            "tool_result",
        ),
        (
            messages,
            claude(json!({"messages": [user, turn("assistant", json!("x "))]})),
            "trailing whitespace",
        ),
        (
            messages,
            claude(json!({"thinking": {"type": "enabled", "budget_tokens": 1024}})),
            "must be greater",
        ),
        (messages, claude(json!({"seed": 1})), "seed"),
        (messages, claude(json!({"stop_sequences": [" "]})), "non-whitespace"),
        (gemini, json!({"contents": []}), "contents"),
        (
            gemini,
            json!({"contents": [content("model", json!({"functionCall": {"name": "f", "args": {}}}))]}),
            "function",
        ),
        (
            gemini,
            json!({"contents": [content("user", json!({"text": "x"}))], "max_tokens": 1}),
            "Unknown name",
        ),
        (
            converse,
            json!({"messages": [{"role": "user", "content": [{"text": " "}]}]}),
            "blank",
        ),
        (
            converse,
            json!({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}),
            "must start with a user",
        ),
        (
            responses,
            json!({"model": "sim-mini", "input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}),
            "No tool call",
        ),
        (
            responses,
            json!({"model": "sim-mini", "input": "x", "stop": "y"}),
            "stop",
        ),
        ("/v1/embeddings", json!({"model": "sim-embed", "input": []}), "empty"),
    ] {
        let sent = provider
            .client
            .post(provider.url(path))
            .header("authorization", "Bearer k");
        let sent = sent
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json");
        let response = sent.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path} {body}");
        let said = response.text().await.unwrap();
        assert!(said.contains(complaint), "{path} {body}: {said}");
    }
}
