use anyhow::Result;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::Target;
use super::promote::Place;
use crate::assemble::utc;
use crate::releases::promote::server_pins;
use crate::releases::repository::Index;
use crate::releases::{Manifest, Repository};
use triton_client::{ModelVersion, Triton};

/// Arguments of `saker releases`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker releases\n  saker releases retail --json\n\n\
    States: serving; loaded (a rollback takes no load); on disk; failed, and why. Metrics are those of the ranked list \
    that `saker evaluate` had measured when the release was assembled."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    place: Place,
    /// Print JSON in place of a table
    #[arg(long)]
    json: bool,
}

/// A release in the list.
struct Row {
    version: u64,
    release: String,
    state: String,
    manifest: Option<Manifest>,
}

/// Lists the releases, the newest first.
pub(super) fn run(args: &Args) -> Result<()> {
    let (_, layout) = args.target.open()?;
    let (repository, triton) = args.place.open(&layout)?;
    let rows = rows(&repository, triton.as_ref())?;
    if args.json {
        println!("{:#}", json!({ "releases": all(&rows) }));
    } else {
        println!("{}", table(&rows));
    }
    Ok(())
}

/// The same list for the gateway's operators.
pub(super) fn list(repository: &Repository, triton: Option<&Triton>) -> Result<Value> {
    Ok(all(&rows(repository, triton)?))
}

fn all(rows: &[Row]) -> Value {
    rows.iter().map(Row::json).collect()
}

fn rows(repository: &Repository, triton: Option<&Triton>) -> Result<Vec<Row>> {
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

/// What the running server says.
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
        })
    }

    /// A metric of the ranked list.
    fn metric(&self, path: &str) -> String {
        let metrics = self
            .manifest
            .as_ref()
            .and_then(|m| m.record.metrics.as_ref());
        let methods = metrics.and_then(|metrics| metrics["methods"].as_array());
        let ranked = methods
            .into_iter()
            .flatten()
            .find(|m| m["method"] == "ranked list");
        let number = ranked.and_then(|ranked| ranked.pointer(path)?.as_f64());
        number.map_or_else(|| "–".to_owned(), |number| format!("{number:.4}"))
    }
}

/// Unix seconds as `2026-03-14 15:09`, UTC.
fn moment(seconds: u64) -> String {
    let utc = utc(seconds);
    let part = |range: std::ops::Range<usize>| utc.get(range).unwrap_or_default();
    format!(
        "{}-{}-{} {}:{}",
        part(0..4),
        part(4..6),
        part(6..8),
        part(9..11),
        part(11..13)
    )
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "version",
        "release",
        "created",
        "trained on",
        "NDCG@10",
        "hit@10",
        "AUC",
        "state",
    ]);
    for row in rows {
        let manifest = row.manifest.as_ref();
        let unknown = || "–".to_owned();
        let window = manifest.and_then(|manifest| manifest.record.data);
        let window = window.map(|window| {
            let day = |seconds: i64| moment(seconds.max(0) as u64)[..10].to_owned();
            format!(
                "{} – {}, {} events",
                day(window.first),
                day(window.last),
                window.interactions
            )
        });
        table.add_row([
            row.version.to_string(),
            row.release.clone(),
            manifest.map_or_else(unknown, |manifest| moment(manifest.created)),
            window.unwrap_or_else(unknown),
            row.metric("/list/ndcg_10"),
            row.metric("/list/hit_10"),
            row.metric("/auc"),
            row.state.clone(),
        ]);
    }
    for column in [0, 4, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn moments_are_dates_and_times() {
        assert_eq!(moment(951_782_400), "2000-02-29 00:00");
        assert_eq!(moment(1_773_500_966), "2026-03-14 15:09");
    }
}
