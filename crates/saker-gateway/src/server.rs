//! Accepts connections, limits their number and times, and finishes them in order when the gateway stops.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use crate::state::State;

/// Maximum number of open connections per listener; further ones wait in the system's queue.
const MOST: usize = 4096;
/// Maximum time for requests in progress after the gateway stops accepting connections.
const FINISH: Duration = Duration::from_secs(10);
/// Pause after the system failed to accept a connection because no file descriptor was free.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Answer to an address that has reached its limit of connections.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Serves until `stop` completes. During `settings.drain` the gateway still answers but is not ready. Then it accepts only the connections
/// that are already in the system's queue, and finishes the requests in progress.
pub(crate) async fn serve(
    listeners: Vec<(TcpListener, Router)>,
    state: &Arc<State>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let mut accepting = JoinSet::new();
    for (listener, router) in listeners {
        let (state, stopped) = (Arc::clone(state), stopped.clone());
        accepting.spawn(accept(listener, router, state, stopped));
    }
    stop.await;
    state.stop();
    sleep(state.settings.drain).await;
    // The error of a channel without receivers is of no consequence.
    let _ = stopping.send(true);
    while accepting.join_next().await.is_some() {}
    Ok(())
}

async fn accept(
    listener: TcpListener,
    router: Router,
    state: Arc<State>,
    stopped: watch::Receiver<bool>,
) {
    let mut stopping = stopped.clone();
    let free = Arc::new(Semaphore::new(MOST));
    let addresses = Addresses::new(state.settings.connections_per_address);
    let mut open = JoinSet::new();
    let mut take = |stream: TcpStream, address: IpAddr, permit, stopped| {
        while open.try_join_next().is_some() {}
        let Some(counted) = addresses.count(address) else {
            state.metrics.refused_connection();
            refuse(stream);
            return;
        };
        let (router, state) = (router.clone(), Arc::clone(&state));
        open.spawn(async move {
            let _until_the_end = (permit, counted);
            converse(stream, router, &state, stopped).await;
        });
    };
    loop {
        let accepted = async {
            let permit = Arc::clone(&free).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            // An error means that the sender is gone, which stops the gateway too.
            () = async { drop(stopping.wait_for(|stopped| *stopped).await) } => break,
            (accepted, permit) = accepted => match accepted {
                Ok((stream, peer)) => take(stream, peer.ip(), Some(permit), stopped.clone()),
                // The error concerns one client, which has closed its connection.
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    sleep(EXHAUSTED).await;
                }
            },
        }
    }
    // Clients whose connections wait in the system's queue would otherwise lose the data they sent.
    while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await
    {
        take(stream, peer.ip(), None, stopped.clone());
    }
    drop(listener);
    let finished = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        tracing::warn!(
            "requests under way are aborted after {} s",
            FINISH.as_secs()
        );
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Answers that the address has too many connections, if the client reads the answer.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // The buffer of a new socket has room for these few bytes. Delivery is not checked.
        let _ = stream.write(TOO_MANY);
    }
}

/// Number of open connections per address.
#[derive(Clone, Debug)]
struct Addresses {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A counted connection; dropping it releases its place.
struct Counted {
    address: IpAddr,
    addresses: Addresses,
}

impl Addresses {
    fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    /// Counts a connection; `None` if the address has reached its limit.
    fn count(&self, address: IpAddr) -> Option<Counted> {
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Counted {
            address,
            addresses: self.clone(),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = &self.addresses.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// The key under which an address is counted. One client can use a whole IPv6 /64 network, so its addresses count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
        address => address,
    }
}

/// A socket that closes if its peer does not read written data within a time limit.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Runs from the first blocked write until all data is written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
        }
    }

    fn checked<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_pending() {
            let patience = self.patience;
            let waiting = self
                .waiting
                .get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(waiting.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        wrote
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.checked(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.checked(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Hyper flushes after it has written everything.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    state: &State,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are sent at once. With Nagle's algorithm a packet would wait for the client's acknowledgement, up to 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection without TCP_NODELAY: {error}");
    }
    let settings = &state.settings;
    // Detecting HTTP/2 would wait for the first bytes of a connection without a time limit.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout);
    let service = TowerToHyperService::new(router);
    let stream = Patient::new(stream, settings.write_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // An error means that the sender is gone, which stops the gateway too.
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let addresses = Addresses::new(2);
        let count = |text: &str| addresses.count(text.parse().unwrap());
        let first = count("10.0.0.1");
        let second = count("::ffff:10.0.0.1");
        assert!(first.is_some() && second.is_some());
        assert!(count("10.0.0.1").is_none());
        assert!(count("10.0.0.2").is_some());
        drop(first);
        assert!(count("10.0.0.1").is_some());
        let of_network = (count("2001:db8::1"), count("2001:db8::2:3"));
        assert!(of_network.0.is_some() && of_network.1.is_some());
        assert!(count("2001:db8::ffff").is_none());
        assert!(count("2001:db8:0:1::1").is_some());
        drop((second, of_network));
        assert!(addresses.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_that_reads_nothing_or_byte_by_byte_is_not_written_to_for_ever() {
        let patience = Duration::from_millis(500);
        for drips in [false, true] {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let reader = tokio::spawn(async move {
                let mut byte = [0];
                while drips && theirs.read_exact(&mut byte).await.is_ok() {
                    sleep(Duration::from_millis(10)).await;
                }
                // Keeps the connection open until the writer has given up.
                sleep(Duration::from_secs(60)).await;
                theirs
            });
            let started = Instant::now();
            let mut ours = Patient::new(ours, patience);
            let error = ours.write_all(&[0; 1 << 20]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let took = started.elapsed();
            assert!(took >= patience && took < 10 * patience, "{took:?}");
            reader.abort();
        }
        // A client that reads in time is never cut off.
        let (ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let mut part = [0; 1024];
            while theirs.read_exact(&mut part).await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        });
        let started = Instant::now();
        let mut ours = Patient::new(ours, patience);
        for _ in 0..20 {
            ours.write_all(&[0; 1024]).await.unwrap();
            ours.flush().await.unwrap();
        }
        assert!(started.elapsed() > patience, "{:?}", started.elapsed());
    }
}
