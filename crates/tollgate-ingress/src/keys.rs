//! Keys that are issued while the gateway runs: what audit publishes, every ingress knows within a moment, and goes on
//! knowing when audit and its database are away.

use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tollgate_bus::{Error, keys::Keys};
use tollgate_config::Keyring;

/// Learns of the keys that there are, before the first request comes.
pub(crate) async fn load(keys: &Keys, ring: &Keyring) -> Result<(), Error> {
    keys.all().await?.iter().for_each(|record| ring.learn(record));
    Ok(())
}

/// Learns of keys until `stop`.
pub(crate) async fn follow(keys: Keys, ring: Arc<Keyring>, stop: CancellationToken) {
    let mut changes = Box::pin(keys.changes());
    while let Some(Some(record)) = stop.run_until_cancelled(changes.next()).await {
        ring.learn(&record);
        tracing::debug!(key.id = %record.key_id, key.revision = record.revision, "a key is known");
    }
}
