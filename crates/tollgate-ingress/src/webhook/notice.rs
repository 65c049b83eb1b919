//! Webhooks that audit wants sent: it knows when, an ingress knows how.

use std::sync::Arc;

use reqwest::StatusCode;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_bus::quota::{NoticesToSend, Told as Answer};

use super::{AT_ONCE, Told, Webhooks};

/// Sends until `stop`.
pub(crate) async fn send(webhooks: Arc<Webhooks>, mut wanted: NoticesToSend, stop: CancellationToken) {
    let (tasks, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
    while let Some(Some(notice)) = stop.run_until_cancelled(wanted.next()).await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        let webhooks = Arc::clone(&webhooks);
        tasks.spawn(async move {
            let body = notice.wanted.body.clone();
            let told = webhooks.send(&notice.wanted.address, &notice.wanted.id, body).await;
            webhooks.count(if told == Told::Delivered { "delivered" } else { "failed" });
            notice
                .sent(match told {
                    Told::Delivered => Answer::Delivered,
                    Told::Failed(Some(StatusCode::GONE)) => Answer::Gone,
                    Told::Failed(_) => Answer::Failed,
                })
                .await;
            drop(permit);
        });
    }
    tasks.close();
    tasks.wait().await;
}
