//! A server that answers the `BF.*` commands, which the installed Valkey lacks: fakeredis, a Python
//! stand-in that speaks the real protocol.

use anyhow::Result;

use crate::{runtime, stand_in::StandIn};

const PROGRAM: &str = r#"
import sys
from fakeredis import TcpFakeServer

server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="valkey")
server.daemon_threads = True
server.serve_forever()
"#;

/// A running stand-in; it is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub struct BloomServer(StandIn);

impl BloomServer {
    /// Starts the server on a free TCP port.
    ///
    /// # Errors
    /// Returns an error if the Python clients are not installed (the message says how to get them), or the server does not come
    /// up.
    pub fn start() -> Result<Self> {
        StandIn::start("the BF.* server", &runtime::python()?, PROGRAM).map(Self)
    }

    /// The address of a database.
    #[must_use]
    pub fn url(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.0.port)
    }
}
