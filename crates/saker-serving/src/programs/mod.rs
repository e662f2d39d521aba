//! The programs that serve beside Triton, with their arguments. `saker` has them as commands, too.

pub mod follow;
pub mod gateway;
pub mod metrics;
pub mod source;
pub mod traces;
pub mod updater;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use tracing_subscriber::EnvFilter;

/// An error with its own exit code.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{why}")]
pub struct Ended {
    /// The exit code.
    pub code: u8,
    /// The message.
    pub why: &'static str,
}

/// Runs a program. Writes log lines, more of them with `verbose`, and a final error to standard error. Returns the exit code.
pub fn run(verbose: u8, program: impl FnOnce() -> Result<()>) -> ExitCode {
    // `saker … | head`: when the pipe is closed, end as other programs do, with the status of SIGPIPE.
    let always = Arc::new(AtomicBool::new(true));
    if let Err(error) = signal_hook::flag::register_conditional_shutdown(SIGPIPE, 141, always) {
        eprintln!("warning: cannot handle a closed output: {error}");
    }
    let level = ["warn", "info", "debug"][usize::from(verbose).min(2)];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let ended = error.downcast_ref::<Ended>();
            ended.map_or(ExitCode::FAILURE, |ended| ended.code.into())
        }
    }
}

/// A flag that SIGINT, SIGTERM and SIGHUP set.
///
/// # Errors
/// Returns an error if the signal handlers cannot be installed.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    Ok(stop)
}
