//! From the tables to every ingress: keys that were issued or changed.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tollgate_bus::keys::Keys;
use tollgate_config::Keyring;

use crate::{Store, consume::chain};

/// How often to look for changes that another process made and did not live to publish.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// Publishes keys, and knows them itself.
pub(crate) struct Publish {
    pub(crate) store: Store,
    pub(crate) bucket: Keys,
    pub(crate) ring: Arc<Keyring>,
    pub(crate) changed: Arc<Notify>,
}

impl Publish {
    /// Works until `stop`. Neither a database nor a bucket that is away ends it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let learn = async {
            let mut changes = Box::pin(self.bucket.changes());
            while let Some(record) = changes.next().await {
                self.ring.learn(&record);
            }
        };
        let work = async { tokio::join!(learn, self.publish()) };
        stop.run_until_cancelled(work).await;
    }

    async fn publish(&self) {
        // The bucket may have been lost since: every process tells of all keys once.
        let mut told = false;
        loop {
            let published = async {
                if !told {
                    self.store.republish_keys().await?;
                }
                self.store.publish_keys(&self.bucket).await
            };
            match published.await {
                Ok(0) => {
                    told = true;
                    let _ = timeout(LOOK, self.changed.notified()).await;
                }
                Ok(_) => told = true,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "keys cannot be published");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
