//! `saker-follow`: see [`saker_serving::programs::follow`].

use std::process::ExitCode;

use clap::Parser;
use saker_serving::programs::{self, follow};

/// Keeps a Triton on the release that is wanted in a store of releases.
#[derive(Parser)]
#[command(name = "saker-follow", version)]
struct Arguments {
    /// More log lines; RUST_LOG sets them apart
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    args: follow::Args,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    programs::run(arguments.verbose, || follow::run(&arguments.args))
}
