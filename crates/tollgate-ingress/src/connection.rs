//! HTTP connections: accepted with TCP_NODELAY, bounded in what their heads may hold, drained at the end.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Version, header::CONNECTION},
};
use futures::FutureExt;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A client that takes longer to send its head is not one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long connections stay open when the process is to end: whoever asks in that time is answered and told to close, so
/// that no request meets a connection that is being closed.
const LINGER: Duration = Duration::from_secs(2);
/// After an error that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a request's head may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) headers: usize,
    pub(crate) bytes: usize,
}

/// Serves `routes` until `stop`, then until the last connection has ended. Nobody who has connected is turned away.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: HeadLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(limits.headers)
        .max_buf_size(limits.bytes);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.bytes).unwrap_or(u32::MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, &server, routes.clone(), &graceful, &stop));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Those that the kernel has let in already.
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        connections.spawn(connection(stream, &server, routes.clone(), &graceful, &stop));
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LINGER, all).await.is_err() {
        graceful.shutdown().await;
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn connection(
    stream: TcpStream,
    server: &auto::Builder<TokioExecutor>,
    routes: Router,
    graceful: &GracefulShutdown,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    prepare(&stream);
    let stop = stop.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut routes, stop) = (routes.clone(), stop.clone());
        async move {
            let http2 = request.version() == Version::HTTP_2;
            let mut response = call(&mut routes, request).await;
            // HTTP/2 has a message of its own for this.
            if stop.is_cancelled() && !http2 {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<Response<Body>, Infallible>(response)
        }
    });
    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
}

/// Without TCP_NODELAY a streamed answer pauses 40 ms whenever the client delays its acknowledgement.
fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
}

async fn call(routes: &mut Router, request: Request<Incoming>) -> Response<Body> {
    use hyper::service::Service as _;
    let service = hyper_util::service::TowerToHyperService::new(routes.clone());
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_send_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!stream.nodelay().unwrap());
        prepare(&stream);
        assert!(stream.nodelay().unwrap());
    }
}
