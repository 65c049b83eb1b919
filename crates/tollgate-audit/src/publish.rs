//! From the tables to every ingress: keys, limits and prices that were entered or changed.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tollgate_bus::{PriceList, Registry};
use tollgate_identity::Identities;
use tollgate_pricing::Catalogue;
use tollgate_types::{KeyRecord, LimitRecord, TenantRecord};

use crate::{Error, Store, consume::chain};

/// How often to look for changes that another process made and did not live to publish.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// The buckets in which ingress looks.
pub struct Buckets {
    pub keys: Registry<KeyRecord>,
    pub tenants: Registry<TenantRecord>,
    pub limits: Registry<LimitRecord>,
    pub prices: Registry<PriceList>,
}

/// Publishes what operators enter, and knows the keys itself.
pub(crate) struct Publish {
    pub(crate) store: Store,
    pub(crate) buckets: Buckets,
    pub(crate) identities: Arc<Identities>,
    /// Told when a key or a tenant was changed, and when a limit was.
    pub(crate) keys_changed: Arc<Notify>,
    pub(crate) limits_changed: Arc<Notify>,
}

impl Publish {
    /// Works until `stop`. Neither a database nor a bucket that is away ends it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let learn_keys = Box::pin(self.buckets.keys.changes().for_each(|record| {
            self.identities.learn(&record);
            std::future::ready(())
        }));
        let learn_tenants = Box::pin(self.buckets.tenants.changes().for_each(|record| {
            self.identities.learn_tenant(record);
            std::future::ready(())
        }));
        let store = &self.store;
        let keys = Keys(store, &self.buckets);
        let limits = Limits(store, &self.buckets.limits);
        let prices = Prices(store, &self.buckets.prices, None);
        let never = Notify::new();
        let keys = Box::pin(publish("keys", &self.keys_changed, keys));
        let limits = Box::pin(publish("limits", &self.limits_changed, limits));
        let prices = Box::pin(publish("prices", &never, prices));
        let work = async { tokio::join!(learn_keys, learn_tenants, keys, limits, prices) };
        stop.run_until_cancelled(work).await;
    }
}

/// Publishes a part of what has changed, and says of how much. The bucket may have been lost since it was last told: the first time
/// every process tells of all.
trait Tell: Send {
    fn tell(&mut self, first: bool) -> impl Future<Output = Result<usize, Error>> + Send;
}

struct Keys<'a>(&'a Store, &'a Buckets);

impl Tell for Keys<'_> {
    async fn tell(&mut self, first: bool) -> Result<usize, Error> {
        if first {
            self.0.republish_keys().await?;
            self.0.republish_tenants().await?;
        }
        let tenants = self.0.publish_tenants(&self.1.tenants).await?;
        Ok(tenants + self.0.publish_keys(&self.1.keys).await?)
    }
}

struct Limits<'a>(&'a Store, &'a Registry<LimitRecord>);

impl Tell for Limits<'_> {
    async fn tell(&mut self, first: bool) -> Result<usize, Error> {
        if first {
            self.0.republish_limits().await?;
        }
        self.0.publish_limits(self.1).await
    }
}

struct Prices<'a>(&'a Store, &'a Registry<PriceList>, Option<Arc<Catalogue>>);

impl Tell for Prices<'_> {
    async fn tell(&mut self, _: bool) -> Result<usize, Error> {
        self.0.publish_prices(self.1, &mut self.2).await
    }
}

async fn publish(what: &str, changed: &Notify, mut some: impl Tell) {
    let mut first = true;
    loop {
        match some.tell(first).await {
            Ok(0) => {
                first = false;
                let _ = timeout(LOOK, changed.notified()).await;
            }
            Ok(_) => first = false,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "{what} cannot be published");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
