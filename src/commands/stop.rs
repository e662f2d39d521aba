use anyhow::Result;
use saker_run::server;
use saker_serving::running::Running;
use saker_serving::target::Target;

use super::serve::SUPERVISOR;

/// Arguments of `saker stop`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  saker stop\n  saker stop retail")]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Stops all processes of `saker serve`. It is not an error if none runs.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    // The supervisor stops first, and stops the others.
    let names = [SUPERVISOR, "gateway", "updater", "triton", "valkey"];
    let found = names.map(|name| (name, Running::find(&layout, name)));
    let mut any = false;
    for (name, running) in found {
        if let Some(running) = running {
            server::stop(&running, &layout, name)?;
            if name != SUPERVISOR {
                println!("{name} stopped");
            }
            any = true;
        }
    }
    if !any {
        println!("nothing of {} runs", pipeline.pipeline.name);
    }
    Ok(())
}
