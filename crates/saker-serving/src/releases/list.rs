//! Lists the releases of a repository and their states.

use anyhow::Result;
use serde_json::{Value, json};
use triton_client::{ModelVersion, Triton};

use super::promote::server_pins;
use super::repository::Index;
use super::{Manifest, Repository};

/// A release in the list.
pub struct Row {
    /// Its version number.
    pub version: u64,
    /// Its id.
    pub release: String,
    /// Serving, loaded, on disk, or failed and why.
    pub state: String,
    /// Its manifest, if it can be read.
    pub manifest: Option<Manifest>,
}

/// The list for the gateway's operators.
///
/// # Errors
/// Returns an error as [`rows`] does.
pub fn list(repository: &Repository, triton: Option<&Triton>) -> Result<Value> {
    Ok(all(&rows(repository, triton)?))
}

/// All of them as JSON.
pub fn all(rows: &[Row]) -> Value {
    rows.iter().map(Row::json).collect()
}

/// The releases of a repository, newest first, with their states in the server.
///
/// # Errors
/// Returns an error if the repository is damaged or the server does not answer.
pub fn rows(repository: &Repository, triton: Option<&Triton>) -> Result<Vec<Row>> {
    let index = repository.index()?;
    let server = triton.map(Server::ask).transpose()?;
    let serving = repository.serving()?;
    let mut rows = Vec::new();
    for (&version, release) in index.releases.iter().rev() {
        let manifest = repository.manifest(version);
        if let Err(error) = &manifest {
            tracing::warn!("{error:#}");
        }
        rows.push(Row {
            version,
            release: release.clone(),
            state: state(repository, &index, server.as_ref(), serving, version)?,
            manifest: manifest.ok(),
        });
    }
    Ok(rows)
}

/// The states in the running server.
struct Server {
    pins: u64,
    models: Vec<ModelVersion>,
}

impl Server {
    fn ask(triton: &Triton) -> Result<Self> {
        Ok(Self {
            pins: server_pins(triton)?,
            models: triton.models()?,
        })
    }
}

fn state(
    repository: &Repository,
    index: &Index,
    server: Option<&Server>,
    serving: u64,
    version: u64,
) -> Result<String> {
    let Some(server) = server else {
        return Ok(match (version == serving, index.failed.get(&version)) {
            (true, _) => "serves when started".to_owned(),
            (_, Some(why)) => format!("failed: {why}"),
            _ => "on disk".to_owned(),
        });
    };
    let loaded = |model: &String| {
        let mut known = server.models.iter();
        known.any(|known| known.model == *model && known.version == version && known.ready)
    };
    Ok(if version == server.pins {
        "serving".to_owned()
    } else if let Some(why) = index.failed.get(&version) {
        format!("failed: {why}")
    } else if repository.models()?.iter().all(loaded) {
        "loaded".to_owned()
    } else if version == serving {
        "serves after a restart".to_owned()
    } else {
        "on disk".to_owned()
    })
}

impl Row {
    fn json(&self) -> Value {
        let manifest = self.manifest.as_ref();
        json!({
            "version": self.version,
            "release": self.release,
            "state": self.state,
            "created": manifest.map(|manifest| manifest.created),
            "data": manifest.and_then(|manifest| manifest.record.data),
            "metrics": manifest.and_then(|manifest| manifest.record.metrics.clone()),
            "labels": manifest.map(|manifest| &manifest.record.labels),
        })
    }
}
