//! Audit as a service: tasks that live and end together.
//!
//! `consume`, `lane`, `orphans`, `trim` and `publish` wait out a database that is away and never fail; an error of `reports`, or a panic in any of
//! them, ends the service, so that whoever runs it starts it anew.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tollgate_bus::{
    jobs::{JobQuestions, JobRecords},
    ledger::{LedgerConsumer, LedgerProgress},
    quota::{Notices, QuotaQuestions},
};
use tollgate_config::Config;
use tollgate_identity::Identities;
use tollgate_proto::{
    DESCRIPTORS,
    v1::{
        audit_log_server::AuditLogServer, keys_server::KeysServer, limits_server::LimitsServer,
        prices_server::PricesServer, reports_server::ReportsServer,
    },
};
use tollgate_telemetry::{Metrics, Readiness};
use tollgate_types::Millis;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    Error, Store,
    consume::{Consume, chain},
    grpc::{Access, Keys, Limits, Prices, Reports},
    http::with_http,
    lane::Lane,
    lease::Grants,
    notice::Watch,
    publish::{Buckets, Publish},
    trim::Trim,
    upkeep::Upkeep,
};

/// What audit reads.
pub struct Streams {
    pub ledger: LedgerConsumer,
    pub jobs: JobRecords,
    pub questions: JobQuestions,
    pub quotas: QuotaQuestions,
    /// Where webhooks are sent.
    pub notices: Notices,
    /// Where keys, limits and prices are published.
    pub buckets: Buckets,
}

/// Audit, ready to run.
pub struct Service {
    store: Store,
    consume: Consume,
    lane: Lane,
    orphans: Orphans,
    trim: Trim,
    reports: Reports,
    prices: Prices,
    keys: Keys,
    limits: Limits,
    grants: Grants,
    watch: Watch,
    upkeep: Upkeep,
    publish: Publish,
    listener: TcpListener,
}

impl Service {
    /// Puts the parts together. The database is reached when it is first needed, and waited for.
    pub fn build(
        config: &Config,
        identities: Arc<Identities>,
        streams: Streams,
        listener: TcpListener,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, Error> {
        let (request_timeout, lists) = (config.ingress.request_timeout, config.price_lists().collect());
        let regions = config
            .price_lists()
            .map(|(provider, _, region)| (provider, region))
            .collect();
        let webhooks = config.ingress.webhooks.secret.is_some();
        let claim_to_start = CLAIM_TO_START + config.worker.ledger_timeout;
        let config = &config.audit;
        let url = config.database_url.as_ref().ok_or(Error::NoDatabase)?.resolve()?;
        let store = Store::connect(url.expose_secret(), config.max_connections)?.with_price_lists(lists);
        let orphans = Orphans {
            store: store.clone(),
            grace: config.orphan_grace,
            interval: config.orphan_interval,
            claim_to_start,
            request_timeout,
            progress: streams.ledger.progress(),
            metrics: metrics.clone(),
        };
        let trim = Trim {
            progress: streams.ledger.progress(),
            keep: config.keep_events,
        };
        let consume = Consume {
            store: store.clone(),
            consumer: streams.ledger,
            batch: config.batch.max(1),
            metrics,
            readiness,
        };
        let lane = Lane {
            store: store.clone(),
            records: streams.jobs,
            questions: streams.questions,
        };
        let (keys_changed, limits_changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let publish = Publish {
            store: store.clone(),
            buckets: streams.buckets,
            identities: Arc::clone(&identities),
            keys_changed: Arc::clone(&keys_changed),
            limits_changed: Arc::clone(&limits_changed),
        };
        let grants = Grants {
            store: store.clone(),
            questions: streams.quotas,
        };
        let upkeep = Upkeep {
            store: store.clone(),
            keep: config.keep_months,
            regions,
        };
        let watch = Watch {
            store: store.clone(),
            notices: streams.notices,
        };
        let access = Access(identities);
        let keys = Keys {
            store: store.clone(),
            access: access.clone(),
            changed: keys_changed,
        };
        let limits = Limits {
            webhooks,
            store: store.clone(),
            access: access.clone(),
            changed: limits_changed,
        };
        let reports = Reports {
            store: Store::connect_reports(url.expose_secret(), config.report_connections, config.report_timeout)?,
            access: access.clone(),
        };
        let prices = Prices {
            store: store.clone(),
            access,
        };
        Ok(Self {
            store,
            consume,
            lane,
            orphans,
            trim,
            reports,
            prices,
            keys,
            limits,
            grants,
            watch,
            upkeep,
            publish,
            listener,
        })
    }

    /// Works until `stop`: then the batch in hand is written and acknowledged, reports under way are answered, and the
    /// connections to the database are closed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let together = stop.child_token();
        let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
        let token = || together.clone();
        always(&mut tasks, self.consume.run(token()));
        always(&mut tasks, self.lane.run(token()));
        always(&mut tasks, self.orphans.run(token()));
        always(&mut tasks, self.trim.run(token()));
        always(&mut tasks, self.publish.run(token()));
        always(&mut tasks, self.grants.run(token()));
        always(&mut tasks, self.watch.run(token()));
        always(&mut tasks, self.upkeep.run(token()));
        let services = (self.reports, self.prices, self.keys, self.limits);
        tasks.spawn(serve(services, self.listener, together.clone()));
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            // The first to end takes the others with it; its error is the one that counts.
            together.cancel();
            result = result.and(ended.unwrap_or_else(|error| Err(Error::Task(error))));
        }
        self.store.close().await;
        result
    }
}

/// A task that never fails.
fn always(tasks: &mut JoinSet<Result<(), Error>>, work: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        work.await;
        Ok(())
    });
}

/// Price sheets in one import, in bytes.
const LARGEST_IMPORT: usize = 64 << 20;

async fn serve(
    (reports, prices, keys, limits): (Reports, Prices, Keys, Limits),
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ReportsServer<Reports>>().await;
    health.set_serving::<PricesServer<Prices>>().await;
    health.set_serving::<KeysServer<Keys>>().await;
    health.set_serving::<AuditLogServer<Keys>>().await;
    health.set_serving::<LimitsServer<Limits>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    let access = reports.access.clone();
    let services = Routes::new(ReportsServer::new(reports))
        .add_service(AuditLogServer::new(keys.clone()))
        .add_service(KeysServer::new(keys))
        .add_service(LimitsServer::new(limits))
        .add_service(PricesServer::new(prices).max_decoding_message_size(LARGEST_IMPORT));
    let services = with_http(services, &access, LARGEST_IMPORT)?
        .add_service(health_service)
        .add_service(reflection);
    Server::builder()
        .accept_http1(true)
        .add_routes(services)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.cancelled_owned(),
        )
        .await?;
    Ok(())
}

/// Gives up, at intervals, on attempts that nobody settles.
struct Orphans {
    store: Store,
    grace: Duration,
    interval: Duration,
    /// The longest between the grant of a claim and the start of its attempt in the ledger's stream.
    claim_to_start: Duration,
    /// The longest that a request takes.
    request_timeout: Duration,
    progress: LedgerProgress,
    metrics: Metrics,
}

/// The longest between the grant of a claim and the try to write down that its attempt starts.
const CLAIM_TO_START: Duration = Duration::from_secs(5);

/// How far back audit looks, when it starts, for requests whose owner was lost.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);

/// A moment, and the place of the last event stored by then.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Millis,
    stored: u64,
}

impl Orphans {
    async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(self.interval.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mark = None;
        // Requests of attempts before this have ended.
        let mut ended = before(Millis::now(), LOOK_BACK);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.look(mark, &mut ended).await {
                Ok(next) => mark = next,
                Err(error) => tracing::warn!(error = %chain(&error), "cannot look for orphans"),
            }
        }
    }

    /// An attempt is an orphan as of a moment only when every event that was stored until then is in the database, whichever
    /// replica of audit had it in hand: its settlement may be among them.
    async fn look(&self, mark: Option<Mark>, ended: &mut Millis) -> Result<Option<Mark>, Error> {
        let mark = match mark {
            Some(mark) => mark,
            None => Mark {
                at: Millis::now(),
                stored: self.progress.stored().await?,
            },
        };
        if self.progress.acknowledged().await? < mark.stored {
            return Ok(Some(mark));
        }
        let found = self.store.orphan(mark.at, self.grace).await?;
        if found > 0 {
            self.metrics.orphans.add(found, &[]);
            tracing::warn!(
                attempts = found,
                "nobody saw the end of these attempts, their cost is estimated"
            );
        }
        // Whoever was granted a claim has started its attempt by then, or never will.
        self.store
            .sweep_leases(before(mark.at, self.grace + self.claim_to_start))
            .await?;
        let over = before(mark.at, self.grace + self.request_timeout);
        if over > *ended {
            let lost = self.store.end_lost_requests(*ended, over).await?;
            *ended = over;
            if lost > 0 {
                tracing::warn!(requests = lost, "the owners of these requests were lost");
            }
        }
        Ok(None)
    }
}

fn before(time: Millis, by: Duration) -> Millis {
    Millis(time.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}
