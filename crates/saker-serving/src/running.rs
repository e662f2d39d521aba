//! The processes that `saker serve` started on this machine.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// Triton's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// KServe v2 over HTTP.
    pub http: u16,
    /// KServe v2 over gRPC.
    pub grpc: u16,
    /// Prometheus.
    pub metrics: u16,
}

/// A process that `saker serve` started: the content of `run/<name>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// Its process id.
    pub id: i32,
    /// The program. It distinguishes the process from a later one with the same id.
    pub program: String,
    /// Triton's ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
}

impl Running {
    /// Triton's address for this machine's clients.
    pub fn http(&self) -> Option<String> {
        self.ports.map(|ports| format!("127.0.0.1:{}", ports.http))
    }

    /// The process that was started under this name, if it still runs.
    pub fn find(layout: &Layout, name: &str) -> Option<Self> {
        let text = fs::read(Self::file(layout, name)).ok()?;
        let running: Self = serde_json::from_slice(&text).ok()?;
        running.is_alive().then_some(running)
    }

    /// Whether the process still runs and is the program that was started.
    pub fn is_alive(&self) -> bool {
        let program = fs::read(format!("/proc/{}/cmdline", self.id)).unwrap_or_default();
        let program = program.split(|byte| *byte == 0).next().unwrap_or_default();
        // The command line of a zombie process is empty.
        !program.is_empty() && String::from_utf8_lossy(program).contains(&self.program)
    }

    /// The file of a process.
    pub fn file(layout: &Layout, name: &str) -> PathBuf {
        layout.run().join(format!("{name}.json"))
    }
}
