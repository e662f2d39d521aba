//! `saker-gateway`: see [`saker_serving::programs::gateway`].

use std::process::ExitCode;

use clap::Parser;
use saker_serving::programs::{self, gateway};

/// Answers a shop's visitors over HTTP, in front of Triton and Valkey.
#[derive(Parser)]
#[command(name = "saker-gateway", version)]
struct Arguments {
    /// More log lines; RUST_LOG sets them apart
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    args: gateway::Args,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    programs::run(arguments.verbose, || gateway::run(&arguments.args))
}
