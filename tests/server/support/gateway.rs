//! A gateway before the golden pipeline, within the test.

use std::sync::Arc;
use std::time::Duration;

use saker_gateway::catalogue::{Column, Item};
use saker_gateway::{DisplayCatalogue, Gateway, Operation, Settings};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::golden::Golden;

/// It serves until it is dropped.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) agent: ureq::Agent,
    _runtime: Runtime,
}

impl Served {
    /// A gateway with a catalogue of one item, 1. `patience` is how long a client waits for an answer.
    pub(crate) fn start(
        golden: &Golden,
        patience: Duration,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let store = golden.valkey.url(0);
        let store = saker_store::Settings::parse(store.trim_end_matches("/0"), None);
        let mut settings = Settings::new(store.expect("a URL"));
        change(&mut settings);
        let column = Column {
            name: "category_l1".to_owned(),
            names: Vec::new(),
        };
        let item = Item {
            id: 1,
            ..Item::default()
        };
        let catalogue = DisplayCatalogue::new(vec![column], [item], [], |_| serde_json::Map::new());
        let runtime = Runtime::new().expect("a runtime");
        let url = runtime.block_on(async {
            let gateway = Gateway::open(settings, catalogue, Arc::new(Operation::default));
            let gateway = gateway.expect("a gateway");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(async move { gateway.serve(listener, std::future::pending()).await });
            format!("http://{address}")
        });
        let agent = ureq::Agent::config_builder().timeout_global(Some(patience));
        Self {
            url,
            agent: agent.build().into(),
            _runtime: runtime,
        }
    }
}
