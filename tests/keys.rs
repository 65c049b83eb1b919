//! Keys that are issued while the gateway runs: what they may do, how they end, and who may see and change them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_proto::v1::{
    CostRequest, CreateKeyRequest, GroupBy, KeyRequest, ListKeysRequest, ListTenantsRequest, Names, PutTenantRequest,
    Rights, RotateKeyRequest, UpdateKeyRequest, audit_log_client::AuditLogClient, keys_client::KeysClient,
    reports_client::ReportsClient,
};
use tonic::{Code, transport::Channel};

use crate::harness::{KEY, Options, Stack, bearer, channel, chat};

/// On a busy machine; `bench/keys.py` measures how soon every ingress knows of a change.
const PATIENCE: Duration = Duration::from_secs(20);

impl Stack {
    /// What `tollgate` says with the key of the tests, on standard output or else on standard error.
    pub(crate) async fn tollgate(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(arguments)
            .env("TOLLGATE_REPORTS", &self.reports)
            .env("TOLLGATE_API_KEY", KEY)
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// A key's secret, which is the first line that is printed.
    pub(crate) async fn issue(&self, arguments: &[&str]) -> String {
        let told = self.tollgate(&[&["keys", "create"], arguments].concat()).await.unwrap();
        told.lines().next().unwrap().to_owned()
    }

    /// The status of a request with this key at the first or the second ingress; 0 when that is away.
    pub(crate) async fn status(&self, base: &str, key: &str, body: &Value) -> u16 {
        let request = self.client.post(format!("{base}/v1/chat/completions")).bearer_auth(key);
        let Ok(response) = request.body(body.to_string()).send().await else {
            return 0;
        };
        let status = response.status().as_u16();
        response.bytes().await.unwrap();
        status
    }

    /// Waits until both ingresses answer a request with this key so.
    async fn both(&self, key: &str, expected: u16) {
        let begun = Instant::now();
        for base in &self.ingresses {
            while self.status(base, key, &chat("sim-mini", "hello")).await != expected {
                assert!(begun.elapsed() < PATIENCE, "{base} does not answer {expected}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn rights(permissions: &[&str]) -> Option<Rights> {
    Some(Rights {
        permissions: Some(Names {
            names: permissions.iter().map(|name| (*name).to_owned()).collect(),
        }),
        ..Rights::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_known_everywhere_and_so_is_its_end() {
    let stack = Stack::start(Options {
        ingresses: 2,
        ..Options::default()
    })
    .await;
    let secret = stack.issue(&["shop"]).await;
    stack.both(&secret, 200).await;
    // Rotated with a grace, both secrets are good; without one, only the new.
    let turned = stack
        .tollgate(&["keys", "rotate", "shop", "--grace", "60"])
        .await
        .unwrap();
    let second = turned.lines().next().unwrap().to_owned();
    stack.both(&second, 200).await;
    stack.both(&secret, 200).await;
    let turned = stack
        .tollgate(&["keys", "rotate", "shop", "--grace", "0"])
        .await
        .unwrap();
    let third = turned.lines().next().unwrap().to_owned();
    stack.both(&third, 200).await;
    stack.both(&second, 401).await;
    stack.both(&secret, 401).await;
    stack.tollgate(&["keys", "disable", "shop"]).await.unwrap();
    stack.both(&third, 401).await;
    stack.tollgate(&["keys", "enable", "shop"]).await.unwrap();
    stack.both(&third, 200).await;
    // All that is one key in the ledger.
    let listed: Value =
        serde_json::from_str(&stack.tollgate(&["keys", "list", "--format", "json"]).await.unwrap()).unwrap();
    assert_eq!(
        (
            listed.as_array().unwrap().len(),
            listed[0]["state"].as_str(),
            &listed[0]["endings"]
        ),
        (1, Some("active"), &json!([third[third.len() - 4..]]))
    );
    let calls = stack.simulator.stats().calls;
    stack
        .until(
            "SELECT count(*) FROM ledger WHERE key_name = 'shop'",
            calls as i64,
            Duration::from_secs(20),
        )
        .await;
    assert_eq!(stack.count("SELECT count(DISTINCT key_id) FROM ledger").await, 1);
    // Whatever is away, what is known stays known: audit and its database, and an ingress that starts meanwhile.
    stack
        .tollgate(&["keys", "create", "late", "--expires", "2020-01-01T00:00:00Z"])
        .await
        .unwrap();
    stack.roles.kill("audit").await.unwrap();
    stack.roles.kill("ingress").await.unwrap();
    let begun = Instant::now();
    let mut seen = Vec::new();
    while seen.last() != Some(&200) && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen.push(stack.status(&stack.http, &third, &chat("sim-mini", "hello")).await);
        assert_eq!(
            stack
                .status(&stack.ingresses[1], &third, &chat("sim-mini", "hello"))
                .await,
            200
        );
    }
    // From its first answer on the new ingress knows the key.
    seen.retain(|status| *status != 0);
    assert_eq!(seen, [200]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_do_what_its_rights_say() {
    let stack = Stack::start(Options {
        ingresses: 2,
        ..Options::default()
    })
    .await;
    let tollgate = async |arguments: &[&str]| stack.tollgate(arguments).await.unwrap();
    tollgate(&[
        "tenants",
        "put",
        "acme",
        "--tag",
        "owner=acme",
        "--models",
        "sim-mini,half-dead,dead",
    ])
    .await;
    tollgate(&[
        "tenants",
        "put",
        "acme/web",
        "--doors",
        "openai,grpc",
        "--lanes",
        "interactive",
    ])
    .await;
    let of_web = ["--organisation", "acme", "--team", "web"];
    let secret = stack
        .issue(&[&["narrow-web", "--tag", "owner=me", "--tag", "app=shop"], &of_web[..]].concat())
        .await;
    let no_calls = stack
        .issue(&[&["reader-web", "--permissions", "report"], &of_web[..]].concat())
        .await;
    let bound = stack.issue(&["bound", "--providers", "simulator"]).await;
    let unbound = stack.issue(&["elsewhere", "--providers", "dead"]).await;
    stack.both(&unbound, 403).await;
    let status = async |key: &str, model: &str| stack.status(&stack.http, key, &chat(model, "hello")).await;
    assert_eq!(status(&secret, "sim-large").await, 404);
    assert_eq!(status(&no_calls, "sim-mini").await, 403);
    // The dead provider is never tried: no attempt of it is in the ledger.
    assert_eq!(
        (status(&bound, "half-dead").await, status(&bound, "dead").await),
        (200, 403)
    );
    let post = async |path: &str, body: Value| -> (u16, String) {
        let request = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(&secret);
        let request = request
            .header("x-tollgate-tags", "owner=you,run=7")
            .header("x-tollgate-user", "u-77");
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (code, said) = post(
        "/v1/messages",
        json!({"model": "sim-mini", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
    )
    .await;
    assert!(code == 403 && said.contains("may not use this door"), "{said}");
    let job = json!({"url": "/v1/chat/completions", "body": chat("sim-mini", "later")});
    let (code, said) = post("/v1/jobs", job).await;
    assert!(code == 403 && said.contains("lane `jobs`"), "{said}");
    assert_eq!(post("/v1/chat/completions", chat("sim-mini", "labelled")).await.0, 200);
    let labelled = "SELECT count(*) FROM ledger WHERE organisation = 'acme' AND team = 'web' AND end_user = 'u-77'
                    AND tags = '{\"owner\": \"acme\", \"app\": \"shop\", \"run\": \"7\"}'";
    stack.until(labelled, 1, Duration::from_secs(20)).await;
    assert_eq!(
        stack.count("SELECT count(*) FROM ledger WHERE provider = 'dead'").await,
        0
    );
    // What the team may do changes what its key may do.
    tollgate(&["tenants", "put", "acme/web", "--models", "dead"]).await;
    stack.both(&secret, 404).await;
    for (labels, expected) in [("a", 400), ("=b", 400), ("ok=1", 404)] {
        let request = stack
            .client
            .post(format!("{}/v1/chat/completions", stack.http))
            .bearer_auth(&secret);
        let response = request
            .header("x-tollgate-tags", labels)
            .body(chat("sim-mini", "x").to_string())
            .send()
            .await;
        assert_eq!(response.unwrap().status().as_u16(), expected, "{labels}");
    }
    stack.stop().await;
}

struct Admin {
    keys: KeysClient<Channel>,
}

impl Admin {
    async fn create(&mut self, by: &str, name: &str, tenant: &str, given: Option<Rights>) -> Result<String, Code> {
        let (organisation, team) = tenant.split_once('/').unwrap_or((tenant, ""));
        let request = CreateKeyRequest {
            name: name.to_owned(),
            organisation: organisation.to_owned(),
            team: team.to_owned(),
            rights: given,
            ..CreateKeyRequest::default()
        };
        let made = self.keys.create(bearer(request, by)).await;
        made.map(|made| made.into_inner().secret)
            .map_err(|status| status.code())
    }

    async fn seen(&mut self, by: &str) -> Vec<String> {
        let listed = self.keys.list(bearer(ListKeysRequest::default(), by)).await.unwrap();
        listed.into_inner().keys.into_iter().map(|key| key.name).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_changes_what_is_anothers() {
    let stack = Stack::start(Options::default()).await;
    let channel = channel(&stack.reports).await;
    let mut admin = Admin {
        keys: KeysClient::new(channel.clone()),
    };
    for tenant in ["acme", "acme/red", "acme/blue", "other"] {
        stack.tollgate(&["tenants", "put", tenant]).await.unwrap();
    }
    let all = &["complete", "report", "keys"];
    let acme = admin.create(KEY, "acme-admin", "acme", rights(all)).await.unwrap();
    let red = admin.create(KEY, "red-admin", "acme/red", rights(all)).await.unwrap();
    let other = admin.create(KEY, "other-admin", "other", rights(all)).await.unwrap();
    // Audit knows its own keys as every ingress does.
    let begun = Instant::now();
    while admin
        .keys
        .list(bearer(ListKeysRequest::default(), &other))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(admin.seen(KEY).await.len(), 3);
    assert_eq!(admin.seen(&acme).await, ["acme-admin", "red-admin"]);
    assert_eq!(admin.seen(&red).await, ["red-admin"]);
    assert_eq!(admin.seen(&other).await, ["other-admin"]);
    // Within one's own, and no more than one has.
    assert!(
        admin
            .create(&acme, "blue", "acme/blue", rights(&["complete"]))
            .await
            .is_ok()
    );
    assert!(admin.create(&red, "mine", "", rights(&["report"])).await.is_ok());
    let denied = Err(Code::PermissionDenied);
    assert_eq!(admin.create(&acme, "x", "other", None).await, denied);
    assert_eq!(admin.create(&red, "x", "acme/blue", None).await, denied);
    assert_eq!(admin.create(&red, "x", "other/red", None).await, denied);
    assert_eq!(admin.create(&acme, "x", "acme", rights(&["operate"])).await, denied);
    assert_eq!(admin.create(&acme, "x", "acme", rights(&["audit"])).await, denied);
    let named = |key: &str| KeyRequest { key: key.to_owned() };
    let refused = |status: tonic::Status| status.code();
    assert_eq!(
        admin
            .keys
            .disable(bearer(named("other-admin"), &acme))
            .await
            .map_err(refused)
            .err(),
        Some(Code::NotFound)
    );
    assert_eq!(
        admin
            .keys
            .disable(bearer(named("acme-admin"), &red))
            .await
            .map_err(refused)
            .err(),
        Some(Code::NotFound)
    );
    let id = admin
        .keys
        .list(bearer(ListKeysRequest::default(), &other))
        .await
        .unwrap()
        .into_inner()
        .keys[0]
        .id
        .clone();
    let rotate = RotateKeyRequest {
        key: id,
        grace_seconds: 0,
    };
    assert_eq!(
        admin.keys.rotate(bearer(rotate, &acme)).await.map_err(refused).err(),
        Some(Code::NotFound)
    );
    let loosened = |organisation: &str, team: &str| PutTenantRequest {
        organisation: organisation.to_owned(),
        team: team.to_owned(),
        rights: None,
    };
    for (organisation, team, by) in [
        ("acme", "", &acme),
        ("acme", "red", &red),
        ("other", "", &acme),
        ("new", "", &acme),
    ] {
        let put = admin.keys.put_tenant(bearer(loosened(organisation, team), by)).await;
        assert_eq!(
            put.map_err(refused).err(),
            Some(Code::PermissionDenied),
            "{organisation}/{team}"
        );
    }
    let tenants = admin
        .keys
        .list_tenants(bearer(ListTenantsRequest {}, &red))
        .await
        .unwrap()
        .into_inner()
        .tenants;
    assert_eq!(tenants.iter().map(|one| one.team.as_str()).collect::<Vec<_>>(), ["red"]);
    // Reports.
    for key in [&acme, &red, &other] {
        let begun = Instant::now();
        while stack.status(&stack.http, key, &chat("sim-mini", "hello")).await != 200 {
            assert!(begun.elapsed() < PATIENCE);
        }
    }
    stack.settled(3, Duration::from_secs(20)).await;
    let mut reports = ReportsClient::new(channel.clone());
    let cost = |organisation: &str| CostRequest {
        by: GroupBy::Key.into(),
        organisation: organisation.to_owned(),
        ..CostRequest::default()
    };
    for (key, asked, expected) in [
        (KEY, "", Ok(3)),
        (KEY, "acme", Ok(2)),
        (&acme, "", Ok(2)),
        (&red, "", Ok(1)),
        (&red, "acme", Ok(1)),
        (&other, "", Ok(1)),
        (&other, "acme", Err(Code::PermissionDenied)),
    ] {
        let told = reports.cost(bearer(cost(asked), key)).await;
        assert_eq!(
            told.map(|told| told.into_inner().rows.len()).map_err(refused),
            expected,
            "{asked}"
        );
    }
    let mut log = AuditLogClient::new(channel);
    for key in [acme.as_str(), "tg_reader", "tg_masked", "tg_expired", "nobody"] {
        assert!(log.list(bearer(Default::default(), key)).await.is_err());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_a_chain_that_shows_what_was_touched() {
    let stack = Stack::start(Options::default()).await;
    let mut admin = Admin {
        keys: KeysClient::new(channel(&stack.reports).await),
    };
    let mut secret = admin.create(KEY, "one", "", None).await.unwrap();
    for (name, tenant, given, expected) in [
        ("one", "", None, Code::AlreadyExists),
        ("", "", None, Code::InvalidArgument),
        ("a b", "", None, Code::InvalidArgument),
        (&*"x".repeat(65), "", None, Code::InvalidArgument),
        ("two", "nobody", None, Code::InvalidArgument),
        ("two", "", rights(&["everything"]), Code::InvalidArgument),
        ("two\0", "", None, Code::InvalidArgument),
    ] {
        assert_eq!(admin.create(KEY, name, tenant, given).await, Err(expected), "{name:?}");
    }
    let update = UpdateKeyRequest {
        key: "one".to_owned(),
        rights: rights(&["complete", "report"]),
        expires_at_unix_ms: 4_000_000_000_000,
    };
    admin.keys.update(bearer(update, KEY)).await.unwrap();
    let hashed = CreateKeyRequest {
        name: "by-hash".to_owned(),
        sha256: "ab".repeat(32),
        ..CreateKeyRequest::default()
    };
    let made = admin
        .keys
        .create(bearer(hashed.clone(), KEY))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.secret, "");
    let again = CreateKeyRequest {
        name: "again".to_owned(),
        ..hashed.clone()
    };
    assert_eq!(
        admin
            .keys
            .create(bearer(again, KEY))
            .await
            .map(drop)
            .unwrap_err()
            .code(),
        Code::AlreadyExists
    );
    let short = CreateKeyRequest {
        name: "short".to_owned(),
        sha256: "+1".repeat(32),
        ..hashed
    };
    assert_eq!(
        admin
            .keys
            .create(bearer(short, KEY))
            .await
            .map(drop)
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    stack
        .tollgate(&["prices", "set", "simulator", "sim-mini", "input=1"])
        .await
        .unwrap();
    stack.tollgate(&["keys", "disable", "one"]).await.unwrap();
    // Refused changes leave no event.
    let log = stack.tollgate(&["audit", "log"]).await.unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<_> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["key.create", "key.update", "key.create", "prices.import", "key.disable"]
    );
    assert!(events.iter().all(|event| event["actor"] == "tests"), "{log}");
    secret.truncate(20);
    assert!(
        !log.contains(&secret) && !stack.logs().contains(&secret),
        "a secret is written down"
    );
    let verify = async || stack.tollgate(&["audit", "verify"]).await;
    assert!(verify().await.unwrap().contains("5 events, the chain holds"));
    // Even somebody who may turn off the triggers is seen.
    let sql = async |text: &'static str| sqlx::query(text).execute(&stack.pool).await;
    sql("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 2")
        .await
        .expect_err("append-only");
    sql("DELETE FROM audit_events").await.expect_err("append-only");
    sql("ALTER TABLE audit_events DISABLE TRIGGER ALL").await.unwrap();
    sql("UPDATE audit_events SET actor = 'nobody' WHERE sequence = 2")
        .await
        .unwrap();
    assert!(verify().await.unwrap_err().contains("event 2 was changed"));
    sql("DELETE FROM audit_events WHERE sequence = 1").await.unwrap();
    assert!(verify().await.unwrap_err().contains("event 1 is missing"));
    stack.stop().await;
}
