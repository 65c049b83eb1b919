//! A whole Tollgate for one test, and the questions that tests ask of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};
use tokio::{
    net::TcpListener,
    sync::{Mutex, OnceCell},
};
use tokio_util::sync::CancellationToken;
use tollgate_devstack::{
    Nats, NatsOptions, Paths, Policy, Postgres, PostgresOptions, Role, RoleLog, Supervisor, SyncInterval, TempPaths,
    free_port,
};
use tollgate_simulator::{Script, Simulator};

pub(crate) const KEY: &str = "tg_a_key_for_tests_only";
pub(crate) const WEBHOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// No test takes longer, or it hangs.
const LONGEST_TEST: Duration = Duration::from_secs(300);

/// What a test may ask for beside the usual.
#[derive(Default)]
pub(crate) struct Options {
    /// Under `ingress:`, `audit:` … : lines of YAML by section, without indentation.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// More entries of `models`.
    pub(crate) models: &'static str,
    /// More lines at the top level.
    pub(crate) more: &'static str,
    pub(crate) script: Script,
    /// Permits of the simulator's worker.
    pub(crate) concurrency: Option<usize>,
    /// Workers for every dialect, not for OpenAI's alone.
    pub(crate) dialects: bool,
    /// How many ingresses, at `Stack::ingresses`; one unless given.
    pub(crate) ingresses: usize,
}

impl Options {
    /// Workers for every dialect, and every model that they ask the simulator for.
    pub(crate) fn with_dialects() -> Self {
        let script = Script {
            models: ["sim-mini", "sim-embed", "anthropic.claude-sim-4-5"]
                .map(str::to_owned)
                .to_vec(),
            ..Script::default()
        };
        Self {
            script,
            dialects: true,
            ..Self::default()
        }
    }
}

/// Public models of the stack, one for each dialect behind it.
pub(crate) const MODELS: [&str; 5] = [
    "sim-mini",
    "via-responses",
    "via-anthropic",
    "via-gemini",
    "via-bedrock",
];
/// The same for vectors.
pub(crate) const EMBEDDERS: [&str; 2] = ["sim-embed", "embed-gemini"];
/// The providers beside `simulator`: name, entry, and the public model that each serves.
const DIALECTS: [(&str, &str, &str); 4] = [
    (
        "sim-responses",
        "dialect: openai_responses, base_url: '{}/v1', api_key: 'env:SIMULATOR_KEY'",
        "via-responses",
    ),
    (
        "sim-anthropic",
        "dialect: anthropic, base_url: '{}/v1', api_key: 'env:SIMULATOR_KEY'",
        "via-anthropic",
    ),
    (
        "sim-gemini",
        "dialect: gemini, base_url: '{}/v1beta', api_key: 'env:SIMULATOR_KEY'",
        "via-gemini",
    ),
    (
        "sim-bedrock",
        "dialect: bedrock, base_url: '{}', region: us-east-1, access_key_id: 'env:SIMULATOR_KEY', \
         secret_access_key: 'env:SIMULATOR_KEY'",
        "via-bedrock",
    ),
];

pub(crate) struct Stack {
    pub(crate) http: String,
    /// HTTP of each ingress, the first one's first.
    pub(crate) ingresses: Vec<String>,
    pub(crate) grpc: String,
    pub(crate) reports: String,
    pub(crate) nats_url: String,
    pub(crate) simulator: Simulator,
    /// Address of the simulator, `http://host:port`.
    pub(crate) provider: String,
    pub(crate) roles: Supervisor,
    pub(crate) client: Client,
    pub(crate) pool: PgPool,
    // In this order: what is used goes after what uses it.
    _nats: Nats,
    /// For tests that kill it and start it again.
    pub(crate) postgres: Mutex<Postgres>,
    database: String,
    folder: TempPaths,
    delivery_port: u16,
    _simulator_stop: tokio_util::sync::DropGuard,
    _over: mpsc::Sender<()>,
}

impl Stack {
    pub(crate) async fn start(options: Options) -> Self {
        static TLS: OnceCell<()> = OnceCell::const_new();
        TLS.get_or_init(|| async {
            let _ = rustls::crypto::ring::default_provider().install_default();
        })
        .await;
        let folder = Paths::temporary().unwrap();
        let over = watchdog(folder.clone());
        let nats = NatsOptions {
            sync: SyncInterval::Every(Duration::from_secs(60)),
            ..NatsOptions::new(folder.clone())
        };
        let postgres = PostgresOptions {
            durable: false,
            ..PostgresOptions::new(folder.clone())
        };
        let (nats, postgres) = tokio::try_join!(Nats::start(nats), Postgres::start(postgres)).unwrap();
        let (simulator, simulator_url, simulator_stop) = simulate(options.script.clone()).await;
        let config = folder.data.join("tollgate.yaml");
        std::fs::write(&config, configuration(&options, &simulator_url)).unwrap();
        let ports: Vec<u16> = (0..2 + 3 * options.ingresses.max(1))
            .map(|_| free_port().unwrap())
            .collect();
        let address = |index: usize| format!("http://127.0.0.1:{}", ports[index]);
        let env = Environment {
            config,
            nats: nats.url().to_owned(),
            database: postgres.url().to_owned(),
            ports: &ports,
        };
        env.init().await;
        let (roles, _) = Supervisor::start(env.roles(&folder, &options), Policy::default());
        if !roles.all_ready(Duration::from_secs(60)).await {
            panic!("not ready: {:?}\n{}", roles.states().borrow(), logs(&folder));
        }
        Self {
            http: address(0),
            ingresses: (0..options.ingresses.max(1))
                .map(|number| address(if number == 0 { 0 } else { 2 + 3 * number }))
                .collect(),
            grpc: address(1),
            reports: address(4),
            nats_url: nats.url().to_owned(),
            simulator,
            provider: simulator_url,
            roles,
            client: Client::builder().pool_max_idle_per_host(64).build().unwrap(),
            pool: PgPoolOptions::new()
                .max_connections(4)
                .connect(postgres.url())
                .await
                .unwrap(),
            _nats: nats,
            database: postgres.url().to_owned(),
            postgres: Mutex::new(postgres),
            folder,
            delivery_port: ports[2],
            _simulator_stop: simulator_stop,
            _over: over,
        }
    }

    /// For commands that read the ledger.
    pub(crate) fn database_url(&self) -> &str {
        &self.database
    }

    /// The usual, with a provider that follows `script`.
    pub(crate) async fn with(script: Script) -> Self {
        Self::start(Options {
            script,
            ..Options::default()
        })
        .await
    }

    /// Kills `role` with -9 while an answer streams; the last event that the client gets.
    pub(crate) async fn kill_in_mid_stream(&self, key: &str, role: &str) -> Value {
        let url = format!("{}/v1/chat/completions", self.http);
        let request = streamed("sim-mini", "a long answer #sim:words=100 #sim:chunk_delay_ms=50");
        let request = self.client.post(url).bearer_auth(key).body(request.to_string());
        let mut response = request.send().await.unwrap();
        let mut body = String::new();
        while events(&body).len() < 5 {
            body.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        self.roles.kill(role).await.unwrap();
        while let Some(chunk) = response.chunk().await.unwrap() {
            body.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(!body.contains("[DONE]"), "a clean end: {body}");
        serde_json::from_str(events(&body).last().unwrap()).unwrap()
    }

    /// Ends every role in order; a test that gets here has said all it wants to.
    pub(crate) async fn stop(self) {
        self.roles.stop(Duration::from_secs(40)).await;
        let logs = logs(&self.folder);
        assert!(!logs.contains("panicked"), "a role panicked:\n{logs}");
        assert!(!logs.contains(KEY), "a key was logged");
    }

    /// Port of ingress's internal listener.
    pub(crate) fn delivery_port(&self) -> u16 {
        self.delivery_port
    }

    pub(crate) fn logs(&self) -> String {
        logs(&self.folder)
    }

    pub(crate) fn post(&self, body: &Value) -> RequestBuilder {
        self.post_bytes(body.to_string())
    }

    pub(crate) fn post_bytes(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client
            .post(format!("{}/v1/chat/completions", self.http))
            .bearer_auth(KEY)
            .header("content-type", "application/json")
            .body(body)
    }

    /// Asks `model` and gives status and body.
    pub(crate) async fn ask(&self, model: &str, text: &str) -> (u16, Value) {
        read(self.post(&chat(model, text)).send().await.unwrap()).await
    }

    /// A number that SQL says.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query(sql).fetch_one(&self.pool).await.unwrap().get(0)
    }

    /// Waits until SQL says `expected`; the last answer is in the failure.
    pub(crate) async fn until(&self, sql: &'static str, expected: i64, patience: Duration) {
        let begun = Instant::now();
        loop {
            let found = self.count(sql).await;
            if found == expected {
                return;
            }
            assert!(
                begun.elapsed() < patience,
                "{sql}: {found}, not {expected}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every attempt has ended and every request of `requests` is in the ledger.
    pub(crate) async fn settled(&self, requests: i64, patience: Duration) {
        self.until("SELECT count(*) FROM requests", requests, patience).await;
        self.until("SELECT count(*) FROM attempts WHERE state = 'open'", 0, patience)
            .await;
    }

    /// Waits until the provider has seen `times` clients leave before the end.
    pub(crate) async fn provider_left(&self, times: u64) {
        let begun = Instant::now();
        while self.simulator.stats().hung_up != times {
            let stats = self.simulator.stats();
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "still connected: {stats:?}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Rows of the ledger by attempt id.
    pub(crate) async fn attempts(&self) -> BTreeMap<String, Attempt> {
        let rows = sqlx::query(
            "SELECT replace(attempt_id::text, '-', ''), state, outcome, usage_source, input_tokens, output_tokens,
                    cost_usd::text FROM attempts",
        );
        rows.fetch_all(&self.pool)
            .await
            .unwrap()
            .into_iter()
            .map(|row| {
                let attempt = Attempt {
                    state: row.get(1),
                    outcome: row.get(2),
                    usage_source: row.get(3),
                    input_tokens: row.get(4),
                    output_tokens: row.get(5),
                    cost_usd: row.get(6),
                };
                (format!("att_{}", row.get::<String, _>(0)), attempt)
            })
            .collect()
    }
}

/// A row of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) state: String,
    pub(crate) outcome: Option<String>,
    pub(crate) usage_source: Option<String>,
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
    pub(crate) cost_usd: Option<String>,
}

pub(crate) fn chat(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": text }] })
}

pub(crate) fn streamed(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": text }], "stream": true })
}

pub(crate) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    let value = serde_json::from_slice(&body);
    (
        status,
        value.unwrap_or_else(|_| panic!("not JSON: {:?}", String::from_utf8_lossy(&body))),
    )
}

/// The data of each event of a whole stream.
pub(crate) fn events(body: &str) -> Vec<&str> {
    body.split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect()
}

/// All text that the events of a stream bring.
pub(crate) fn text_of(events: &[&str]) -> String {
    events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|chunk| chunk.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned))
        .collect()
}

/// The message from the holder of a key.
pub(crate) fn bearer<T>(message: T, key: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// A connection to a gRPC endpoint of the stack.
pub(crate) async fn channel(address: &str) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(address.to_owned())
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Ends a test that hangs with the logs of its roles, unless the sender is dropped in time. The whole process goes: a runtime
/// that is stuck cannot be asked to.
fn watchdog(folder: Paths) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    let name = std::thread::current().name().map(str::to_owned);
    std::thread::spawn(move || {
        if receiver.recv_timeout(LONGEST_TEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name:?} hangs in {}\n{}", folder.data.display(), logs(&folder));
            std::process::abort();
        }
    });
    sender
}

async fn simulate(script: Script) -> (Simulator, String, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (simulator, stop) = (Simulator::new(script), CancellationToken::new());
    tokio::spawn(tollgate_simulator::run(listener, simulator.clone(), stop.clone()));
    (simulator, url, stop.drop_guard())
}

fn configuration(options: &Options, simulator: &str) -> String {
    let hash = |key: &str| {
        tollgate_config::hash_key(key)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (mut providers, mut models) = (String::new(), String::new());
    for (name, entry, model) in DIALECTS.iter().filter(|_| options.dialects) {
        let entry = entry.replace("{}", simulator);
        writeln!(providers, "  - {{name: {name}, {entry}, concurrency: 64}}").unwrap();
        let served = if *model == "via-bedrock" {
            "anthropic.claude-sim-4-5"
        } else {
            "sim-mini"
        };
        writeln!(
            models,
            "  - {{name: {model}, targets: [{{provider: {name}, model: {served}}}]}}"
        )
        .unwrap();
    }
    if options.dialects {
        models.push_str("  - {name: embed-gemini, targets: [{provider: sim-gemini, model: sim-embed}]}\n");
    }
    models.push_str(options.models.trim_start_matches('\n'));
    let mut text = format!(
        "keys:
  - {{name: tests, hash: 'sha256:{}', roles: [admin], tags: {{team: red}}}}
  - {{name: expired, hash: 'sha256:{}', expires_at: '2020-01-01T00:00:00Z'}}
  - {{name: masked, hash: 'sha256:{}', policy: strict}}
  - {{name: narrow, hash: 'sha256:{}', models: [sim-large], requests_per_minute: 2}}
  - {{name: reader, hash: 'sha256:{}', permissions: [report]}}
providers:
  - {{name: simulator, base_url: '{simulator}/v1', api_key: 'env:SIMULATOR_KEY', concurrency: {}}}
  - {{name: dead, base_url: 'http://127.0.0.1:9/v1', concurrency: 4}}
{providers}models:
  - {{name: sim-mini, targets: [{{provider: simulator, model: sim-mini}}]}}
  - {{name: sim-large, targets: [{{provider: simulator, model: sim-large}}]}}
  - {{name: fallback, targets: [{{provider: simulator, model: sim-mini}}, {{provider: simulator, model: sim-large}}]}}
  - {{name: half-dead, targets: [{{provider: dead, model: x}}, {{provider: simulator, model: sim-mini}}]}}
  - {{name: dead, targets: [{{provider: dead, model: x}}]}}
  - {{name: sim-embed, targets: [{{provider: simulator, model: sim-embed}}]}}
{models}guardrail:
  policies:
    - name: strict
      prompt: {{deny: [forbidden fruit], mask: [email, card]}}
      answer: {{deny: [state secret], mask: [email, card]}}
",
        hash(KEY),
        hash("tg_expired"),
        hash("tg_masked"),
        hash("tg_narrow"),
        hash("tg_reader"),
        options.concurrency.unwrap_or(64),
    );
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        (
            "ingress",
            vec!["webhooks: {secret: 'env:TOLLGATE_WEBHOOK_SECRET', private_hosts: [127.0.0.1]}"],
        ),
        ("audit", vec!["orphan_grace: 1s", "orphan_interval: 200ms"]),
        ("telemetry", vec!["log: 'warn,tollgate=debug'"]),
    ]);
    // On a busy machine nobody may take a request within a second, and it is sent again, which tests that count would see.
    let timed = |line: &&str| line.starts_with("claim_timeout") || line.starts_with("request_timeout");
    if !options.settings.iter().any(|(_, line)| timed(line)) {
        sections.entry("ingress").or_default().push("claim_timeout: 3s");
    }
    for (section, line) in &options.settings {
        sections.entry(section).or_default().push(line);
    }
    for (section, lines) in sections {
        writeln!(text, "{section}:").unwrap();
        lines.iter().for_each(|line| writeln!(text, "  {line}").unwrap());
    }
    text + options.more
}

struct Environment<'a> {
    config: PathBuf,
    nats: String,
    database: String,
    /// HTTP, gRPC, delivery, the guardrail's delivery, reports.
    ports: &'a [u16],
}

impl Environment<'_> {
    fn common(&self) -> Vec<(String, String)> {
        let config = self.config.display().to_string();
        [
            ("TOLLGATE_CONFIG", config),
            ("NATS_URL", self.nats.clone()),
            ("RUST_BACKTRACE", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    async fn init(&self) {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("init")
            .envs(self.common())
            .env("DATABASE_URL", &self.database)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn roles(&self, folder: &Paths, options: &Options) -> Vec<Role> {
        let listen = |index: usize| format!("127.0.0.1:{}", self.ports[index]);
        let key = || [("SIMULATOR_KEY", "sk-secret-of-the-provider".to_owned())];
        let others = DIALECTS.iter().filter(|_| options.dialects);
        let mut roles: Vec<_> = others
            .map(|(name, _, _)| {
                self.role(
                    folder,
                    &format!("worker-{name}"),
                    &["worker", "--provider", name],
                    &key(),
                )
            })
            .collect();
        let ingress = |name: &str, first: usize| {
            let doors = [
                ("TOLLGATE_HTTP_LISTEN", listen(first)),
                ("TOLLGATE_GRPC_LISTEN", listen(first + 1)),
                ("TOLLGATE_DELIVERY_LISTEN", listen(first + 2)),
                ("TOLLGATE_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
            ];
            self.role(folder, name, &["ingress"], &doors)
        };
        roles.extend((1..options.ingresses).map(|number| ingress(&format!("ingress-{}", number + 1), 2 + 3 * number)));
        roles.extend([
            ingress("ingress", 0),
            self.role(
                folder,
                "guardrail",
                &["guardrail"],
                &[("TOLLGATE_SCREEN_LISTEN", listen(3))],
            ),
            self.role(folder, "router", &["router"], &[]),
            self.role(folder, "worker", &["worker", "--provider", "simulator"], &key()),
            self.role(folder, "worker-dead", &["worker", "--provider", "dead"], &[]),
            self.role(
                folder,
                "audit",
                &["audit"],
                &[
                    ("DATABASE_URL", self.database.clone()),
                    ("TOLLGATE_AUDIT_LISTEN", listen(4)),
                ],
            ),
        ]);
        roles
    }

    fn role(&self, folder: &Paths, name: &str, args: &[&str], env: &[(&str, String)]) -> Role {
        let admin = format!("127.0.0.1:{}", free_port().unwrap());
        let mut all = self.common();
        all.push(("TOLLGATE_ADMIN_LISTEN".to_owned(), admin.clone()));
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Role {
            name: name.to_owned(),
            command: env!("CARGO_BIN_EXE_tollgate").into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: all,
            log: RoleLog::File(folder.data.join(format!("{name}.log"))),
            ready_url: Some(format!("http://{admin}/readyz")),
        }
    }
}

fn logs(folder: &Paths) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(&folder.data).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let _ = writeln!(text, "--- {}\n{log}", entry.path().display());
        }
    }
    text
}

/// Runs `task` for 0..`total`, `width` at a time.
pub(crate) async fn load<F, T>(total: usize, width: usize, task: impl Fn(usize) -> F + Send + Sync + 'static) -> Vec<T>
where
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let (task, next) = (Arc::new(task), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let mut runners = tokio::task::JoinSet::new();
    for _ in 0..width {
        let (task, next) = (Arc::clone(&task), Arc::clone(&next));
        runners.spawn(async move {
            let mut results = Vec::new();
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if index >= total {
                    return results;
                }
                results.push(task(index).await);
            }
        });
    }
    runners.join_all().await.into_iter().flatten().collect()
}
