//! A server that answers as S3 does: moto, a Python stand-in that speaks the real protocol.

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{runtime, stand_in::StandIn};

const PROGRAM: &str = r#"
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]))
server._server_entry()
"#;

/// A running stand-in with one bucket; it is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub struct S3Server(StandIn);

impl S3Server {
    /// The bucket there is.
    pub const BUCKET: &str = "shop";

    /// Starts the server on a free TCP port.
    ///
    /// # Errors
    /// Returns an error if the stand-in is not installed (the message says how to get it), or the server does not come up.
    pub fn start() -> Result<Self> {
        let server = StandIn::start("the S3 server", &runtime::peers_python()?, PROGRAM)?;
        ureq::put(format!("http://127.0.0.1:{}/{}", server.port, Self::BUCKET))
            .send_empty()
            .context("no bucket can be made")?;
        Ok(Self(server))
    }

    /// Sends the server a signal: `STOP` suspends it, `CONT` resumes it.
    ///
    /// # Panics
    /// Panics if the server has ended.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal).expect("the S3 server runs");
    }

    /// The settings of a client, by the names of the AWS clients' environment variables.
    #[must_use]
    pub fn settings(&self) -> [(String, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.0.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}
