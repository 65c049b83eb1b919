//! Accepts connections and ends them: every one is a tracked task, and none outlives the stop by more than a second.

use std::{io, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{Simulator, routes, tokens};

/// How long open connections may go on after a stop.
const GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the simulator on a listener until `stop`, then for at most a second more for what is in flight.
///
/// # Errors
/// If the tokenizer cannot be loaded. Trouble with single connections ends only those.
pub async fn run(listener: TcpListener, simulator: Simulator, stop: CancellationToken) -> io::Result<()> {
    // Loaded before the first call, so that it does not look like a slow provider.
    tokio::task::spawn_blocking(tokens::warm_up)
        .await
        .map_err(io::Error::other)?;
    let router = routes::router(simulator, stop.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, router.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "simulator could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    Ok(())
}

async fn connection(socket: TcpStream, router: Router, stop: CancellationToken) {
    // Without it the kernel holds back small chunks of a stream while an earlier one is unacknowledged.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "simulator's client left before it was served");
        return;
    }
    let server = auto::Builder::new(TokioExecutor::new());
    let serving = server.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            // On timeout the connection is dropped, and its open calls count as cut.
            tokio::time::timeout(GRACE, serving).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        // Cuts, stalls and clients that leave all end here; the count has them already.
        tracing::debug!(error, "simulator's connection broke");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "simulator's connection task failed");
    }
}
