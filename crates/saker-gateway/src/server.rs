//! Connections: taken, bounded in number and patience, and finished in order when the gateway stops.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How many connections may be open; more wait in the system's queue.
const MOST: usize = 4096;
/// How long requests that are under way may take once the gateway is told to stop.
const FINISH: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the system gave no connection: it has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves until `stop` is done, then finishes what is under way. A client may take `patience` to say what it wants.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Duration,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let free = Arc::new(Semaphore::new(MOST));
    let mut open = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let permit = Arc::clone(&free).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (stream, permit) = tokio::select! {
            () = &mut stop => break,
            Some(_) = open.join_next() => continue,
            (accepted, permit) = accepted => match accepted {
                Ok((stream, _)) => (stream, permit),
                // Of that client, which has gone.
                Err(error) if is_of_client(&error) => continue,
                Err(error) => {
                    tracing::warn!("no connection can be taken: {error}");
                    tokio::time::sleep(EXHAUSTED).await;
                    continue;
                }
            },
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        open.spawn(async move {
            let _permit = permit;
            converse(stream, router, patience, stopped).await;
        });
    }
    drop(listener);
    // Whether anybody listens does not matter.
    let _ = stopping.send(true);
    let finished = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        tracing::warn!(
            "requests under way are given up after {} s",
            FINISH.as_secs()
        );
    }
    Ok(())
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn converse(
    stream: TcpStream,
    router: Router,
    patience: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are written at once: what waits for a fuller packet waits for the client's acknowledgement, 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection without TCP_NODELAY: {error}");
    }
    // To tell HTTP/2 from HTTP/1.1 its first bytes would be waited for without a limit.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // An error means that the gateway is gone, which is as good.
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
