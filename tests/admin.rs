//! The administration over HTTP: every call, for every role, and what is no call.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tollgate_audit::{PREFIX, ROUTES};
use tollgate_proto::v1::{ListTargetsRequest, targets_client::TargetsClient};
use tollgate_types::{Permission, Role};
use tonic::Code;

use crate::harness::{KEY, Options, Stack, bearer, channel, chat};

impl Stack {
    async fn admin(&self, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.reports));
        let request = request.bearer_auth(key).body(body.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        let value = serde_json::from_slice(&bytes);
        (status, value.unwrap_or_else(|_| panic!("{path}: {status} {bytes:?}")))
    }

    /// Waits until ingress and audit have heard of a key.
    async fn both_know(&self, key: &str) {
        let begun = Instant::now();
        while self.admin("GET", "/admin/v1/keys", key, "").await.0 == 401
            || self
                .client
                .get(format!("{}/v1/models", self.http))
                .bearer_auth(key)
                .send()
                .await
                .unwrap()
                .status()
                == 401
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "the key is not known");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, value) = self.admin(method, &format!("{PREFIX}{path}"), KEY, &body).await;
        assert_eq!(status, 200, "{method} {path}: {value}");
        value
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_reaches_what_is_its_own_and_nothing_else() {
    let stack = Stack::start(Options::default()).await;
    for role in Role::ALL {
        let key = stack.issue(&[role.as_str(), "--roles", role.as_str()]).await;
        stack.both_know(&key).await;
        for route in &ROUTES {
            let mut path = format!("{PREFIX}{}", route.path.replace("{table}", "retries"));
            while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
                path.replace_range(start..=end, "nobody");
            }
            let body = if path.contains("/reports/") { "" } else { "{}" };
            let (status, answer) = stack.admin(route.method, &path, &key, body).await;
            let may = role.permissions().iter().any(|one| route.permissions.contains(one));
            let refused = matches!(status, 401 | 403);
            assert_eq!(refused, !may, "{role} {} {path}: {status} {answer}", route.method);
            assert!(status != 500 && status != 405, "{role} {path}: {status} {answer}");
            let (status, _) = stack.admin(route.method, &path, "tg_forged", body).await;
            assert_eq!(status, 401, "{path}");
        }
        let mut targets = TargetsClient::new(channel(&stack.grpc).await);
        let listed = targets.list(bearer(ListTargetsRequest {}, &key)).await;
        let may = role.permissions().contains(&Permission::Operate);
        let code = listed.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, if may { Code::Ok } else { Code::PermissionDenied }, "{role}");
    }
    // The table allows nobody what it takes no permission for.
    assert!(ROUTES.iter().all(|route| !route.permissions.is_empty()));
    let addresses: BTreeSet<_> = ROUTES.iter().map(|route| (route.method, route.path)).collect();
    assert_eq!(addresses.len(), ROUTES.len());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_limits_prices_and_reports_over_http() {
    let stack = Stack::start(Options::default()).await;
    stack
        .done("PUT", "/tenants/acme", json!({ "models": { "names": ["sim-mini"] } }))
        .await;
    stack.done("PUT", "/tenants/acme/red", json!({})).await;
    let made = stack
        .done(
            "POST",
            "/keys",
            json!({ "name": "shop", "organisation": "acme", "team": "red", "rights": { "tags": { "app": "shop" } } }),
        )
        .await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(made["key"]["rights"]["tags"], json!({ "app": "shop" }));
    stack.both_know(&secret).await;
    assert_eq!(
        stack.status(&stack.http, &secret, &chat("sim-mini", "hello")).await,
        200
    );
    let listed = stack.done("GET", "/keys?organisation=acme&team=red", Value::Null).await;
    assert_eq!(
        (listed["keys"].as_array().unwrap().len(), &listed["keys"][0]["name"]),
        (1, &json!("shop"))
    );
    // Numbers of 64 bits are numbers, and what is not set is there.
    assert_eq!(listed["keys"][0]["expires_at_unix_ms"], json!(0));
    let turned = stack
        .done("POST", "/keys/shop/rotate", json!({ "grace_seconds": 60 }))
        .await;
    assert_ne!(turned["secret"].as_str().unwrap(), secret);
    let limit = json!({ "scope": { "organisation": "acme" }, "measure": "usd", "amount": "2.50", "period": "month" });
    let put = stack.done("PUT", "/limits/acme-month", limit).await;
    assert_eq!(
        (&put["limit"]["name"], &put["limit"]["amount"]),
        (&json!("acme-month"), &json!("2.5"))
    );
    let topped = stack
        .done("POST", "/limits/acme-month/top-up", json!({ "usd": "0.25" }))
        .await;
    assert_eq!(topped["limit"]["amount"], json!("2.75"));
    stack.settled(1, Duration::from_secs(20)).await;
    for by in ["GROUP_BY_TEAM", "team"] {
        let cost = stack
            .done("GET", &format!("/reports/cost?by={by}&organisation=acme"), Value::Null)
            .await;
        assert_eq!(
            (&cost["rows"][0]["group"], &cost["rows"][0]["calls"]),
            (&json!("acme/red"), &json!(1))
        );
    }
    let read = stack
        .done("GET", "/reports/unit-prices?organisation=acme&limit=1", Value::Null)
        .await;
    assert_eq!(
        (&read["columns"][4], &read["rows"][0]["cells"][4], &read["more"]),
        (&json!("unit"), &json!("input"), &json!(true))
    );
    let read = stack
        .done("GET", "/reports/unit-prices?organisation=elsewhere", Value::Null)
        .await;
    assert_eq!((&read["rows"], &read["more"]), (&json!([]), &json!(false)));
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 500 }).to_string();
    let cost = json!({ "provider": "openai", "model": "gpt-4o-mini", "usage_json": usage });
    let cost = stack.done("POST", "/prices/cost", cost).await;
    // 1,000 × 0.15 and 500 × 0.60 US dollars a million.
    assert_eq!(cost["total_usd"], json!("0.00045"));
    let listed = stack
        .done("GET", "/prices?provider=openai&model=gpt-4o-mini&all=true", Value::Null)
        .await;
    assert!(!listed["sheets"].as_array().unwrap().is_empty());
    stack.done("DELETE", "/limits/acme-month", Value::Null).await;
    stack.done("POST", "/keys/shop/disable", Value::Null).await;
    let events = stack.done("GET", "/audit-log?after=0&limit=100", Value::Null).await;
    let actions: Vec<_> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["action"].clone())
        .collect();
    assert_eq!(
        Value::from(actions),
        json!([
            "tenant.put",
            "tenant.put",
            "key.create",
            "key.rotate",
            "limit.put",
            "limit.top_up",
            "limit.remove",
            "key.disable"
        ])
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_told_so() {
    let stack = Stack::start(Options::default()).await;
    let long = format!("{{\"sheets\":\"{}\"}}", "x".repeat(65 << 20));
    for (method, path, body, expected, said) in [
        ("GET", "/admin/v1/nothing", "", 404, "nothing at this address"),
        ("GET", "/", "", 404, "nothing at this address"),
        ("PATCH", "/admin/v1/keys", "", 405, "does not take that method"),
        ("POST", "/admin/v1/keys", "{", 400, "no JSON object: line 1 column 1"),
        ("POST", "/admin/v1/keys", "[]", 400, "no JSON object"),
        ("POST", "/admin/v1/keys", "\u{0}", 400, "no JSON object"),
        ("POST", "/admin/v1/keys", "{\"nme\":\"a\"}", 400, "nme"),
        ("POST", "/admin/v1/keys", "{\"name\":7}", 400, "string"),
        ("POST", "/admin/v1/keys", "{\"name\":\"a b\"}", 400, "name: expected"),
        (
            "POST",
            "/admin/v1/keys",
            "{\"name\":\"a\",\"expires_at_unix_ms\":-1}",
            400,
            "expires_at_unix_ms: ",
        ),
        (
            "POST",
            "/admin/v1/keys/a/rotate",
            "{\"key\":\"b\"}",
            400,
            "key: is given twice",
        ),
        (
            "POST",
            "/admin/v1/keys/a/rotate?key=b",
            "{}",
            400,
            "key: is given twice",
        ),
        ("POST", "/admin/v1/keys/%FF/disable", "", 400, "UTF-8"),
        (
            "POST",
            "/admin/v1/keys/a/disable",
            "{\"key\":\"b\"}",
            400,
            "has no body",
        ),
        ("POST", "/admin/v1/keys/a/disable", "", 404, "no key of this name"),
        (
            "PUT",
            "/admin/v1/limits/a",
            "{\"name\":\"b\"}",
            400,
            "limit.name: is given twice",
        ),
        ("PUT", "/admin/v1/limits/a?limit=b", "{}", 400, "limit: is given twice"),
        ("GET", "/admin/v1/reports/cost?by=planet", "", 400, "by: "),
        (
            "GET",
            "/admin/v1/reports/cost?by=day&since_unix_ms=never",
            "",
            400,
            "since_unix_ms: ",
        ),
        ("GET", "/admin/v1/reports/planet", "", 400, "table: "),
        (
            "GET",
            "/admin/v1/reports/unpriced?since_day=never",
            "",
            400,
            "since_day: ",
        ),
        (
            "GET",
            "/admin/v1/reports/unpriced?until_day=99999-01-01",
            "",
            400,
            "until_day: ",
        ),
        ("GET", "/admin/v1/reports/unpriced?limit=5001", "", 400, "limit: "),
        ("GET", "/admin/v1/reports/unpriced?team=red", "", 400, "team: "),
        ("GET", "/admin/v1/keys?organization=acme", "", 400, "organization"),
        ("POST", "/admin/v1/prices", long.as_str(), 413, "over the limit"),
        ("POST", "/admin/v1/keys", &long[..2 << 20], 413, "over the limit"),
    ] {
        let (status, answer) = stack.admin(method, path, KEY, body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(message.contains(said), "{method} {path}: {answer}");
    }
    // A second credential does not count beside the first.
    let twice = stack.client.get(format!("{}{PREFIX}/keys", stack.reports));
    let twice = twice.bearer_auth("tg_forged").bearer_auth(KEY).send().await.unwrap();
    assert_eq!(twice.status().as_u16(), 401);
    stack.stop().await;
}
