//! One Postgres for the tests that run at the same time, a database for each, and events to put in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak, mpsc},
    thread,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use tollgate_audit::{Store, migrate};
use tollgate_devstack::{Paths, Postgres, PostgresOptions};
use tollgate_types::{
    AttemptId, Caller, Dialect, ErrorCode, KeyId, Millis, Operation, RequestId, Target, Tenant, Usage, UsageSource,
    ledger::{Attempt, AttemptOutcome, Conclusion, LedgerEvent, RequestState, Settlement},
};
use uuid::Uuid;

/// A server in a thread and runtime of its own, so that it outlives the runtime of the test that happened to start it.
struct Server {
    url: String,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, url) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let paths = Paths::temporary().unwrap();
                let mut options = PostgresOptions::new(paths.clone());
                options.durable = false;
                let postgres = Postgres::start(options).await.unwrap();
                started.send(postgres.url().to_owned()).unwrap();
                tokio::task::block_in_place(|| stopped.recv()).unwrap_err();
                postgres.stop().await.unwrap();
            });
        });
        Self {
            url: url.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The server in use, or a new one.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A database of one test.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) store: Store,
    _server: Arc<Server>,
}

impl Database {
    /// With no tables.
    pub(crate) async fn empty() -> Self {
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        let name = format!("t{}", Uuid::now_v7().simple());
        let mut admin = PgConnection::connect(&server.url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        let url = format!("{}/{name}", server.url.rsplit_once('/').unwrap().0);
        let pool = PgPool::connect(&url).await.unwrap();
        let store = Store::connect(&url, 4).unwrap();
        Self {
            url,
            pool,
            store,
            _server: server,
        }
    }

    /// With all tables and the shipped prices.
    pub(crate) async fn fresh() -> Self {
        let this = Self::empty().await;
        migrate(&this.url).await.unwrap();
        this
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<u64, sqlx::Error> {
        Ok(sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await?
            .rows_affected())
    }

    /// The first column of each row, as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter()
            .map(|row| {
                row.try_get::<Option<String>, _>(0)
                    .unwrap()
                    .unwrap_or_else(|| "NULL".to_owned())
            })
            .collect()
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        self.texts(sql).await.join("\n")
    }

    /// All that the ledger holds, times of recording included.
    pub(crate) async fn fingerprint(&self) -> String {
        let mut all = String::new();
        for table in [
            "attempts",
            "attempt_corrections",
            "abandonments",
            "requests",
            "ledger_quarantine",
            "price_sheets",
        ] {
            all += &self
                .text(&format!(
                    "SELECT coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '') FROM {table} t"
                ))
                .await;
            all += "\n--\n";
        }
        all
    }

    /// Records events one transaction each.
    pub(crate) async fn record(&self, events: &[LedgerEvent]) {
        for event in events {
            self.store.record(&[(1, event.clone())]).await.unwrap();
        }
    }
}

/// 2026-03-01T23:59:59Z.
pub(crate) const START: Millis = Millis(1_772_409_599_000);

pub(crate) fn caller() -> Caller {
    Caller {
        key_id: KeyId::from(Uuid::from_u128(0xbeef)),
        key_name: "shop".to_owned(),
        tags: BTreeMap::from([
            ("team".to_owned(), "web".to_owned()),
            ("env".to_owned(), "prod".to_owned()),
        ]),
        policy: "default".to_owned(),
        tenant: Tenant {
            organisation: Some("acme".to_owned()),
            team: Some("web".to_owned()),
        },
        user: Some("u-1".to_owned()),
        providers: None,
    }
}

/// An attempt at `sim-mini`, which costs 0.15, 0.075 cached and 0.60 a million tokens.
pub(crate) fn attempt(number: u128) -> Attempt {
    Attempt {
        attempt_id: AttemptId::from(Uuid::from_u128(number)),
        request_id: RequestId::from(Uuid::from_u128(number << 64)),
        generation: 1,
        retry: 0,
        hedge: false,
        target: Target {
            provider: "simulator".to_owned(),
            model: "sim-mini".to_owned(),
        },
        model: "fast".to_owned(),
        caller: caller(),
        dialect: Dialect::OpenaiChat,
        operation: Operation::Chat,
        stream: true,
        started_at: START,
        deadline: Millis(START.0 + 60_000),
        estimated_input_tokens: 100,
        max_output_tokens: Some(1000),
        hold: None,
    }
}

/// Of every kind some. At `sim-mini` 500 × 0.15 + 100 × 0.075 + 100 × 0.1875 + 200 × 0.30 + 100 × 0.60 + 150 × 0.60 +
/// 50 × 2.40 = 431.25 millionths of a dollar, and two searches for a cent each.
pub(crate) const EVERY_KIND: Usage = Usage {
    input_tokens: 1000,
    cached_input_tokens: 100,
    cache_write_input_tokens: 300,
    cache_write_1h_input_tokens: 200,
    audio_input_tokens: 100,
    output_tokens: 200,
    reasoning_tokens: 20,
    audio_output_tokens: 50,
    web_searches: 2,
};

/// 1000 tokens in, 400 of them cached, 200 out: 0.00009 + 0.00003 + 0.00012 = 0.00024 dollars at `sim-mini`.
pub(crate) fn settlement() -> Settlement {
    Settlement {
        outcome: AttemptOutcome::Answered,
        error: None,
        provider_status: Some(200),
        served_model: Some("sim-mini".to_owned()),
        usage: Usage {
            input_tokens: 1000,
            cached_input_tokens: 400,
            output_tokens: 200,
            reasoning_tokens: 20,
            ..Usage::default()
        },
        usage_source: UsageSource::Provider,
        consumption: None,
        ended_at: Millis(START.0 + 1500),
        first_token_ms: Some(120),
    }
}

pub(crate) fn started(number: u128) -> LedgerEvent {
    LedgerEvent::Started(attempt(number))
}

pub(crate) fn settled(number: u128) -> LedgerEvent {
    LedgerEvent::Settled {
        attempt: attempt(number),
        settlement: settlement(),
    }
}

pub(crate) fn abandoned(number: u128) -> LedgerEvent {
    LedgerEvent::Abandoned {
        attempt_id: attempt(number).attempt_id,
        at: Millis(START.0 + 5000),
    }
}

pub(crate) fn concluded(number: u128) -> LedgerEvent {
    LedgerEvent::Concluded(Conclusion {
        request_id: attempt(number).request_id,
        caller: caller(),
        model: "fast".to_owned(),
        dialect: Dialect::Native,
        stream: false,
        state: RequestState::Failed,
        error: Some(ErrorCode::ProviderTimeout),
        resends: 2,
        accepted_at: START,
        concluded_at: Millis(START.0 + 2000),
    })
}
