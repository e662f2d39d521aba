//! Trains a large shop's models as `saker train` does, but for two things: the ranker's negatives are all drawn from the whole
//! catalogue, so that nobody's candidates need be retrieved for them (users × items products, hours for a million items),
//! and the ranker can be left out. `scripts/benchmark/shop` calls this.
//!
//! Usage: towers [--towers] PIPELINE STATE

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use saker::accompaniment::Accompaniment;
use saker::layout::Layout;
use saker::stamp::Fingerprint;
use saker::training_run::TrainingRun;
use saker::{features, models};
use saker_pipeline::Pipeline;
use saker_train::candidates::Candidates;
use saker_train::data::{Categorical, Codes, Continuous, Numbers, Table};
use saker_train::progress::Stage;
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

/// Longer than any run: the states of a large shop take gigabytes, and nobody goes on from them.
const NEVER: Duration = Duration::from_secs(7 * 86_400);

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let alone = arguments.iter().position(|argument| argument == "--towers");
    if let Some(place) = alone {
        arguments.remove(place);
    }
    let [pipeline, state] = &arguments[..] else {
        eprintln!("error: usage: towers [--towers] PIPELINE STATE");
        return ExitCode::from(2);
    };
    match train(Path::new(pipeline), Path::new(state), alone.is_some()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn train(definition: &Path, state: &Path, towers_alone: bool) -> Result<()> {
    let mut pipeline = Pipeline::load(definition)?;
    pipeline.state = Some(state.to_owned());
    let training = &pipeline.training;
    if training.ranker.hard_negatives > 0.0 {
        bail!(
            "training.ranker.hard_negatives = {}: accepted here is 0",
            training.ranker.hard_negatives
        );
    }
    let layout = Layout::new(state, &pipeline.pipeline.name);
    let start = Instant::now();
    let mut data = features::read(&layout)?;
    eprintln!(
        "read {} users, {} items, {} interactions ({:.1} s)",
        data.users.rows,
        data.items.rows,
        data.interactions.user.len(),
        start.elapsed().as_secs_f64()
    );
    let fingerprint = Fingerprint::default()
        .value(&(&pipeline.towers, &pipeline.ranker, training))?
        .finish();
    let accompaniment = Accompaniment::new(&layout, "scripts/benchmark/shop".to_owned(), NEVER)?;
    TrainingRun::open(&layout)?.configure(&pipeline, &data, "cpu")?;

    let mut towers = Towers::new(&pipeline.towers, &data, training.seed);
    accompaniment.run(
        Stage::Towers,
        training.towers.epochs,
        &fingerprint,
        |session| towers.train(&data, &pipeline.towers, training, session),
    )?;
    accompaniment.forget(Stage::Towers)?;
    models::write_towers(&layout, &towers, &data)?;
    if towers_alone {
        return Ok(());
    }

    // The lists that hard negatives would come from: of a catalogue of one item.
    let items = std::mem::take(&mut data.items);
    data.items = first_row(&items);
    let candidates = Candidates::new(&towers, &data, training, 1);
    data.items = items;
    let mut ranker = Ranker::new(&pipeline.ranker, &data, training.seed);
    if training.ranker.warm_start {
        ranker.warm_start(&towers, &data);
    }
    drop(towers);
    accompaniment.run(
        Stage::Ranker,
        training.ranker.epochs,
        &fingerprint,
        |session| ranker.train(&data, training, &candidates, session),
    )?;
    accompaniment.forget(Stage::Ranker)?;
    models::write_ranker(&layout, &ranker)
}

/// The table's first row alone.
fn first_row(table: &Table) -> Table {
    let mut first = Table {
        rows: table.rows.min(1),
        ..Table::default()
    };
    for column in &table.categorical {
        let mut codes = Codes::with_cardinality(column.cardinality);
        codes.extend(&column.codes.iter().take(1).collect::<Vec<i32>>());
        first.categorical.push(Categorical {
            codes,
            name: column.name.clone(),
            ..*column
        });
    }
    for column in &table.continuous {
        let mut values = Numbers::default();
        values.extend(&column.values.iter().take(1).collect::<Vec<f32>>());
        first.continuous.push(Continuous {
            values,
            name: column.name.clone(),
            ..*column
        });
    }
    first
}
