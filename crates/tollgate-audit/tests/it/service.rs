//! The whole service on a real NATS and a Postgres of its own: what the stream holds ends up in the tables, whatever the
//! database does in between, and reports are for those who may read them.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tollgate_audit::{Service, Store, Streams, migrate};
use tollgate_bus::{
    Bus,
    ledger::LedgerDelivery,
    subject::{LEDGER, LEDGER_CONSUMER, LEDGER_STREAM},
};
use tollgate_config::{
    SecretRef, hash_key,
    schema::{Config, Grant, Key, Permission, Tenant},
};
use tollgate_devstack::{Nats, NatsOptions, Paths, Postgres, PostgresOptions, SyncInterval, TempPaths};
use tollgate_identity::Identities;
use tollgate_proto::v1::{self, reports_client::ReportsClient};
use tollgate_telemetry::{Readiness, Telemetry};
use tollgate_types::{
    Millis,
    ledger::{Attempt, LedgerEvent},
};
use tonic::{Code, Request, transport::Channel};

use crate::support::{attempt, concluded, settled, settlement, started};

const LIMIT: Duration = Duration::from_secs(60);

struct Stack {
    bus: Bus,
    raw: async_nats::Client,
    postgres: Postgres,
    readiness: Readiness,
    reports: ReportsClient<Channel>,
    stop: CancellationToken,
    service: JoinSet<Result<(), tollgate_audit::Error>>,
    _nats: Nats,
    _paths: TempPaths,
}

impl Stack {
    async fn start() -> Self {
        Self::beside_another(&[]).await.0
    }

    /// With `events` in the hands of another replica, which has not acknowledged them.
    async fn beside_another(events: &[LedgerEvent]) -> (Self, Vec<LedgerDelivery>) {
        let paths = Paths::temporary().unwrap();
        let mut options = NatsOptions::new(paths.clone());
        options.sync = SyncInterval::Every(Duration::from_secs(60));
        let nats = Nats::start(options).await.unwrap();
        // Durable, because it is killed: without, a commit may still be in memory only when it is confirmed.
        let postgres = Postgres::start(PostgresOptions::new(paths.clone())).await.unwrap();
        migrate(postgres.url()).await.unwrap();

        let mut config: Config = tollgate_config::parse("", "test").unwrap();
        config.bus.url = nats.url().to_owned();
        let url_file = paths.data.join("database-url");
        std::fs::write(&url_file, postgres.url()).unwrap();
        config.audit.database_url = Some(SecretRef::File(url_file));
        config.audit.batch = 50;
        config.audit.orphan_interval = Duration::from_millis(50);
        let bus = Bus::connect(&config.bus, "test").await.unwrap();
        bus.init().await.unwrap();
        for event in events {
            bus.ledger().publish(event).await.unwrap();
        }
        let mut another = bus.ledger_consumer().await.unwrap();
        let held = match events.len() {
            0 => Vec::new(),
            count => another.fetch(count, LIMIT).await.unwrap(),
        };
        assert_eq!(held.len(), events.len());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let telemetry = Telemetry::without_logger("audit", &config.telemetry).unwrap();
        let readiness = Readiness::default();
        config.keys = vec![key("complete", Permission::Complete), key("report", Permission::Report)];
        let identities = Identities::new(&config, telemetry.metrics.clone()).unwrap();
        let service = Service::build(
            &config,
            Arc::new(identities),
            Streams {
                ledger: bus.ledger_consumer().await.unwrap(),
                jobs: bus.job_records().await.unwrap(),
                questions: bus.job_questions().await.unwrap(),
                quotas: bus.quota_questions().await.unwrap(),
                notices: bus.notices(),
                buckets: tollgate_audit::Buckets {
                    keys: bus.registry().await.unwrap(),
                    tenants: bus.registry().await.unwrap(),
                    limits: bus.registry().await.unwrap(),
                    prices: bus.registry().await.unwrap(),
                },
            },
            listener,
            telemetry.metrics,
            readiness.clone(),
        );
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(service.unwrap().run(stop.clone()));
        let stack = Self {
            bus,
            raw: async_nats::connect(nats.url()).await.unwrap(),
            postgres,
            readiness,
            reports: ReportsClient::new(channel.connect_lazy()),
            stop,
            service: running,
            _nats: nats,
            _paths: paths,
        };
        (stack, held)
    }

    async fn publish(&self, event: LedgerEvent) {
        self.bus.ledger().publish(&event).await.unwrap();
    }

    /// Waits until the query's first row and column, as text, is `expected`.
    async fn until(&self, sql: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let seen = self.text(sql).await;
            if seen.as_deref() == Ok(expected) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{sql}: {seen:?} is not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn text(&self, sql: &str) -> Result<String, String> {
        let wrong = |error: sqlx::Error| error.to_string();
        let mut connection = PgConnection::connect(self.postgres.url()).await.map_err(wrong)?;
        let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut connection)
            .await
            .map_err(wrong)?;
        row.try_get(0).map_err(wrong)
    }

    async fn until_ready(&self, ready: bool) {
        let begun = Instant::now();
        while self.readiness.is_ready() != ready {
            assert!(begun.elapsed() < LIMIT, "readiness is not {ready}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn cost(&mut self, secret: Option<&str>) -> Result<Vec<v1::CostRow>, Code> {
        let by = v1::GroupBy::Model.into();
        let mut request = Request::new(v1::CostRequest {
            by,
            since_unix_ms: 0,
            until_unix_ms: 0,
            ..v1::CostRequest::default()
        });
        if let Some(secret) = secret {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {secret}").parse().unwrap());
        }
        self.reports
            .cost(request)
            .await
            .map(|answer| answer.into_inner().rows)
            .map_err(|status| status.code())
    }

    /// Messages of the ledger stream that are not acknowledged yet.
    async fn unacknowledged(&self) -> u64 {
        let jetstream = async_nats::jetstream::new(self.raw.clone());
        let stream = jetstream.get_stream(LEDGER_STREAM).await.unwrap();
        let info = stream.consumer_info(LEDGER_CONSUMER).await.unwrap();
        info.num_pending + info.num_ack_pending as u64
    }

    /// Stops the service and sees that it ended well and left nothing in the stream.
    async fn end(mut self) {
        let begun = Instant::now();
        while self.unacknowledged().await > 0 {
            assert!(begun.elapsed() < LIMIT, "events are left in the stream");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.cancel();
        let ended = tokio::time::timeout(LIMIT, self.service.join_next()).await.unwrap();
        ended.unwrap().unwrap().unwrap();
        assert!(!self.readiness.is_ready());
    }
}

fn key(name: &str, permission: Permission) -> Key {
    Key {
        name: name.to_owned(),
        hash: hash_key(&format!("tg_{name}")),
        expires_at: None,
        tenant: Tenant::default(),
        grant: Grant {
            permissions: Some(vec![permission]),
            ..Grant::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisoned_event_costs_only_itself() {
    let stack = Stack::start().await;
    let mut poison = settlement();
    poison.usage.input_tokens = u64::MAX;
    for number in 1..=30 {
        stack.publish(settled(number)).await;
        match number {
            10 => {
                stack
                    .publish(LedgerEvent::Settled {
                        attempt: attempt(1000),
                        settlement: poison.clone(),
                    })
                    .await
            }
            20 => stack
                .raw
                .publish(format!("{LEDGER}.settled.nobody"), "no event".into())
                .await
                .unwrap(),
            _ => {}
        }
    }
    stack.publish(concluded(1)).await;
    stack.until("SELECT count(*)::text FROM requests", "1").await;
    stack
        .until(
            "SELECT count(*) || ' ' || sum(trim_scale(cost_usd)) FROM attempts",
            "30 0.00720",
        )
        .await;
    let reasons = "SELECT string_agg(size || ' ' || subject, ', ' ORDER BY stream_sequence) FROM ledger_quarantine";
    let size = serde_json::to_vec(&LedgerEvent::Settled {
        attempt: attempt(1000),
        settlement: poison,
    })
    .unwrap()
    .len();
    let poisoned = attempt(1000);
    let about = format!("{}.{}", poisoned.request_id, poisoned.attempt_id);
    let expected = format!("{size} {LEDGER}.settled.{about}, 8 {LEDGER}.settled.nobody");
    stack.until(reasons, &expected).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_dies_is_waited_for() {
    let mut stack = Stack::start().await;
    stack.publish(started(1)).await;
    stack.until_ready(true).await;
    stack.postgres.kill().await.unwrap();
    // Until a write fails: what the server had begun may outlive it for a moment.
    let begun = Instant::now();
    let mut open = 0;
    while stack.readiness.is_ready() {
        assert!(begun.elapsed() < LIMIT, "the database's death goes unnoticed");
        open += 1;
        let mut under_way = attempt(1000 + open);
        under_way.deadline = Millis::now().after(Duration::from_secs(3600));
        stack.publish(LedgerEvent::Started(under_way)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let deadline = Millis::now().after(Duration::from_secs(5));
    let brief = |number| Attempt {
        deadline,
        ..attempt(number)
    };
    for number in 2..=120 {
        stack.publish(LedgerEvent::Started(brief(number))).await;
    }
    for number in 2..=120 {
        let (attempt, settlement) = (brief(number), settlement());
        stack.publish(LedgerEvent::Settled { attempt, settlement }).await;
    }
    let left = deadline.0.saturating_sub(Millis::now().0);
    assert!(left > 0, "the settlements must be stored before they are due");
    tokio::time::sleep(Duration::from_millis(left)).await;
    stack.postgres.restart().await.unwrap();
    // All but those under way are overdue, and only the first has no settlement in the stream: the others must not be
    // given up before the stream has been read.
    let states = "SELECT string_agg(found, ', ' ORDER BY found)
                  FROM (SELECT state || ' ' || count(*) AS found FROM ledger GROUP BY state) AS states";
    stack
        .until(states, &format!("open {open}, orphaned 1, settled 119"))
        .await;
    stack.until("SELECT count(*)::text FROM attempt_corrections", "0").await;
    stack.until_ready(true).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_has_in_hand_is_no_orphan() {
    let (stack, held) = Stack::beside_another(&[settled(1)]).await;
    // Overdue for long, and its settlement is nowhere that this replica could see it.
    stack.publish(started(1)).await;
    stack.publish(started(2)).await;
    stack.until("SELECT count(*)::text FROM attempts", "2").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let states = "SELECT string_agg(state, ' ' ORDER BY attempt_id) FROM attempts";
    assert_eq!(stack.text(states).await.as_deref(), Ok("open open"));
    for delivery in held {
        let event = delivery.event.as_ref().unwrap().clone();
        let store = Store::connect(stack.postgres.url(), 1).unwrap();
        store.record(&[(delivery.sequence, event)]).await.unwrap();
        delivery.ack().await.unwrap();
    }
    stack.until(states, "settled orphaned").await;
    stack.until("SELECT count(*)::text FROM attempt_corrections", "0").await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_for_keys_that_may() {
    let mut stack = Stack::start().await;
    stack.publish(settled(1)).await;
    stack.until("SELECT count(*)::text FROM attempts", "1").await;
    assert_eq!(stack.cost(None).await, Err(Code::Unauthenticated));
    assert_eq!(stack.cost(Some("tg_unknown")).await, Err(Code::Unauthenticated));
    assert_eq!(stack.cost(Some("tg_complete")).await, Err(Code::PermissionDenied));
    let rows = stack.cost(Some("tg_report")).await.unwrap();
    assert_eq!(
        (rows.len(), rows[0].group.as_str(), rows[0].cost_usd.as_str()),
        (1, "fast", "0.00024")
    );
    stack.end().await;
}
