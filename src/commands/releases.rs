use std::path::PathBuf;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use saker_assemble::utc;
use saker_models::verdict::ranked_list;
use saker_serving::files;
use saker_serving::registry::Registry;
use saker_serving::releases::Manifest;
use saker_serving::releases::list::{Row, all, rows};
use saker_serving::target::Target;
use serde_json::json;

use super::promote::Place;

/// Arguments of `saker releases`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker releases\n  saker releases retail --json\n  saker releases --from s3://shop/releases\n\n\
    States: serving; loaded (a rollback takes no load); on disk; failed, and why. Metrics are those of the ranked list \
    that `saker evaluate` had measured when the release was assembled."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    place: Place,
    /// List the releases of a store, and the number of servers that serve each: a folder, file:// or s3://bucket/prefix
    #[arg(long, value_name = "URL", conflicts_with_all = ["repository", "server"])]
    from: Option<String>,
    /// With --from: print only this label of the wanted release
    #[arg(long, value_name = "KEY", requires = "from", conflicts_with = "json")]
    label: Option<String>,
    /// With --label: write the label to this file instead of printing it
    #[arg(long, value_name = "FILE", requires = "label")]
    output: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Lists the releases, the newest first.
pub(super) fn run(args: &Args) -> Result<()> {
    if let (Some(location), Some(key)) = (&args.from, &args.label) {
        let label = label(location, key)?;
        return match &args.output {
            Some(path) => files::write(path, label),
            None => {
                println!("{label}");
                Ok(())
            }
        };
    }
    let rows = match &args.from {
        Some(location) => Registry::open(location)?.rows()?,
        None => {
            let (_, layout) = args.target.open()?;
            let (repository, triton) = args.place.open(&layout)?;
            rows(&repository, triton.as_ref())?
        }
    };
    if args.json {
        println!("{:#}", json!({ "releases": all(&rows) }));
    } else {
        println!("{}", table(&rows));
    }
    Ok(())
}

/// A label of the release that a store's servers should serve.
fn label(location: &str, key: &str) -> Result<String> {
    let served = Registry::open(location)?.served()?;
    let served = served.with_context(|| {
        format!("no release of {location} is to be served yet; `saker promote --to` makes one")
    })?;
    let Manifest {
        release, record, ..
    } = served.manifest;
    record.labels.get(key).cloned().with_context(|| {
        format!("{release} has no label {key}; `saker assemble --label {key}=…` gives it one")
    })
}

/// A metric of the ranked list.
fn metric(row: &Row, path: &str) -> String {
    let metrics = row
        .manifest
        .as_ref()
        .and_then(|m| m.record.metrics.as_ref());
    let ranked = metrics.and_then(ranked_list);
    let number = ranked.and_then(|ranked| ranked.pointer(path)?.as_f64());
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.4}"))
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
            metric(row, "/list/ndcg_10"),
            metric(row, "/list/hit_10"),
            metric(row, "/auc"),
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
