use anyhow::{Context, Result, bail};
use ndarray::Array2;
use saker_dataset::features::KnownItems;
use saker_models::retrieval;
use saker_prepare::up_to_date::{self, Fingerprint};
use saker_serving::progress::Step;
use saker_serving::target::Target;

use crate::code::CODE;

/// Arguments of `saker index`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  saker index\n  saker index movielens --force")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Build even if the vectors have not changed
    #[arg(long)]
    force: bool,
}

/// Builds `index/index.faiss` from the vectors of all items in the decoder's vocabulary.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    let vectors_path = layout.item_vectors();
    if !vectors_path.exists() {
        bail!(
            "{} is missing; run `saker train {name}`",
            vectors_path.display()
        );
    }
    let retrieval = &pipeline.retrieval;
    let fingerprint = Fingerprint::of_code(CODE)
        .value(&(&retrieval.index, retrieval.metric))?
        .file(&vectors_path)?
        .file(&layout.features("items"))?
        .finish();
    let target = layout.index();
    if !args.force && up_to_date::is_current(&layout, "index", &fingerprint, &[&target]) {
        println!("the index of {name} is up to date; --force builds it again");
        return Ok(());
    }
    let step = Step::start(format!("build the index {}", retrieval.index));
    let vectors: Array2<f32> = ndarray_npy::read_npy(&vectors_path).with_context(|| {
        format!(
            "{} is damaged; run `saker train {name} --force`",
            vectors_path.display()
        )
    })?;
    let items = KnownItems::read(&pipeline, &layout)?;
    if vectors.nrows() != items.encoded.num_rows() {
        bail!(
            "{} holds {} vectors for {} items; run `saker train {name} --force`",
            vectors_path.display(),
            vectors.nrows(),
            items.encoded.num_rows()
        );
    }
    let rows: Vec<f32> = items
        .rows
        .iter()
        .flat_map(|&row| vectors.row(row).to_vec())
        .collect();
    let index = retrieval::build(retrieval, vectors.ncols(), &rows, &items.ids)?;
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    up_to_date::renew(&layout, "index", &fingerprint, || Ok(index.write(&target)?))?;
    step.done(&format!(
        "{} vectors of {} numbers",
        index.len(),
        index.dimension()
    ));
    println!("{}", target.display());
    Ok(())
}
