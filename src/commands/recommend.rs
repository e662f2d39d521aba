use anyhow::{Context, Result, anyhow, bail};
use clap::builder::NonEmptyStringValueParser;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, LineStyle, Table};
use saker_contract::RawId;
use saker_contract::ensemble::{ENSEMBLE, FUSED};
use saker_contract::tensor::{DEVICE_TYPE, ORDERED_IDS, ORDERED_SCORES, RELEASE, TIMESTAMP};
use saker_serving::counters::Counters;
use saker_serving::prepared_tables::PreparedTables;
use saker_serving::running::Running;
use saker_serving::target::Target;
use serde_json::json;

use super::explain::Timing;
use triton_client::{Error, Tensor, Triton, steps};

/// Arguments of `saker recommend`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker recommend --user 42\n  saker recommend --user 42 --explain\n  saker recommend --user 42 --fused\n  \
    saker recommend --user 42 --device 1 --time 893286638 --json\n  saker recommend --user 42 --server triton.shop:8000"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// User id; an unknown id gets a cold start
    #[arg(long, short, allow_negative_numbers = true)]
    user: i32,
    /// Device: 0 mobile, 1 desktop, 2 tablet [default: not sent, unknown]
    #[arg(long, allow_negative_numbers = true)]
    device: Option<i32>,
    /// Unix seconds, UTC [default: not sent, the server's time]
    #[arg(long)]
    time: Option<i32>,
    /// Show at most this many items
    #[arg(long)]
    k: Option<usize>,
    /// Show the output and duration of each step
    #[arg(long)]
    explain: bool,
    /// Ask the fused ensemble, which gives the same answer in one step
    #[arg(long)]
    fused: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Triton's HTTP address [default: that of the running `saker serve`, otherwise 127.0.0.1:8000]
    #[arg(long, value_name = "HOST:PORT", env = "SAKER_SERVER", value_parser = NonEmptyStringValueParser::new())]
    server: Option<String>,
    /// Port of `saker serve`, used if no state file names it
    #[arg(long, env = "SAKER_HTTP_PORT", default_value_t = 8000, hide = true)]
    http_port: u16,
}

/// Sends the request and prints the answer.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let ports = Running::find(&layout, "triton").and_then(|running| running.ports);
    let server = args.server.clone().unwrap_or_else(|| {
        let port = ports.map_or(args.http_port, |ports| ports.http);
        format!("127.0.0.1:{port}")
    });
    // If another program started the server, its metrics port is unknown.
    let metrics = ports
        .filter(|_| args.server.is_none())
        .map(|ports| format!("127.0.0.1:{}", ports.metrics));
    let triton = Triton::new(&server);
    let mut request = vec![Tensor::int32(&pipeline.user.id, &[args.user])];
    for (name, value) in [(DEVICE_TYPE, args.device), (TIMESTAMP, args.time)] {
        let Some(value) = value else { continue };
        if !pipeline
            .context
            .columns
            .iter()
            .any(|column| column.name == name)
        {
            bail!(
                "{} has no [[context.columns]] {name}",
                pipeline.pipeline.name
            );
        }
        request.push(Tensor::int32(name, &[value]));
    }

    let ensemble = if args.fused { FUSED } else { ENSEMBLE };
    let before = metrics.as_deref().map(Counters::read).transpose()?;
    let (answer, timings) = if args.explain {
        let explained = steps::explain(&triton, ensemble, &request).map_err(with_hint)?;
        let timings = Timing::of(ensemble, &explained);
        (explained.answer, Some(timings))
    } else {
        (triton.infer(ensemble, &request).map_err(with_hint)?, None)
    };
    let after = metrics.as_deref().map(Counters::read).transpose()?;
    let degraded = match (&before, &after) {
        (Some(before), Some(after)) => after.degraded_since(before),
        _ => Vec::new(),
    };
    let tensor = |name: &str| {
        answer
            .iter()
            .find(|tensor| tensor.name == name)
            .with_context(|| format!("the answer has no {name}"))
    };
    let ids = tensor(ORDERED_IDS)?.int32s()?;
    let scores = tensor(ORDERED_SCORES)?.float32s()?;
    let answered: Vec<(i32, f32)> = ids
        .into_iter()
        .zip(scores)
        .filter(|(id, _)| RawId::is_item(*id))
        .take(args.k.unwrap_or(usize::MAX))
        .collect();
    let catalogue = PreparedTables::read(&pipeline, &layout);
    if args.json {
        let items: Vec<_> = answered
            .iter()
            .map(|(id, score)| json!({ "id": id, "score": score, "item": catalogue.item(*id) }))
            .collect();
        // A repository that another program assembled may lack the release.
        let release = tensor(RELEASE)
            .ok()
            .and_then(|release| release.texts().ok());
        let mut printed = json!({ "user": args.user, "items": items, "degraded": degraded });
        if let Some(release) = release {
            printed["release"] = release.concat().into();
        }
        if let Some(timings) = timings {
            printed["steps"] = timings.iter().map(Timing::json).collect();
        }
        println!("{printed:#}");
        return Ok(());
    }
    println!("{}", catalogue.user(args.user));
    println!("{}", items(&catalogue, &answered));
    if !degraded.is_empty() {
        println!(
            "degraded: {} had no answer from the store within the deadline, so user features may be those of a \
             newcomer, and seen items may be shown; `saker status` tells whether the store is up",
            degraded.join(", ")
        );
    }
    if answered.is_empty() {
        println!("nothing to recommend: every candidate is seen, or the index is empty");
    }
    if let Some(timings) = timings {
        println!("{}", times(&timings));
    }
    Ok(())
}

/// Adds the next step to the error if no server answers.
fn with_hint(error: Error) -> anyhow::Error {
    match error {
        Error::Unreachable { .. } => {
            anyhow!("{error}; start it with `saker serve --detach`, or name another with --server")
        }
        other => other.into(),
    }
}

fn items(catalogue: &PreparedTables, answered: &[(i32, f32)]) -> Table {
    let mut table = plain();
    let mut header = vec!["#".to_owned(), "id".to_owned()];
    header.extend(catalogue.item_columns().map(str::to_owned));
    header.push("score".to_owned());
    let columns = header.len();
    table.set_header(header);
    for (place, (id, score)) in answered.iter().enumerate() {
        let mut row = vec![(place + 1).to_string(), id.to_string()];
        row.extend(catalogue.item_texts(*id));
        row.push(format!("{score:.4}"));
        table.add_row(row);
    }
    align_right(&mut table, [0, 1, columns - 1]);
    table
}

fn times(timings: &[Timing]) -> Table {
    let mut table = plain();
    table.set_header([
        "step",
        "answers",
        "queue ms",
        "input ms",
        "infer ms",
        "output ms",
    ]);
    for timing in timings {
        let mut row = vec![timing.model.clone(), timing.answers.clone()];
        row.extend(
            timing
                .nanoseconds
                .iter()
                .map(|ns| format!("{:.3}", *ns as f64 / 1e6)),
        );
        table.add_row(row);
    }
    align_right(&mut table, 2..6);
    table
}

/// A plain table: a line under the header, no frame.
pub(super) fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
    table
}

/// Aligns columns of numbers.
pub(super) fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
