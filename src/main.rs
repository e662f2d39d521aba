//! `saker`: prepare data, train, assemble a model repository and serve it on Triton.

use std::process::ExitCode;

use clap::Parser;
use saker::commands::Command;
use saker_serving::programs;

/// Recommendations from Triton Inference Server, with every custom step in Rust.
///
/// One pipeline definition (TOML) names data, features, models and stores; all commands read it. Their outputs are in .saker/<name>/, and a
/// step whose inputs have not changed is skipped.
#[derive(Parser)]
#[command(
    name = "saker",
    version = env!("SAKER_VERSION"),
    propagate_version = true,
    after_help = "From nothing to a recommendation:\n  \
        saker prepare && saker train && saker index && saker materialize && saker assemble\n  \
        saker serve --detach && saker recommend --user 42\n\n\
        Exit codes: 0 success, 1 failure, 2 wrong arguments, 3 the models are worse (evaluate --against)."
)]
struct Arguments {
    /// Log more; RUST_LOG selects levels per module
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    programs::run(arguments.verbose, || arguments.command.run())
}
