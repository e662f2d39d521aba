//! What the servers say of themselves.

use anyhow::Result;
use chrono::{DateTime, Utc};
use object_store::PutMode;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{Registry, check_name, json};

pub(super) const FOLDER: &str = "servers";

/// How far a server is with the wanted release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is being fetched, loaded or switched to.
    Working,
    /// It is loaded, the canary has answered, and the one before serves.
    Loaded,
    /// It serves.
    Serving,
    /// It does not serve here: see [`Report::error`].
    Refused,
}

/// `servers/<server>.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The server.
    pub server: String,
    /// The move that it has seen.
    pub generation: u64,
    /// How far it is with the release of that move.
    pub state: State,
    /// The release that serves.
    pub serving: Option<String>,
    /// Why it refuses the wanted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Seconds between two reports.
    pub every: f64,
}

/// A report and when the storage took it.
#[derive(Clone, Debug)]
pub struct Reported {
    /// What the server says.
    pub report: Report,
    /// By the storage's clock.
    pub at: DateTime<Utc>,
}

impl Reported {
    /// Whether the server still reports at a time of the storage's clock: it has missed at most two reports.
    pub fn is_current(&self, now: DateTime<Utc>) -> bool {
        const SLACK: f64 = 5.0;
        let age = (now - self.at).as_seconds_f64();
        age <= 3.0 * self.report.every + SLACK
    }
}

impl Registry {
    pub(super) fn report_path(&self, server: &str) -> Path {
        self.path(&[FOLDER, &format!("{server}.json")])
    }

    /// Writes a server's report in place of its last one.
    ///
    /// # Errors
    /// The storage does not take it, or the server's name cannot name an object.
    pub fn report(&self, report: &Report) -> Result<()> {
        check_name(&report.server)?;
        let path = self.report_path(&report.server);
        self.write(&path, json(report)?, PutMode::Overwrite)?;
        Ok(())
    }

    /// Removes a server's report: it stops.
    ///
    /// # Errors
    /// The storage does not answer.
    pub fn leave(&self, server: &str) -> Result<()> {
        self.delete(&self.report_path(server))
    }

    /// What every server last reported, by name.
    ///
    /// # Errors
    /// The storage does not answer, or a report is damaged.
    pub fn reports(&self) -> Result<Vec<Reported>> {
        let mut found = self.list(FOLDER)?;
        found.sort_by(|one, other| one.location.cmp(&other.location));
        let mut reports = Vec::new();
        for meta in found {
            // One that has gone since is as good as one that was not listed.
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
