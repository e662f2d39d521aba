use anyhow::{Context, Result};

use super::Target;
use super::promote::{Place, show};
use crate::releases::promote::server_pins;

/// Arguments of `saker rollback`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker rollback\n  saker rollback --to movielens-20260314T150926Z-1f3a9c2b\n\n\
    The same steps as `saker promote`. The release before is still loaded, unless the server has started since."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Release to go back to, its id or its version [default: the one that served before]
    #[arg(long, value_name = "ID")]
    to: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Promotes the release that served before. Nothing is removed.
pub(super) fn run(args: &Args) -> Result<()> {
    let (_, layout) = args.target.open()?;
    let (repository, triton) = args.place.open(&layout)?;
    let index = repository.index()?;
    let version = match &args.to {
        Some(name) => index.find(name)?,
        None => {
            let serving = match &triton {
                Some(triton) => server_pins(triton)?,
                None => repository.serving()?,
            };
            index.before(serving).with_context(|| {
                format!(
                    "no release served before {}, or it was removed; `saker releases` lists those that there are",
                    index.name(serving)
                )
            })?
        }
    };
    show(&repository, triton.as_ref(), version, usize::MAX)
}
