//! A server that answers the `BF.*` commands, which the installed Valkey lacks: fakeredis, a Python
//! stand-in that speaks the real protocol.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    process::{Server, free_port},
    runtime,
};

const PROGRAM: &str = r#"
import sys
from fakeredis import TcpFakeServer

server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="valkey")
server.daemon_threads = True
server.serve_forever()
"#;

/// A running stand-in; it is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub struct BloomServer {
    // First, so that the server ends before its folder goes.
    _process: Server,
    port: u16,
    _folder: tempfile::TempDir,
}

impl BloomServer {
    /// Starts the server on a free TCP port.
    ///
    /// # Errors
    /// The Python clients are not installed (the message says how to get them), or the server does not
    /// come up.
    pub fn start() -> Result<Self> {
        let python = runtime::python()?;
        let folder = tempfile::Builder::new().prefix("saker-bloom-").tempdir()?;
        let log = folder.path().join("server.log");
        let port = free_port()?;
        let arguments = ["-c", PROGRAM, &port.to_string()];
        let mut process = Server::spawn(&python, arguments, &[], &log)?;
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if !process.is_alive() || start.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("the BF.* server does not come up:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            _process: process,
            port,
            _folder: folder,
        })
    }

    /// The address of a database.
    #[must_use]
    pub fn url(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }
}
