//! What is done to it, in an order that the seed decides.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tollgate_devstack::Supervisor;

use super::stack::Stack;

/// Marks a message that is a copy, so that it is not copied again.
const COPY: &str = "Chaos-Copy";
/// What may be said twice.
const DOUBLED: [&str; 3] = ["tollgate.v1.guard", "tollgate.v1.route", "tollgate.v1.work.*"];
/// A role that is asked to end has this long until another is ready.
const RESTART: Duration = Duration::from_secs(60);

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// A role is killed with -9
    Kill,
    /// A role is asked to end with SIGTERM, in turn, and the next when it is back
    Restart,
    /// A role stands still for up to 40 s
    Stall,
    /// NATS is killed with -9
    Nats,
    /// Postgres is killed with -9
    Postgres,
    /// The connections to the provider break
    Cut,
    /// The provider refuses connections for up to 4 s
    Outage,
    /// The provider refuses connections for two minutes
    Blackout,
    /// Every message between the stages is said twice for up to 3 s
    Double,
}

impl Fault {
    /// What happens unless something else is asked for: often what is likely to find something.
    pub(crate) const USUAL: [Self; 8] = [
        Self::Kill,
        Self::Restart,
        Self::Stall,
        Self::Nats,
        Self::Postgres,
        Self::Cut,
        Self::Outage,
        Self::Double,
    ];

    const fn weight(self) -> u32 {
        match self {
            Self::Kill => 60,
            Self::Cut => 12,
            Self::Double => 10,
            Self::Outage => 8,
            Self::Nats | Self::Postgres | Self::Stall => 5,
            Self::Restart => 3,
            Self::Blackout => 1,
        }
    }

    const fn counted_as(self) -> &'static str {
        match self {
            Self::Kill => "roles killed",
            Self::Restart => "roles restarted",
            Self::Stall => "roles held",
            Self::Nats => "NATS killed",
            Self::Postgres => "Postgres killed",
            Self::Cut => "wires cut",
            Self::Outage => "provider outages",
            Self::Blackout => "provider outages of two minutes",
            Self::Double => "times of doubled messages",
        }
    }
}

/// Faults that were made, by kind.
pub(super) type Made = BTreeMap<&'static str, u64>;

pub(super) struct Faults {
    stack: Stack,
    kinds: Vec<Fault>,
    rng: StdRng,
    made: Made,
    /// Roles that are held at the moment.
    held: JoinSet<()>,
    restarts: usize,
}

impl Faults {
    pub(super) fn new(stack: Stack, kinds: Vec<Fault>, rng: StdRng) -> Self {
        Self {
            stack,
            kinds,
            rng,
            made: Made::new(),
            held: JoinSet::new(),
            restarts: 0,
        }
    }

    /// The end of all trouble; roles that are held go on first.
    pub(super) async fn end(mut self) -> (Stack, Made) {
        while self.held.join_next().await.is_some() {}
        (self.stack, self.made)
    }

    /// Makes faults until `end`, a few each second.
    pub(super) async fn make(&mut self, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            let pause = Duration::from_millis(self.rng.random_range(400..2200));
            tokio::time::sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
            let fault = *self
                .kinds
                .choose_weighted(&mut self.rng, |fault| fault.weight())
                .context("there is no fault to make")?;
            self.one(fault).await?;
            *self.made.entry(fault.counted_as()).or_default() += 1;
        }
        Ok(())
    }

    fn any_role(&mut self) -> String {
        self.stack.names[self.rng.random_range(0..self.stack.names.len())].clone()
    }

    async fn one(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => {
                let name = self.any_role();
                self.stack.roles.kill(&name).await?;
                eprintln!("  kill -9 {name}");
            }
            Fault::Restart => {
                let name = self.stack.names[self.restarts % self.stack.names.len()].clone();
                self.restarts += 1;
                eprintln!("  restart {name}");
                let back = self.stack.roles.restart(&name, RESTART).await?;
                anyhow::ensure!(back, "{name} did not come back within {RESTART:?}");
            }
            Fault::Stall => {
                let (name, time) = (
                    self.any_role(),
                    Duration::from_millis(self.rng.random_range(1000..40_000)),
                );
                eprintln!("  hold {name} for {time:?}");
                self.held.spawn(hold(Arc::clone(&self.stack.roles), name, time));
            }
            Fault::Nats => {
                eprintln!("  kill -9 nats");
                self.stack.nats.kill().await?;
                self.stack.nats.restart().await.context("NATS did not come back")?;
            }
            Fault::Postgres => {
                eprintln!("  kill -9 postgres");
                let postgres = &mut self.stack.postgres;
                postgres.kill().await?;
                postgres.restart().await.context("Postgres did not come back")?;
            }
            Fault::Cut => {
                eprintln!("  cut the wire to the provider");
                self.stack.wire.cut();
            }
            Fault::Outage => {
                let time = Duration::from_millis(self.rng.random_range(500..4000));
                self.provider_away(time).await;
            }
            Fault::Blackout => self.provider_away(Duration::from_secs(120)).await,
            Fault::Double => {
                let time = Duration::from_millis(self.rng.random_range(500..3000));
                eprintln!("  every message twice for {time:?}");
                let client = async_nats::connect(self.stack.nats.url()).await?;
                let doubling = AbortOnDropHandle::new(tokio::spawn(double(client)));
                tokio::time::sleep(time).await;
                drop(doubling);
            }
        }
        Ok(())
    }

    async fn provider_away(&self, time: Duration) {
        eprintln!("  the provider is away for {time:?}");
        self.stack.wire.refuse(true);
        self.stack.wire.cut();
        tokio::time::sleep(time).await;
        self.stack.wire.refuse(false);
    }
}

async fn hold(roles: Arc<Supervisor>, name: String, time: Duration) {
    // The role is known; one that is not running has nothing to hold.
    let _ = roles.hold(&name, true).await;
    tokio::time::sleep(time).await;
    let _ = roles.hold(&name, false).await;
}

/// Says again what is said between the stages.
async fn double(client: Client) {
    let mut all = Vec::new();
    for subject in DOUBLED {
        match client.subscribe(subject).await {
            Ok(messages) => all.push(messages),
            Err(_) => return,
        }
    }
    let mut messages = futures::stream::select_all(all);
    while let Some(message) = messages.next().await {
        let mut headers: HeaderMap = message.headers.unwrap_or_default();
        if headers.get(COPY).is_some() {
            continue;
        }
        headers.insert(COPY, "1");
        let _ = client
            .publish_with_headers(message.subject, headers, message.payload)
            .await;
    }
}
