use anyhow::Result;

use super::Target;
use crate::server::Running;

/// Arguments of `saker stop`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  saker stop\n  saker stop retail")]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Stops Triton and Valkey. That nothing runs is no failure.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let mut any = false;
    for name in ["triton", "valkey"] {
        if let Some(running) = Running::find(&layout, name) {
            running.stop(&layout, name)?;
            println!("{name} stopped");
            any = true;
        }
    }
    if !any {
        println!("nothing of {} runs", pipeline.pipeline.name);
    }
    Ok(())
}
