//! What is done to it, in an order that the seed decides.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use rand::{Rng, rngs::StdRng};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::stack::Stack;

/// Marks a message that is a copy, so that it is not copied again.
const COPY: &str = "Chaos-Copy";
/// What may be said twice.
const DOUBLED: [&str; 3] = ["tollgate.v1.guard", "tollgate.v1.route", "tollgate.v1.work.*"];

/// Faults that were made, by kind.
pub(super) type Made = BTreeMap<&'static str, u64>;

pub(super) struct Faults {
    stack: Stack,
    rng: StdRng,
    made: Made,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillRole,
    KillNats,
    KillPostgres,
    CutProvider,
    ProviderAway,
    DoubleMessages,
}

impl Faults {
    pub(super) fn new(stack: Stack, rng: StdRng) -> Self {
        Self {
            stack,
            rng,
            made: Made::new(),
        }
    }

    pub(super) fn end(self) -> (Stack, Made) {
        (self.stack, self.made)
    }

    /// Makes faults until `end`, a few each second.
    pub(super) async fn make(&mut self, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            let pause = Duration::from_millis(self.rng.random_range(400..2200));
            tokio::time::sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
            let fault = match self.rng.random_range(0..100) {
                0..60 => Fault::KillRole,
                60..65 => Fault::KillNats,
                65..70 => Fault::KillPostgres,
                70..82 => Fault::CutProvider,
                82..90 => Fault::ProviderAway,
                _ => Fault::DoubleMessages,
            };
            self.one(fault).await?;
        }
        Ok(())
    }

    async fn one(&mut self, fault: Fault) -> anyhow::Result<()> {
        let kind = match fault {
            Fault::KillRole => {
                let name = self.stack.names[self.rng.random_range(0..self.stack.names.len())].clone();
                self.stack.roles.kill(&name).await?;
                eprintln!("  kill -9 {name}");
                "roles killed"
            }
            Fault::KillNats => {
                eprintln!("  kill -9 nats");
                self.stack.nats.kill().await?;
                self.stack.nats.restart().await.context("NATS did not come back")?;
                "NATS killed"
            }
            Fault::KillPostgres => {
                eprintln!("  kill -9 postgres");
                self.stack.postgres.kill().await?;
                self.stack
                    .postgres
                    .restart()
                    .await
                    .context("Postgres did not come back")?;
                "Postgres killed"
            }
            Fault::CutProvider => {
                eprintln!("  cut the wire to the provider");
                self.stack.wire.cut();
                "wires cut"
            }
            Fault::ProviderAway => {
                let time = Duration::from_millis(self.rng.random_range(500..4000));
                eprintln!("  the provider is away for {time:?}");
                self.stack.wire.refuse(true);
                self.stack.wire.cut();
                tokio::time::sleep(time).await;
                self.stack.wire.refuse(false);
                "provider outages"
            }
            Fault::DoubleMessages => {
                let time = Duration::from_millis(self.rng.random_range(500..3000));
                eprintln!("  every message twice for {time:?}");
                let client = async_nats::connect(self.stack.nats.url()).await?;
                let doubling = AbortOnDropHandle::new(tokio::spawn(double(client)));
                tokio::time::sleep(time).await;
                drop(doubling);
                "times of doubled messages"
            }
        };
        *self.made.entry(kind).or_default() += 1;
        Ok(())
    }
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
