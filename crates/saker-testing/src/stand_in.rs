//! Python stand-ins for servers that cannot be installed, started for one test.

use std::{
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::Signal;

use triton_testing::{ports::free_port, process::ServerProcess};

/// A running program; it is killed on drop, and when this process ends in whatever way.
#[derive(Debug)]
pub(crate) struct StandIn {
    // First, so that the server ends before its folder goes.
    process: ServerProcess,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl StandIn {
    /// Runs a program's text, whose one argument is the port to listen at, and waits until it does.
    pub(crate) fn start(what: &str, python: &Path, program: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("saker-").tempdir()?;
        let log = folder.path().join("server.log");
        let port = free_port()?;
        let arguments = ["-c", program, &port.to_string()];
        let mut process = ServerProcess::spawn(python, arguments, &[], &log)?;
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if !process.is_alive() || start.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{what} does not come up:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            process,
            port,
            _folder: folder,
        })
    }

    /// Sends the server a signal: `STOP` suspends it, `CONT` resumes it.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}
