//! `saker`: prepare data, train, assemble a model repository and serve it on Triton.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use saker::commands::Command;
use signal_hook::consts::SIGPIPE;
use tracing_subscriber::EnvFilter;

/// Recommendations from Triton Inference Server, with every custom step in Rust.
///
/// One pipeline definition (TOML) names data, features, models and stores; all commands read it. What they make lies in
/// .saker/<name>/, and a step whose inputs have not changed is skipped.
#[derive(Parser)]
#[command(
    name = "saker",
    version = env!("SAKER_VERSION"),
    propagate_version = true,
    after_help = "From nothing to a recommendation:\n  \
        saker prepare && saker train && saker index && saker materialize && saker assemble\n  \
        saker serve --detach && saker recommend --user 42\n\n\
        Exit codes: 0 success, 1 failure, 2 wrong arguments."
)]
struct Arguments {
    /// More log lines; RUST_LOG sets them apart
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    // `saker … | head`: end as other programs do when nobody reads on, with the status of SIGPIPE.
    let always = Arc::new(AtomicBool::new(true));
    if let Err(error) = signal_hook::flag::register_conditional_shutdown(SIGPIPE, 141, always) {
        eprintln!("warning: cannot handle a closed output: {error}");
    }
    let arguments = Arguments::parse();
    let level = ["warn", "info", "debug"][usize::from(arguments.verbose).min(2)];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
