//! Taking messages from a consumer that is asked for them.

use std::time::Duration;

use async_nats::{
    Error,
    jetstream::{
        Message,
        consumer::{Consumer, pull},
    },
};
use futures::StreamExt;

/// A server says at once that it has nothing. Releases before 2.12.2 may leave the question open when somebody else is given
/// what it counted on, others do while the consumer has as many unacknowledged messages as it may, and one that is killed
/// forgets the question. A message that comes later than this is delivered anew when its time to be acknowledged is over.
const SILENCE: Duration = Duration::from_secs(2);

/// Up to `max` messages that are there.
pub(crate) async fn at_once(consumer: &Consumer<pull::Config>, max: usize) -> Result<Vec<Message>, Error> {
    let mut messages = consumer.fetch().max_messages(max).messages().await?;
    let mut taken = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await {
        taken.push(message?);
    }
    Ok(taken)
}

/// One message, or none when `wait` has passed.
pub(crate) async fn soon(consumer: &Consumer<pull::Config>, wait: Duration) -> Result<Vec<Message>, Error> {
    let mut messages = consumer.batch().max_messages(1).expires(wait).messages().await?;
    let mut taken = Vec::new();
    while let Some(message) = messages.next().await {
        taken.push(message?);
    }
    Ok(taken)
}
