//! Tokens of an identity provider in place of keys, signed by PyPI's `PyJWT`, at every door and for every role.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tollgate_proto::v1::{
    CostRequest, GroupBy, ListAuditRequest, ListKeysRequest, ListModelsRequest, PutLimitRequest, PutTenantRequest,
    Rights, TopUpRequest, audit_log_client::AuditLogClient, gateway_client::GatewayClient, keys_client::KeysClient,
    limits_client::LimitsClient, reports_client::ReportsClient,
};
use tollgate_types::Millis;
use tonic::Code;

use crate::{
    harness::{KEY, Options, Stack, bearer, channel, chat},
    sdks::python,
};

struct Issuer {
    address: String,
    client: reqwest::Client,
    _process: Child,
}

impl Issuer {
    async fn start() -> Self {
        // `Stack::start` does so too, later.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/issuer.py");
        let mut process = Command::new(python().await)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            address: lines.next_line().await.unwrap().unwrap(),
            client: reqwest::Client::new(),
            _process: process,
        }
    }

    /// For `leak`: the text lives as long as the test's process.
    fn settings(&self) -> &'static str {
        let text = format!(
            "issuers:\n- name: corp\n  issuer: {}\n  audiences: [tollgate]\n  role_claim: groups\n  \
             roles: {{ops: operator, boss: admin, money: approver, books: auditor, dev: developer}}\n  \
             organisation_claim: org\n  leeway: 1s\n- name: staff\n  issuer: staff\n  jwks_url: {}/keys\n  \
             audiences: [tollgate]\n  role_claim: groups\n  roles: {{money: approver, boss: admin, books: auditor}}\n",
            self.address, self.address
        );
        Box::leak(text.into_boxed_str())
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let asked = self
            .client
            .post(format!("{}/{path}", self.address))
            .body(body.to_string());
        let bytes = asked.send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn sign(&self, algorithm: &str, claims: &Value) -> String {
        let asked = json!({ "alg": algorithm, "claims": claims });
        self.post("token", &asked).await["token"].as_str().unwrap().to_owned()
    }

    fn claims(&self, subject: &str, groups: &[&str]) -> Value {
        let now = Millis::now().0 / 1000;
        json!({ "iss": self.address, "aud": "tollgate", "sub": subject, "exp": now + 600, "groups": groups, "org": "acme" })
    }

    /// Of the issuer whose people are of no organisation.
    async fn staff(&self, subject: &str, groups: &[&str]) -> String {
        let mut claims = self.claims(subject, groups);
        claims["iss"] = json!("staff");
        self.sign("RS256", &claims).await
    }
}

async fn put_tenant(stack: &Stack, organisation: &str) {
    let put = PutTenantRequest {
        organisation: organisation.to_owned(),
        team: String::new(),
        rights: Some(Rights::default()),
    };
    let mut keys = KeysClient::new(channel(&stack.reports).await);
    keys.put_tenant(bearer(put, KEY)).await.unwrap();
}

impl Stack {
    /// Asks until the answer has this status: what tenants may do is known a moment after it is put.
    async fn soon(&self, token: &str, expected: u16) {
        let body = chat("sim-mini", "hello");
        let begun = std::time::Instant::now();
        loop {
            let status = self.status(&self.http, token, &body).await;
            if status == expected {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{status}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_as_good_as_a_key_while_it_lasts() {
    let issuer = Issuer::start().await;
    let stack = Stack::start(Options {
        more: issuer.settings(),
        ..Options::default()
    })
    .await;
    let body = chat("sim-mini", "hello");
    let claims = issuer.claims("u-1", &["dev"]);
    let token = issuer.sign("RS256", &claims).await;
    // Nobody made its organisation yet.
    assert_eq!(stack.status(&stack.http, &token, &body).await, 403);
    put_tenant(&stack, "acme").await;
    stack.soon(&token, 200).await;
    for algorithm in ["PS384", "ES256", "ES384", "EdDSA"] {
        let token = issuer.sign(algorithm, &claims).await;
        assert_eq!(stack.status(&stack.http, &token, &body).await, 200, "{algorithm}");
    }
    let mut gateway = GatewayClient::new(channel(&stack.grpc).await);
    let models = gateway.list_models(bearer(ListModelsRequest {}, &token)).await.unwrap();
    assert!(!models.into_inner().models.is_empty());
    // Its other doors, and a job, which is its holder's whichever token he shows.
    let request = stack
        .client
        .get(format!("{}/v1/models", stack.http))
        .header("x-api-key", &token);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    let job = json!({ "url": "/v1/chat/completions", "body": body });
    let submit = stack.client.post(format!("{}/v1/jobs", stack.http)).bearer_auth(&token);
    let submitted = submit.body(job.to_string()).send().await.unwrap();
    assert_eq!(submitted.status().as_u16(), 202);
    let job: Value = serde_json::from_slice(&submitted.bytes().await.unwrap()).unwrap();
    let again = issuer.sign("ES256", &claims).await;
    let other = issuer.sign("ES256", &issuer.claims("u-2", &["dev"])).await;
    for (token, expected) in [(again, 200), (other, 404)] {
        let asked = stack
            .client
            .get(format!("{}/v1/jobs/{}", stack.http, job["id"].as_str().unwrap()));
        assert_eq!(
            asked.bearer_auth(&token).send().await.unwrap().status().as_u16(),
            expected
        );
    }
    stack
        .until(
            "SELECT count(*) FROM ledger WHERE key_name = 'corp:u-1' AND organisation = 'acme' AND state = 'settled'",
            6,
            Duration::from_secs(30),
        )
        .await;
    assert_eq!(stack.count("SELECT count(DISTINCT key_id) FROM ledger").await, 1);
    // What is not in order is refused, in the door's own words.
    let mut late = claims.clone();
    late["exp"] = json!(Millis::now().0 / 1000 - 5);
    let late = issuer.sign("RS256", &late).await;
    let refused = stack
        .client
        .post(format!("{}/v1/chat/completions", stack.http))
        .bearer_auth(&late);
    let refused = refused.body(body.to_string()).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    let text = String::from_utf8(refused.bytes().await.unwrap().to_vec()).unwrap();
    assert!(
        text.contains("the token has expired") && !text.contains(&late),
        "{text}"
    );
    let unknown = issuer.sign("RS256", &issuer.claims("u-3", &["nobody"])).await;
    assert_eq!(stack.status(&stack.http, &unknown, &body).await, 403);
    let mut foreign = claims.clone();
    foreign["org"] = json!("rival");
    let foreign = issuer.sign("RS256", &foreign).await;
    assert_eq!(stack.status(&stack.http, &foreign, &body).await, 403);
    // Its issuer's keys change: tokens of the new ones are good at once, without a start of anything.
    tokio::time::sleep(Duration::from_secs(6)).await;
    issuer.post("rotate", &json!({})).await;
    let rotated = issuer.sign("ES256", &claims).await;
    assert_eq!(stack.status(&stack.http, &rotated, &body).await, 200);
    assert_eq!(stack.status(&stack.http, &token, &body).await, 401);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_a_token_is_what_it_may_administer() {
    let issuer = Issuer::start().await;
    let stack = Stack::start(Options {
        more: issuer.settings(),
        ..Options::default()
    })
    .await;
    put_tenant(&stack, "acme").await;
    put_tenant(&stack, "rival").await;
    stack.tollgate(&["limits", "put", "house", "--usd", "5"]).await.unwrap();
    let dev = issuer.sign("ES256", &issuer.claims("d", &["dev"])).await;
    stack.soon(&dev, 200).await;
    let of = async |groups: &[&str]| issuer.sign("ES256", &issuer.claims("boss", groups)).await;
    let reports = channel(&stack.reports).await;
    let (mut keys, mut costs) = (KeysClient::new(reports.clone()), ReportsClient::new(reports.clone()));
    let (mut log, mut limits) = (AuditLogClient::new(reports.clone()), LimitsClient::new(reports));
    let mut codes = async |token: &str| {
        let cost = CostRequest {
            by: GroupBy::Key.into(),
            ..CostRequest::default()
        };
        let top = TopUpRequest {
            limit: "own".to_owned(),
            usd: "1".to_owned(),
        };
        let code = |status: Option<tonic::Status>| status.map_or(Code::Ok, |status| status.code());
        [
            code(keys.list(bearer(ListKeysRequest::default(), token)).await.err()),
            code(costs.cost(bearer(cost, token)).await.err()),
            code(log.list(bearer(ListAuditRequest::default(), token)).await.err()),
            code(limits.top_up(bearer(top, token)).await.err()),
        ]
    };
    use Code::{NotFound, Ok, PermissionDenied as Denied};
    // No limit of that name is theirs, so whoever may top up does not find it.
    assert_eq!(codes(&dev).await, [Denied; 4]);
    assert_eq!(codes(&of(&["boss"]).await).await, [Ok, Ok, Denied, NotFound]);
    assert_eq!(codes(&of(&["money"]).await).await, [Denied, Ok, Denied, NotFound]);
    assert_eq!(codes(&of(&["books"]).await).await, [Denied, Ok, Denied, Denied]);
    assert_eq!(codes(&of(&["ops"]).await).await, [Denied, Ok, Denied, Denied]);
    assert_eq!(
        codes(&issuer.staff("s", &["books"]).await).await,
        [Denied, Ok, Ok, Denied]
    );
    assert_eq!(codes(&issuer.staff("s", &["boss"]).await).await, [Ok, Ok, Ok, NotFound]);
    let mut forged = issuer.claims("boss", &["boss"]);
    forged["aud"] = json!("elsewhere");
    assert_eq!(
        codes(&issuer.sign("RS256", &forged).await).await,
        [Code::Unauthenticated; 4]
    );
    // What an administrator does by token stands under his name; another organisation he does not reach.
    let boss = of(&["boss"]).await;
    let put = |organisation: &str, team: &str| PutTenantRequest {
        organisation: organisation.to_owned(),
        team: team.to_owned(),
        rights: Some(Rights::default()),
    };
    let mut keys = KeysClient::new(channel(&stack.reports).await);
    keys.put_tenant(bearer(put("acme", "red"), &boss)).await.unwrap();
    let refused = keys.put_tenant(bearer(put("rival", "red"), &boss)).await;
    assert_eq!(refused.unwrap_err().code(), Denied);
    assert_eq!(
        stack
            .count("SELECT count(*) FROM audit_events WHERE actor = 'corp:boss' AND subject = 'acme/red'")
            .await,
        1
    );
    // An approver of the whole allows more money, and makes no limit.
    let approver = issuer.staff("a", &["money"]).await;
    let top = TopUpRequest {
        limit: "house".to_owned(),
        usd: "2.50".to_owned(),
    };
    let mut limits = LimitsClient::new(channel(&stack.reports).await);
    let state = limits.top_up(bearer(top, &approver)).await.unwrap().into_inner();
    assert_eq!(state.limit.as_ref().unwrap().amount, "7.5");
    let back = TopUpRequest {
        limit: "house".to_owned(),
        usd: "-1".to_owned(),
    };
    let refused = limits.top_up(bearer(back, &approver)).await;
    assert_eq!(refused.unwrap_err().code(), Denied);
    let put = PutLimitRequest { limit: state.limit };
    let refused = limits.put(bearer(put, &approver)).await;
    assert_eq!(refused.unwrap_err().code(), Denied);
    stack.tollgate(&["audit", "verify"]).await.unwrap();
    stack.stop().await;
}
