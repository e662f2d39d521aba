//! `saker-updater`: see [`saker_serving::programs::updater`].

use std::process::ExitCode;

use clap::Parser;
use saker_serving::programs::{self, updater};

/// Applies what visitors do: seen items, top category, popularity, the offline store.
#[derive(Parser)]
#[command(name = "saker-updater", version)]
struct Arguments {
    /// More log lines; RUST_LOG sets them apart
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    args: updater::Args,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    programs::run(arguments.verbose, || updater::run(&arguments.args))
}
