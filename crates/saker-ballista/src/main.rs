//! `saker-ballista`: the tables and features of `saker prepare`, with the interactions read and sorted, and the values counted, by a
//! Ballista cluster.
//!
//! `saker prepare --engine ballista://…` starts it. It is a program of its own so that nobody else compiles Ballista.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ballista::prelude::SessionContextExt;
use clap::Parser;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use saker_bulk::Engine;
use saker_prepare::limits::Limits;
use saker_serving::programs;
use saker_serving::target::Target;

/// How long a scheduler may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Prepares a dataset's tables and features with a Ballista cluster; `saker prepare --engine ballista://HOST:PORT` runs this program
///
/// Prints a summary as JSON. Embedding tables are left to `saker prepare`.
#[derive(Debug, Parser)]
#[command(name = "saker-ballista", version)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Address of the cluster's scheduler
    #[arg(long, value_name = "HOST:PORT")]
    scheduler: String,
    /// Number of parts that the cluster divides its work into
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    partitions: u64,
    #[command(flatten)]
    limits: Limits,
    /// Exit with an error unless this program was built from the sources of this hash
    #[arg(long, value_name = "HASH", hide = true)]
    code: Option<String>,
    /// Log more; RUST_LOG selects levels per module
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    programs::run(arguments.verbose, || prepare(&arguments))
}

fn prepare(arguments: &Arguments) -> Result<()> {
    let built_from = env!("SAKER_CODE");
    if let Some(code) = &arguments.code
        && code != built_from
    {
        bail!(
            "saker-ballista and saker were built from different sources, so their files may differ; run `scripts/build --ballista`"
        );
    }
    let (pipeline, layout) = arguments.target.open()?;
    let settings = arguments.limits.settings();
    let runtime = tokio::runtime::Runtime::new()?;
    let scheduler = &arguments.scheduler;
    let unreachable = || format!("cannot reach the scheduler of Ballista at {scheduler}");
    // The client connects when it runs its first plan, and then with a deadline of its own.
    let connected = runtime.block_on(async {
        let connecting = tokio::net::TcpStream::connect(scheduler);
        tokio::time::timeout(CONNECT, connecting).await
    });
    connected
        .with_context(|| format!("no answer within {} s", CONNECT.as_secs()))
        .and_then(|connected| Ok(connected?))
        .with_context(unreachable)?;
    let partitions = arguments.partitions as usize;
    let state = SessionStateBuilder::new()
        .with_config(Engine::configuration().with_target_partitions(partitions))
        .with_default_features()
        .build();
    let url = format!("df://{scheduler}");
    let cluster = SessionContext::remote_with_state(&url, state);
    let cluster = runtime.block_on(cluster).with_context(unreachable)?;
    let summary = saker_prepare::prepare(&pipeline, &layout, settings, Some(cluster))?;
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}
