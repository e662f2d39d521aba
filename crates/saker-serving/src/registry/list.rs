//! Lists the releases of a store, and on how many servers each serves.

use anyhow::Result;
use chrono::Utc;

use super::{Registry, Reported, Stage, State};
use crate::releases::list::Row;

impl Registry {
    /// The releases, newest first.
    ///
    /// # Errors
    /// Returns an error if the storage does not answer or an object is damaged.
    pub fn rows(&self) -> Result<Vec<Row>> {
        let wanted = self.wanted()?;
        let reports = self.reports()?;
        // The newest report approximates the current time of the storage's clock.
        let now = reports
            .iter()
            .map(|it| it.at)
            .max()
            .unwrap_or_else(Utc::now);
        let current: Vec<&Reported> = reports.iter().filter(|it| it.is_current(now)).collect();
        let mut rows = Vec::new();
        for id in self.releases()?.into_iter().rev() {
            let manifest = self.release(&id, None)?.0.manifest;
            let serving = current
                .iter()
                .filter(|it| it.report.serving.as_ref() == Some(&id))
                .count();
            let is_wanted = wanted.as_ref().filter(|wanted| wanted.to.release == id);
            let refusing = current
                .iter()
                .filter(|it| is_wanted.is_some() && it.report.state == State::Refused)
                .count();
            let mut state = match is_wanted.map(|wanted| wanted.stage) {
                Some(Stage::Load) => vec!["being tried out".to_owned()],
                Some(Stage::Serve) => vec!["wanted".to_owned()],
                None => Vec::new(),
            };
            if serving > 0 {
                state.push(format!("serves on {serving} of {} servers", current.len()));
            }
            if refusing > 0 {
                state.push(format!("refused by {refusing}"));
            }
            if state.is_empty() {
                state.push("published".to_owned());
            }
            rows.push(Row {
                version: manifest.version,
                release: id,
                state: state.join(", "),
                manifest: Some(manifest),
            });
        }
        Ok(rows)
    }
}
