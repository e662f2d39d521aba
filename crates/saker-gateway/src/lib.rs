//! The HTTP gateway of a shop: what a storefront asks, in JSON, before Triton and Valkey.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | where everything is, deadlines and limits |
//! | [`catalogue`] | items and users as the gateway shows them, serialised once |
//! | [`access`] | API keys and their rates |
//! | [`openapi`] | the routes, described for programs |
//! | `routes` | a file per group of routes; `query` reads their parameters |
//! | `ranking` | asking Triton's ensemble: deadline, bounded load, a breaker |
//! | `popular` | popular items, kept for when Triton does not answer |
//! | `store` | Valkey behind a few threads, so that one that hangs holds up nobody |
//! | `server`, `door` | connections; what a listener answers, and to whom |
//! | `context`, `problem`, `metrics` | request ids and traces; errors; what is counted |
//!
//! `docs/gateway.md` describes the routes, and what is answered when something is down.

#![warn(clippy::indexing_slicing)]

pub mod access;
pub mod catalogue;
pub mod openapi;
pub mod settings;

mod context;
mod door;
mod metrics;
mod popular;
mod problem;
mod query;
mod ranking;
#[doc(hidden)]
pub mod readers;
mod routes;
mod server;
mod state;
mod store;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

pub use access::Keys;
pub use catalogue::Catalogue;
pub use settings::Settings;
pub use triton_client::balance::Resolver;

use door::Door;
use state::State;

/// Why a gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store's address cannot be used.
    #[error(transparent)]
    Store(#[from] saker_store::StoreError),
    /// Triton's address cannot be used.
    #[error(transparent)]
    Triton(#[from] triton_client::Error),
    /// An origin that no browser sends.
    #[error("origin '{0}': accepted is *, or scheme, host and port, such as https://shop.example")]
    Origin(String),
    /// A file of API keys that cannot be used.
    #[error("{file}: {why}")]
    Keys {
        /// The file.
        file: String,
        /// What is wrong, and in which line.
        why: String,
    },
}

/// What the operators' page shows beside what the gateway knows itself; called for each look at it, on a thread that may wait.
pub type Operations = Arc<dyn Fn() -> Operation + Send + Sync>;

/// How it stands with what is behind the gateway.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// The releases of the repository, newest first.
    pub releases: serde_json::Value,
    /// Candidates that the filter of seen items has hidden since Triton started; `None` where Triton does not tell.
    pub hidden: Option<f64>,
}

/// An open gateway.
pub struct Gateway {
    state: Arc<State>,
    origins: Vec<String>,
}

impl Gateway {
    /// Starts what runs in the background. Must be called within a Tokio runtime. Whether Triton and Valkey are there shows
    /// later: one that is down is no error.
    ///
    /// # Errors
    /// An address in the settings is invalid.
    pub fn open(
        settings: Settings,
        catalogue: Catalogue,
        operations: Operations,
    ) -> Result<Self, Error> {
        routes::check_origins(&settings.origins)?;
        let origins = settings.origins.clone();
        let state = Arc::new(State::open(settings, catalogue, operations)?);
        state::watch(&state);
        Ok(Self { state, origins })
    }

    /// Replaces the items and users that the gateway knows, for example when another release serves. Requests that begin from now
    /// on see the new ones; a request under way keeps the old ones. Popular items that the new catalogue lacks are no longer
    /// answered.
    pub fn replace_catalogue(&self, catalogue: Catalogue) {
        self.state.replace_catalogue(catalogue);
    }

    /// Serves until `stop` is done, then finishes what is under way. A listener that is not on loopback has not the operators'
    /// routes.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        self.serve_apart(listener, None, stop).await
    }

    /// As [`Gateway::serve`]; where there is a listener for operators, their routes are there and nowhere else.
    ///
    /// # Errors
    /// A listener fails.
    pub async fn serve_apart(
        &self,
        listener: TcpListener,
        operators: Option<TcpListener>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let settings = &self.state.settings;
        let door = Door::new(settings, listener.local_addr()?.ip());
        let door = match operators {
            None => door,
            Some(_) => door.without_operators(),
        };
        let mut listeners = vec![(listener, self.routes(door))];
        if let Some(operators) = operators {
            let door = Door::new(settings, operators.local_addr()?.ip()).for_operators();
            listeners.push((operators, self.routes(door)));
        }
        server::serve(listeners, &self.state, stop).await
    }

    /// What is answered by a listener at this address, without a listener's bounds on connections and times.
    pub fn router(&self, address: IpAddr) -> Router {
        self.routes(Door::new(&self.state.settings, address))
    }

    fn routes(&self, door: Door) -> Router {
        routes::router(&self.state, door, &self.origins)
    }
}
