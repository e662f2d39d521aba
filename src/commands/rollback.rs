use anyhow::{Context, Result};
use saker_serving::registry::Named;
use saker_serving::releases::promote::server_pins;
use saker_serving::target::Target;

use super::promote::{Fleet, Place, show};

/// Arguments of `saker rollback`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker rollback\n  saker rollback --release movielens-20260314T150926Z-1f3a9c2b\n  \
    saker rollback --to s3://shop/releases --wait 1m\n\n\
    The same steps as `saker promote`. The release before is still loaded, unless the server has started since."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Release to return to, its id or its version [default: the one that served before]
    #[arg(long, value_name = "ID")]
    release: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    fleet: Fleet,
}

/// Promotes the previous release. Nothing is removed.
pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(registry) = args.fleet.registry()? {
        let named = match &args.release {
            Some(release) => Named {
                release: release.clone(),
                sha256: registry.release(release, None)?.1,
            },
            None => {
                let before = match registry.wanted()? {
                    Some(now) => registry.served_before(&now)?,
                    None => None,
                };
                before.with_context(|| {
                    format!("no release was wanted before in {}", registry.location())
                })?
            }
        };
        return args.fleet.promote(&registry, &named);
    }
    let (_, layout) = args.target.open()?;
    let (repository, triton) = args.place.open(&layout)?;
    let index = repository.index()?;
    let version = match &args.release {
        Some(name) => index.find(name)?,
        None => {
            let serving = match &triton {
                Some(triton) => server_pins(triton)?,
                None => repository.serving()?,
            };
            index.before(serving).with_context(|| {
                format!(
                    "no release served before {}, or it was removed; `saker releases` lists the existing ones",
                    index.name(serving)
                )
            })?
        }
    };
    show(&repository, triton.as_ref(), version, usize::MAX)
}
