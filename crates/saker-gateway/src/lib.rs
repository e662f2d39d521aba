//! The HTTP gateway of a shop. It answers a storefront's requests in JSON, with data from Triton and Valkey.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | addresses, deadlines and limits |
//! | [`catalogue`] | items and users as the gateway returns them, serialised once |
//! | [`access`] | API keys and their rates |
//! | [`openapi`] | the OpenAPI document of the routes |
//! | `routes` | a file per group of routes; `query` reads their parameters |
//! | `ranking` | requests to Triton's ensemble: deadline, limit of concurrent requests, circuit breaker |
//! | `popular` | popular items, kept for times when Triton does not answer |
//! | `store` | calls to Valkey on a few threads, so that a blocked call does not block requests |
//! | `server`, `door` | connections; the rules of a listener |
//! | `context`, `problem`, `metrics` | request ids and traces; errors; metrics |
//!
//! `docs/gateway.md` describes the routes, and the answers when a service is down.

#![warn(clippy::indexing_slicing)]

pub mod access;
mod call;
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
mod rate_limited;
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
pub use catalogue::DisplayCatalogue;
pub use settings::Settings;
pub use triton_client::balance::Resolver;

use door::Door;
use state::State;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the store is invalid.
    #[error(transparent)]
    Store(#[from] saker_store::StoreError),
    /// The address of Triton is invalid.
    #[error(transparent)]
    Triton(#[from] triton_client::Error),
    /// The text is not an origin.
    #[error("origin '{0}': accepted is *, or scheme, host and port, such as https://shop.example")]
    Origin(String),
    /// The file of API keys is invalid.
    #[error("{file}: {why}")]
    Keys {
        /// The file.
        file: String,
        /// The fault, and its line.
        why: String,
    },
}

/// Provides the data that only the program around the gateway has, for the operators' page. Each request of the page calls it once, on a
/// thread that may block.
pub type Operations = Arc<dyn Fn() -> Operation + Send + Sync>;

/// Status of the services behind the gateway, as the operators' page shows it.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// The releases of the repository, newest first.
    pub releases: serde_json::Value,
    /// Number of candidates that the filter of seen items has removed since Triton started; `None` if Triton does not report it.
    pub hidden: Option<f64>,
}

/// A gateway that is ready to serve.
pub struct Gateway {
    state: Arc<State>,
    origins: Vec<String>,
}

impl Gateway {
    /// Starts the background tasks. Call it within a Tokio runtime. Triton and Valkey may be down at this time: that is not an error, and
    /// the gateway connects when they answer.
    ///
    /// # Errors
    /// Returns an error if an address in the settings is invalid.
    pub fn open(
        settings: Settings,
        catalogue: DisplayCatalogue,
        operations: Operations,
    ) -> Result<Self, Error> {
        routes::check_origins(&settings.origins)?;
        let origins = settings.origins.clone();
        let state = Arc::new(State::open(settings, catalogue, operations)?);
        state::watch(&state);
        Ok(Self { state, origins })
    }

    /// Replaces the known items and users, for example after a switch of releases. New requests use the new catalogue; requests in progress
    /// finish with the old one. Popular items that are missing from the new catalogue are no longer returned.
    pub fn replace_catalogue(&self, catalogue: DisplayCatalogue) {
        self.state.replace_catalogue(catalogue);
    }

    /// Serves until `stop` completes, then finishes the requests in progress. Only a listener on loopback has the operators' routes.
    ///
    /// # Errors
    /// Returns an error if the listener fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        self.serve_apart(listener, None, stop).await
    }

    /// Like [`Gateway::serve`]. If `operators` is a listener, only that listener has the operators' routes.
    ///
    /// # Errors
    /// Returns an error if a listener fails.
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

    /// The routes of a listener at this address, without the limits on connections and times.
    pub fn router(&self, address: IpAddr) -> Router {
        self.routes(Door::new(&self.state.settings, address))
    }

    fn routes(&self, door: Door) -> Router {
        routes::router(&self.state, door, &self.origins)
    }
}
