//! What operators enter while the gateway runs, keys, limits and prices: what audit publishes, every ingress knows within a moment,
//! and goes on knowing when audit and its database are away.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tollgate_bus::{Bus, Error, PriceList, Registry};
use tollgate_identity::Identities;
use tollgate_types::{KeyRecord, LimitRecord, TenantRecord};

use crate::limits::Limits;

/// Where audit publishes.
pub(crate) struct Registries {
    keys: Registry<KeyRecord>,
    tenants: Registry<TenantRecord>,
    limits: Registry<LimitRecord>,
    prices: Registry<PriceList>,
}

/// Who learns of it.
pub(crate) struct Known {
    pub(crate) identities: Arc<Identities>,
    pub(crate) limits: Arc<Limits>,
}

impl Registries {
    pub(crate) async fn open(bus: &Bus) -> Result<Self, Error> {
        Ok(Self {
            keys: Box::pin(bus.registry()).await?,
            tenants: Box::pin(bus.registry()).await?,
            limits: Box::pin(bus.registry()).await?,
            prices: Box::pin(bus.registry()).await?,
        })
    }

    /// Learns of what there is, before the first request comes.
    pub(crate) async fn load(&self, known: &Known) -> Result<(), Error> {
        self.keys
            .all()
            .await?
            .iter()
            .for_each(|key| known.identities.learn(key));
        self.tenants
            .all()
            .await?
            .into_iter()
            .for_each(|tenant| known.identities.learn_tenant(tenant));
        self.limits
            .all()
            .await?
            .into_iter()
            .for_each(|limit| known.limits.learn(limit));
        self.prices
            .all()
            .await?
            .into_iter()
            .for_each(|list| known.limits.learn_prices(list));
        Ok(())
    }

    /// Learns of changes until `stop`.
    pub(crate) async fn follow(self, known: Known, stop: CancellationToken) {
        let keys = Box::pin(each(self.keys.changes(), |key| known.identities.learn(&key)));
        let tenants = Box::pin(each(self.tenants.changes(), |tenant| {
            known.identities.learn_tenant(tenant);
        }));
        let limits = Box::pin(each(self.limits.changes(), |limit| known.limits.learn(limit)));
        let prices = Box::pin(each(self.prices.changes(), |list| known.limits.learn_prices(list)));
        stop.run_until_cancelled(async { tokio::join!(keys, tenants, limits, prices) })
            .await;
    }
}

async fn each<T>(changes: impl Stream<Item = T>, learn: impl Fn(T)) {
    let mut changes = Box::pin(changes);
    while let Some(one) = changes.next().await {
        learn(one);
    }
}
