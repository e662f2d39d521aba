//! Addresses, deadlines and limits of a gateway.

use std::time::Duration;

use saker_contract::tensor;
use saker_store::events::Limits;
use saker_store::feast::FeatureView;
use saker_traces::Traces;
use triton_client::balance::Resolver;

use crate::access::Keys;

/// The settings of a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Triton's gRPC services: `HOST:PORT` or `dns://NAME:PORT`, several of them separated by commas.
    pub triton: String,
    /// Interval between two resolutions of a `dns://` name.
    pub resolve_every: Duration,
    /// The resolver of such names.
    pub resolver: Resolver,
    /// `host:port` of Triton's HTTP service, used for explanations.
    pub triton_http: String,
    /// Number of gRPC connections to each Triton server.
    pub connections: usize,
    /// Connection settings of the store. The gateway sets the database numbers itself.
    pub store: saker_store::Settings,
    /// Maximum duration of a call to the store.
    pub store_deadline: Duration,
    /// The view of user features in the store.
    pub users: Option<FeatureView>,
    /// The views that the updater writes per user, such as that of the top category. A request to forget a user deletes the user's rows
    /// there.
    pub activity: Vec<FeatureView>,
    /// Name of the ensemble's input for the user id.
    pub user_input: String,
    /// The context inputs of the ensemble: `device_type`, `timestamp`, both or none.
    pub context_inputs: Vec<String>,
    /// Number of candidates per request that reach the filter of seen items.
    pub candidates: usize,
    /// Maximum wait for Triton's answer; after it, popular items are returned.
    pub deadline: Duration,
    /// Maximum number of concurrent requests to Triton.
    pub max_in_flight: usize,
    /// Maximum time for a client to send a request's headers; also the idle time after which a connection is closed.
    pub header_timeout: Duration,
    /// Maximum time for a client to read an answer, or a part of a large answer.
    pub write_timeout: Duration,
    /// Maximum number of open connections per address; IPv6 addresses of one /64 network count as one.
    pub connections_per_address: usize,
    /// Time after the stop signal for which the gateway still answers but is not ready.
    pub drain: Duration,
    /// Accepted host names, in addition to addresses and localhost. If empty, every name is accepted, except by a listener that answers
    /// without keys.
    pub hosts: Vec<String>,
    /// Whether a listener beyond loopback also answers without keys, because other means restrict access to it.
    pub trust_network: bool,
    /// Maximum length of the event stream, and maximum number of known event ids.
    pub events: Limits,
    /// API keys. Without them, a listener on loopback answers all routes. Other listeners answer only routes that read no user data and
    /// change nothing.
    pub keys: Option<Keys>,
    /// Origins whose pages may send requests; `*` for all.
    pub origins: Vec<String>,
    /// Destination of traces.
    pub traces: Traces,
}

impl Settings {
    /// Default settings, for a Triton server on its usual ports and this store.
    pub fn new(store: saker_store::Settings) -> Self {
        Self {
            triton: "127.0.0.1:8001".to_owned(),
            resolve_every: Duration::from_secs(5),
            resolver: Resolver::default(),
            triton_http: "127.0.0.1:8000".to_owned(),
            connections: 1,
            store,
            store_deadline: Duration::from_millis(100),
            users: None,
            activity: Vec::new(),
            user_input: tensor::USER_ID.to_owned(),
            context_inputs: vec![tensor::DEVICE_TYPE.to_owned(), tensor::TIMESTAMP.to_owned()],
            candidates: 300,
            deadline: Duration::from_millis(150),
            max_in_flight: 256,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            connections_per_address: 512,
            drain: Duration::ZERO,
            hosts: Vec::new(),
            trust_network: false,
            events: Limits::default(),
            keys: None,
            origins: Vec::new(),
            traces: Traces::off(),
        }
    }
}
