//! How cost grows with items, ids and features, apart from Triton: `scripts/bench-scale` calls this and writes docs/scale.md. Prints a JSON object for
//! each measurement.
//!
//! ```text
//! scale exact VECTORS QUERIES OUT                            the 300 best of all, in one batch: i64 [queries, 300]
//! scale index VECTORS QUERIES EXACT FACTORY SWEEP [ITEMS]    an index, built and searched query by query; SWEEP is `-` or `nprobe=1,2,4`
//! scale vocabulary-make IDS dense|sparse FOLDER              a workflow of one Categorify
//! scale vocabulary FOLDER                                    it loaded and looked up in, as a server does
//! scale features                                             one user row and 300 item rows, through 1 to 64 columns
//! ```

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Float32Array, Int32Array};
use ndarray::Array2;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use saker_benches::{CANDIDATES, fitted, operators, transform};
use saker_index::{Index, Metric};
use saker_workflow::{Chain, Workflow};
use serde_json::json;

/// A sweep ends where so much of the exact answer is found: more search time buys nothing.
const ENOUGH: f64 = 0.9995;
/// Lookups in a vocabulary.
const LOOKUPS: usize = 2_000_000;
/// Columns of the widest table.
const MOST_COLUMNS: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["exact", vectors, queries, out] => exact(vectors, queries, out),
        ["index", vectors, queries, exact, factory, sweep] => {
            index(vectors, queries, exact, factory, sweep, usize::MAX)
        }
        ["index", vectors, queries, exact, factory, sweep, items] => {
            number(items).and_then(|items| index(vectors, queries, exact, factory, sweep, items))
        }
        ["vocabulary-make", ids, kind, folder] => {
            number(ids).and_then(|ids| make_vocabulary(ids, kind, Path::new(folder)))
        }
        ["vocabulary", folder] => vocabulary(Path::new(folder)),
        ["features"] => features(),
        _ => {
            eprintln!("error: unknown arguments; the head of benches/scale.rs lists them");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse()
        .with_context(|| format!("'{text}' is no number"))
}

fn read(path: &str) -> Result<Array2<f32>> {
    ndarray_npy::read_npy(path)
        .with_context(|| format!("{path} is no .npy file of f32 [rows, width]"))
}

/// Row-major numbers and their width.
fn rows(array: Array2<f32>) -> Result<(Vec<f32>, usize)> {
    let width = array.ncols();
    let (numbers, offset) = array.into_raw_vec_and_offset();
    if width == 0 || offset.unwrap_or(0) != 0 {
        bail!("an array that is not contiguous");
    }
    Ok((numbers, width))
}

fn exact(vectors: &str, queries: &str, out: &str) -> Result<()> {
    let (vectors, width) = rows(read(vectors)?)?;
    let (queries, _) = rows(read(queries)?)?;
    let ids: Vec<i64> = (0..(vectors.len() / width) as i64).collect();
    let mut index = Index::build("Flat", width, Metric::InnerProduct, &vectors, &ids)?;
    drop(vectors);
    index.set_threads(std::thread::available_parallelism()?);
    let count = queries.len() / width;
    let (mut scores, mut found) = (vec![0.0; count * CANDIDATES], vec![0; count * CANDIDATES]);
    index.search(&queries, CANDIDATES, &mut scores, &mut found)?;
    ndarray_npy::write_npy(out, &Array2::from_shape_vec((count, CANDIDATES), found)?)?;
    Ok(())
}

/// Builds an index over the first `items` vectors and searches it with one query after the other on one thread.
fn index(
    vectors: &str,
    queries: &str,
    exact: &str,
    factory: &str,
    sweep: &str,
    items: usize,
) -> Result<()> {
    let (mut vectors, width) = rows(read(vectors)?)?;
    vectors.truncate(items.saturating_mul(width));
    let (queries, _) = rows(read(queries)?)?;
    let exact: Option<Array2<i64>> = match exact {
        "-" => None,
        path => Some(
            ndarray_npy::read_npy(path)
                .with_context(|| format!("{path} is no .npy file of i64"))?,
        ),
    };
    let count = vectors.len() / width;
    let ids: Vec<i64> = (0..count as i64).collect();
    let begun = Instant::now();
    let mut index = Index::build(factory, width, Metric::InnerProduct, &vectors, &ids)?;
    let build_s = begun.elapsed().as_secs_f64();
    drop((vectors, ids));
    index.set_threads(NonZeroUsize::MIN);
    let file = std::env::temp_dir().join(format!("saker-scale-{}.faiss", std::process::id()));
    index.write(&file)?;
    let bytes = fs::metadata(&file)?.len();
    fs::remove_file(&file)?;

    let settings: Vec<String> = match sweep.split_once('=') {
        None => vec![String::new()],
        Some((name, values)) => values
            .split(',')
            .map(|value| format!("{name}={value}"))
            .collect(),
    };
    for parameters in settings {
        if !parameters.is_empty() {
            index.set_search_parameters(&parameters)?;
        }
        let (mut scores, mut found) = (vec![0.0; CANDIDATES], vec![0; CANDIDATES]);
        let mut taken = Vec::new();
        let mut hits = 0;
        for (place, query) in queries.chunks_exact(width).enumerate() {
            let begun = Instant::now();
            index.search(black_box(query), CANDIDATES, &mut scores, &mut found)?;
            taken.push(begun.elapsed());
            if let Some(exact) = &exact {
                let mut known = exact.row(place).to_vec();
                known.sort_unstable();
                hits += found
                    .iter()
                    .filter(|id| known.binary_search(id).is_ok())
                    .count();
            }
        }
        let recall = exact
            .as_ref()
            .map(|_| hits as f64 / (taken.len() * CANDIDATES) as f64);
        println!(
            "{}",
            json!({
                "factory": factory, "items": count, "build_s": build_s, "bytes": bytes, "parameters": parameters,
                "queries": taken.len(), "recall": recall, "p50_us": percentile(&mut taken, 0.5), "p99_us": percentile(&mut taken, 0.99),
            })
        );
        if recall.is_some_and(|recall| recall >= ENOUGH) {
            break;
        }
    }
    Ok(())
}

fn percentile(taken: &mut [Duration], share: f64) -> f64 {
    taken.sort_unstable();
    let place = (share * taken.len() as f64) as usize;
    taken
        .get(place.min(taken.len().saturating_sub(1)))
        .map_or(f64::NAN, |taken| taken.as_secs_f64() * 1e6)
}

/// Fits and saves a workflow whose ids are 0, 3, 6 … in random order, or 62 random bits.
fn make_vocabulary(ids: usize, kind: &str, folder: &Path) -> Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let mut values: Vec<i64> = match kind {
        "dense" => (0..ids as i64).map(|id| 3 * id).collect(),
        "sparse" => (0..ids).map(|_| random.random_range(0..1 << 62)).collect(),
        _ => bail!("'{kind}': accepted are dense and sparse"),
    };
    values.shuffle(&mut random);
    let column: ArrayRef = Arc::new(arrow::array::Int64Array::from(values));
    let chain = Chain::new(["user_id"], operators(r#"[{ "op": "Categorify" }]"#));
    let workflow = fitted(vec![chain], vec![("user_id", column)]);
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(workflow.save(folder)?)
}

fn vocabulary(folder: &Path) -> Result<()> {
    let before = memory("VmRSS:")?;
    let begun = Instant::now();
    let workflow = Workflow::load(folder)?;
    let load_s = begun.elapsed().as_secs_f64();
    let after = memory("VmRSS:")?;
    let peak = memory("VmHWM:")?;
    let vocabulary = workflow
        .vocabulary("user_id")
        .context("no vocabulary of user_id")?;
    let ids = vocabulary.ints().context("ids that are no integers")?;
    let mut random = StdRng::seed_from_u64(2);
    let asked: Vec<i64> = (0..LOOKUPS)
        .map(|_| ids[random.random_range(0..ids.len())])
        .collect();
    let begun = Instant::now();
    for &id in &asked {
        black_box(vocabulary.encode(black_box(id)));
    }
    let lookup_ns = begun.elapsed().as_secs_f64() * 1e9 / asked.len() as f64;
    println!(
        "{}",
        json!({
            "ids": ids.len(), "load_s": load_s, "bytes": after.saturating_sub(before), "peak_bytes": peak.saturating_sub(before),
            "file_bytes": fs::metadata(folder.join("categories/unique.user_id.parquet"))?.len(), "lookup_ns": lookup_ns,
        })
    );
    Ok(())
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes
        .with_context(|| format!("no {name} in /proc/self/status"))?
        .parse::<u64>()?
        << 10)
}

/// Half of the columns are ids of which there are 1,000, half are numbers; the first is of ids.
fn features() -> Result<()> {
    for rows in [1, CANDIDATES] {
        let mut columns = 1;
        while columns <= MOST_COLUMNS {
            let mut kernel = transform(wide_workflow(columns), rows);
            let mut taken = Vec::new();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(500) {
                const RUNS: u32 = 20;
                let batch = Instant::now();
                (0..RUNS).for_each(|_| kernel());
                taken.push(batch.elapsed() / RUNS);
            }
            println!(
                "{}",
                json!({ "rows": rows, "columns": columns, "p50_us": percentile(&mut taken, 0.5) })
            );
            columns *= 2;
        }
    }
    Ok(())
}

fn wide_workflow(columns: usize) -> Workflow {
    const VALUES: i32 = 1_000;
    let names: Vec<String> = (0..columns)
        .map(|column| format!("column_{column}"))
        .collect();
    let of_ids = |column: usize| column.is_multiple_of(2);
    let chains = names
        .iter()
        .enumerate()
        .map(|(column, name)| match of_ids(column) {
            true => Chain::new([name.as_str()], operators(r#"[{ "op": "Categorify" }]"#)),
            false => Chain::new([name.as_str()], operators(r#"[{ "op": "Normalize" }]"#)),
        });
    let values = names.iter().enumerate().map(|(column, name)| {
        let values: ArrayRef = match of_ids(column) {
            true => Arc::new(Int32Array::from_iter_values(0..VALUES)),
            false => Arc::new(Float32Array::from_iter_values(
                (0..VALUES).map(|value| value as f32),
            )),
        };
        (name.as_str(), values)
    });
    fitted(chains.collect(), values.collect())
}
