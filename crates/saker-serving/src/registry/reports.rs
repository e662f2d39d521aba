//! Reports of the servers.

use anyhow::Result;
use chrono::{DateTime, Utc};
use object_store::PutMode;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{Registry, check_name, json};

const FOLDER: &str = "servers";

/// State of the wanted release on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The server fetches it, loads it or switches to it.
    Working,
    /// It is loaded and has answered the canary requests; the previous release serves.
    Loaded,
    /// It serves.
    Serving,
    /// The server refuses it: see [`Report::error`].
    Refused,
}

/// `servers/<server>.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The server.
    pub server: String,
    /// The latest move that the server has seen.
    pub generation: u64,
    /// State of that move's release.
    pub state: State,
    /// The release that serves.
    pub serving: Option<String>,
    /// Why the server refuses the wanted release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Seconds between two reports.
    pub every: f64,
}

/// A report and the time of its write.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The report.
    pub report: Report,
    /// Time of the write by the storage's clock.
    pub at: DateTime<Utc>,
}

impl Reported {
    /// Whether the server still reports at this time of the storage's clock: it has missed at most two reports.
    pub fn is_current(&self, now: DateTime<Utc>) -> bool {
        const SLACK: f64 = 5.0;
        let age = (now - self.at).as_seconds_f64();
        age <= 3.0 * self.report.every + SLACK
    }
}

impl Registry {
    fn report_path(&self, server: &str) -> Path {
        self.path(&[FOLDER, &format!("{server}.json")])
    }

    /// Writes a server's report, which replaces its last one.
    ///
    /// # Errors
    /// Returns an error if the storage refuses the write, or if the server's name cannot name an object.
    pub fn report(&self, report: &Report) -> Result<()> {
        check_name(&report.server)?;
        let path = self.report_path(&report.server);
        self.write(&path, json(report)?, PutMode::Overwrite)?;
        Ok(())
    }

    /// Removes the report of a server that stops.
    ///
    /// # Errors
    /// Returns an error if the storage does not answer.
    pub fn leave(&self, server: &str) -> Result<()> {
        self.delete(&self.report_path(server))
    }

    /// The latest report of every server, by name.
    ///
    /// # Errors
    /// Returns an error if the storage does not answer or a report is damaged.
    pub fn reports(&self) -> Result<Vec<Reported>> {
        let mut found = self.list(FOLDER)?;
        found.sort_by(|one, other| one.location.cmp(&other.location));
        let mut reports = Vec::new();
        for meta in found {
            // Treat a report that was removed since the listing as not listed.
            if let Some(report) = self.read_json(&meta.location)? {
                reports.push(Reported {
                    report,
                    at: meta.last_modified,
                });
            }
        }
        Ok(reports)
    }
}
