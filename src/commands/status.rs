use anyhow::Result;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use saker_contract::Step;
use saker_contract::release::INDEX;
use saker_run::server;
use saker_serving::installed;
use saker_serving::layout::Layout;
use saker_serving::running::Running;
use saker_serving::target::Target;
use serde_json::{Value, json};
use triton_client::Triton;

use super::serve::is_ready;

/// Arguments of `saker status`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker status\n  saker status retail\n  saker status --json | jq .ready"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Print what runs as a JSON object
    #[arg(long)]
    json: bool,
}

/// The processes of `saker serve`, by their names in `run/`.
const PARTS: [&str; 4] = ["valkey", "triton", "updater", "gateway"];

/// Prints the existing artefacts and processes, and the commands for the missing ones.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    if args.json {
        println!("{}", running(&layout, name));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut row = |what: &str, state: String| {
        table.add_row([what.to_owned(), state]);
    };
    let part = |found: Result<std::path::PathBuf>| match found {
        Ok(path) => path.display().to_string(),
        Err(error) => format!("missing: {error:#}"),
    };
    row("triton", part(installed::tritonserver()));
    row("valkey", part(installed::valkey_server()));
    row("backends", part(installed::backends()));
    let made = |path: std::path::PathBuf, command: &str| {
        if path.exists() {
            path.display().to_string()
        } else {
            format!("not made yet: saker {command} {name}")
        }
    };
    row("features", made(layout.schema(), "prepare"));
    row("models", made(layout.model(Step::Ranking.model()), "train"));
    row("index", made(layout.index(), "index"));
    row("repository", repository(&layout, name));
    let (address, _) = server::address(&pipeline.store.redis_url);
    let answers = if server::listens(&address) {
        "answers"
    } else {
        "does not answer"
    };
    row("store", format!("{address} {answers}"));
    row("server", server_state(&layout, name));
    println!("{table}");
    Ok(())
}

/// The running processes: `ready` once all processes of `saker serve` are ready, and each process with its ports.
fn running(layout: &Layout, name: &str) -> Value {
    let part = |part: &str| match Running::find(layout, part) {
        Some(running) => json!({ "process": running.id, "ports": running.ports }),
        None => Value::Null,
    };
    let parts: serde_json::Map<String, Value> = PARTS
        .iter()
        .map(|name| ((*name).to_owned(), part(name)))
        .collect();
    json!({ "pipeline": name, "ready": is_ready(layout), "processes": parts })
}

fn repository(layout: &Layout, name: &str) -> String {
    let text = std::fs::read(layout.repository().join(INDEX)).unwrap_or_default();
    match serde_json::from_slice::<serde_json::Value>(&text) {
        Ok(releases) => format!(
            "{}, releases {}",
            layout.repository().display(),
            releases["releases"]
        ),
        Err(_) => format!("not made yet: saker assemble {name}"),
    }
}

fn server_state(layout: &Layout, name: &str) -> String {
    let Some(running) = Running::find(layout, "triton") else {
        return format!("does not run: saker serve {name} --detach");
    };
    let Some(ports) = running.ports else {
        return format!("process {}", running.id);
    };
    let ready = Triton::new(&format!("127.0.0.1:{}", ports.http)).is_ready();
    format!(
        "process {}, port {}, {}",
        running.id,
        ports.http,
        if ready { "ready" } else { "not ready" }
    )
}
