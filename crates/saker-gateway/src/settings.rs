//! Where everything is, deadlines and limits.

use std::time::Duration;

use saker_store::events::Limits;
use saker_store::feast::FeatureView;
use saker_traces::Traces;
use triton_client::balance::Resolver;

use crate::access::Keys;

/// How a gateway is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Triton's gRPC services: `HOST:PORT` or `dns://NAME:PORT`, several of them separated by commas.
    pub triton: String,
    /// The time between two resolutions of a `dns://` name.
    pub resolve_every: Duration,
    /// What resolves such names.
    pub resolver: Resolver,
    /// `host:port` of Triton's HTTP service, which explanations go through.
    pub triton_http: String,
    /// How many gRPC connections are kept to each Triton.
    pub connections: usize,
    /// The store; its databases are chosen here.
    pub store: saker_store::Settings,
    /// How long a call of the store may take.
    pub store_deadline: Duration,
    /// The users' features in the store.
    pub users: Option<FeatureView>,
    /// The views that the updater writes of a user, such as that of the top category: who wants to be forgotten is taken out of
    /// them.
    pub activity: Vec<FeatureView>,
    /// The ensemble's input of the user's id.
    pub user_input: String,
    /// Which of `device_type` and `timestamp` the ensemble takes.
    pub context_inputs: Vec<String>,
    /// How many candidates a request brings to the filter of seen items.
    pub candidates: usize,
    /// How long Triton's answer may take before popular items are answered.
    pub deadline: Duration,
    /// How many requests may be on their way to Triton.
    pub max_in_flight: usize,
    /// How long a client may take to send a request's headers, and how long an unused connection is kept.
    pub header_timeout: Duration,
    /// How long a client may take to read an answer, or, of a large one, a part of it.
    pub write_timeout: Duration,
    /// How many connections one address may have open; IPv6 addresses of one /64 network count as one.
    pub connections_per_address: usize,
    /// How long the gateway goes on answering, while it is not ready, once it is told to stop.
    pub drain: Duration,
    /// Names that clients may call the gateway by, beside addresses and localhost. Without any, every name is accepted, but not by
    /// a listener that answers without keys.
    pub hosts: Vec<String>,
    /// Whether a listener that is not on loopback answers without keys, too, since others decide who reaches it.
    pub trust_network: bool,
    /// How many events may wait in the stream, and of how many the ids are known.
    pub events: Limits,
    /// API keys. Without them everybody may ask a listener on loopback for everything, and others for what concerns no user and
    /// changes nothing.
    pub keys: Option<Keys>,
    /// Origins whose pages may ask; `*` for all.
    pub origins: Vec<String>,
    /// Where traces are recorded.
    pub traces: Traces,
}

impl Settings {
    /// Those of a gateway beside Triton's usual ports and this store.
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
            user_input: "user_id".to_owned(),
            context_inputs: vec!["device_type".to_owned(), "timestamp".to_owned()],
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
