//! Ingress: the doors where clients come in, and the desk where their answers are awaited.
//!
//! Only ingress speaks to clients. It authenticates, reads what it must of a request, hands it to the queue and streams
//! back what is delivered.

mod batches;
mod connection;
mod desk;
mod grpc;
mod http;
mod jobs;
mod keys;
mod labels;
mod limits;
mod reception;
mod targets;
mod webhook;

use std::sync::Arc;

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tollgate_bus::{Bus, Courier, quota::NoticesToSend};
use tollgate_config::Config;
use tollgate_identity::Identities;
use tollgate_telemetry::{Metrics, Readiness};

use crate::{
    batches::BatchDesk,
    connection::HeadLimits,
    desk::Desk,
    jobs::{Dispatcher, JobDesk},
    keys::{Known, Registries},
    limits::{Asker, Limits},
    reception::Reception,
    webhook::{Teller, Webhooks},
};

/// Why ingress cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Identity(#[from] tollgate_identity::Error),
    #[error(transparent)]
    Bus(#[from] tollgate_bus::Error),
    #[error("a listener failed")]
    Listen(#[from] std::io::Error),
    #[error("the gRPC door failed")]
    Grpc(#[from] tonic::transport::Error),
    #[error("the reflection service cannot be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the secret of the webhooks cannot be read")]
    Secret(#[from] tollgate_config::SecretError),
    #[error("the secret of the webhooks is not whsec_ and the base64 of 24 bytes or more")]
    WebhookSecret,
    #[error("the client that sends webhooks cannot be built")]
    WebhookClient(#[from] reqwest::Error),
    #[error("a task of ingress panicked")]
    Task(#[from] tokio::task::JoinError),
}

/// Sockets, bound by whoever starts the service.
pub struct Listeners {
    pub http: TcpListener,
    pub grpc: TcpListener,
    pub delivery: TcpListener,
}

/// Ingress as a service.
pub struct Service {
    listeners: Listeners,
    desk: Arc<Desk>,
    reception: Arc<Reception>,
    jobs: JobDesk,
    batches: BatchDesk,
    runner: batches::Runner,
    dispatcher: Dispatcher,
    teller: Option<Teller>,
    notices: Option<(Arc<Webhooks>, NoticesToSend)>,
    targets: targets::Service,
    registries: Registries,
    known: Known,
    asker: Asker,
    head: HeadLimits,
    readiness: Readiness,
}

impl Service {
    /// Sets up the desk under the address of the delivery listener.
    pub async fn build(
        config: &Config,
        listeners: Listeners,
        bus: Bus,
        courier: &Courier,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, Error> {
        let address = tollgate_bus::advertised(&listeners.delivery, config.ingress.delivery_advertise.as_deref())?;
        let (payloads, lane) = (bus.payloads().await?, bus.jobs().await?);
        let bucket = Box::pin(bus.targets()).await?;
        let registries = Registries::open(&bus).await?;
        let (limits, wished) = Limits::new(config, metrics.clone());
        let asker = Asker {
            limits: Arc::clone(&limits),
            wished,
            quota: bus.quota(),
            holder: address.clone(),
        };
        let desk = Arc::new(Desk::new(
            config,
            address.clone(),
            bus.clone(),
            payloads,
            Arc::clone(&limits),
            metrics.clone(),
        ));
        courier.register(&address, desk.clone());
        let identities = Arc::new(Identities::new(config, metrics.clone())?);
        let reception = Arc::new(Reception::new(config, Arc::clone(&desk), Arc::clone(&identities)));
        let known = Known { identities, limits };
        Box::pin(registries.load(&known)).await?;
        let targets = targets::Service::new(config, bucket, bus.ledger(), Arc::clone(&reception));
        let settings = config.ingress.jobs.clone();
        let webhooks = Webhooks::new(&config.ingress.webhooks, metrics.clone())?.map(Arc::new);
        let teller = match &webhooks {
            Some(webhooks) => Some(Teller::new(Arc::clone(webhooks), lane.clone()).await?),
            None => None,
        };
        let notices = match &webhooks {
            Some(webhooks) => Some((Arc::clone(webhooks), bus.notices_to_send().await?)),
            None => None,
        };
        let jobs = JobDesk::new(
            lane.clone(),
            Arc::clone(&reception),
            settings.clone(),
            config.ingress.request_timeout,
            webhooks,
        );
        let batches = BatchDesk::new(bus.batches().await?, jobs.clone(), settings.clone());
        let runner = Box::pin(batches::Runner::new(batches.clone())).await?;
        let dispatcher = Box::pin(Dispatcher::new(
            bus,
            lane,
            Arc::clone(&desk),
            Arc::clone(&reception),
            settings,
            metrics,
        ))
        .await?;
        let head = HeadLimits {
            headers: config.ingress.max_headers,
            bytes: config.ingress.max_header_bytes,
        };
        Ok(Self {
            listeners,
            desk,
            reception,
            jobs,
            batches,
            runner,
            dispatcher,
            teller,
            notices,
            targets,
            registries,
            known,
            asker,
            head,
            readiness,
        })
    }

    /// Serves until `stop`, then lets the requests under way end.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Self {
            listeners,
            desk,
            reception,
            jobs,
            batches,
            runner,
            dispatcher,
            teller,
            notices,
            targets,
            registries,
            known,
            asker,
            head,
            readiness,
        } = self;
        // Answers are still delivered, and what they may cost is asked for, while the doors drain.
        let (delivery_stop, asker_stop) = (CancellationToken::new(), CancellationToken::new());
        let asking = tokio::spawn(asker.run(asker_stop.clone()));
        let mut delivery = JoinSet::new();
        delivery.spawn({
            let (desk, stop) = (Arc::clone(&desk), delivery_stop.clone());
            async move { tollgate_bus::serve_delivery(listeners.delivery, desk, stop).await }
        });
        let mut doors = JoinSet::new();
        doors.spawn({
            let stop = stop.clone();
            async move {
                registries.follow(known, stop).await;
                Ok(())
            }
        });
        doors.spawn(http::serve(listeners.http, jobs.clone(), batches, head, stop.clone()));
        doors.spawn(grpc::serve(listeners.grpc, reception, jobs, targets, stop.clone()));
        doors.spawn({
            let stop = stop.clone();
            async move { Ok(dispatcher.run(stop).await?) }
        });
        doors.spawn({
            let stop = stop.clone();
            async move {
                Box::pin(runner.run(stop)).await;
                Ok(())
            }
        });
        if let Some(teller) = teller {
            let stop = stop.clone();
            doors.spawn(async move { Ok(Box::pin(teller.run(stop)).await?) });
        }
        if let Some((webhooks, wanted)) = notices {
            let stop = stop.clone();
            doors.spawn(async move {
                webhook::notice::send(webhooks, wanted, stop).await;
                Ok(())
            });
        }
        readiness.set(true);
        let mut ended = Ok(());
        while let Some(door) = doors.join_next().await {
            // A door that fails takes the others with it: half an ingress is worse than none.
            if let Err(error) = door? {
                stop.cancel();
                ended = Err(error);
            }
        }
        readiness.set(false);
        desk.close().await;
        delivery_stop.cancel();
        asker_stop.cancel();
        asking.await?;
        while let Some(served) = delivery.join_next().await {
            served??;
        }
        ended
    }
}
