//! Time of the user and item transforms of the ensemble, by rows and by size of the vocabulary:
//! `cargo run --release -p saker-workflow --example timings`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float32Array, Int32Array};
use arrow::record_batch::RecordBatch;
use saker_workflow::{
    Chain, DType, Definition, Operator, Plan, Scratch, Slice, SliceMut, Workflow,
};

const ROUNDS: usize = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "{:<10} {:>10} {:>14} {:>6} {:>12}",
        "transform", "vocabulary", "ids", "rows", "median_us"
    );
    for vocabulary in [3_000, 300_000] {
        for (ids, stride) in [("dense", 1), ("spread", 4_001)] {
            for rows in [1, 300, 10_000] {
                let user = time(user_workflow(vocabulary, stride)?, vocabulary, stride, rows)?;
                println!(
                    "{:<10} {vocabulary:>10} {ids:>14} {rows:>6} {user:>12.3}",
                    "user"
                );
                let item = time(item_workflow(vocabulary, stride)?, vocabulary, stride, rows)?;
                println!(
                    "{:<10} {vocabulary:>10} {ids:>14} {rows:>6} {item:>12.3}",
                    "item"
                );
            }
        }
    }
    Ok(())
}

fn column(rows: usize, value: impl Fn(usize) -> i32) -> ArrayRef {
    Arc::new(
        (0..rows)
            .map(|row| Some(value(row)))
            .collect::<Int32Array>(),
    )
}

fn categorify(name: &str) -> Chain {
    Chain::new([name], vec![Operator::categorify()])
}

fn user_workflow(n: usize, stride: usize) -> Result<Workflow, Box<dyn std::error::Error>> {
    let batch = RecordBatch::try_from_iter([
        ("user_id", column(n, |i| (i * stride) as i32)),
        ("age", column(n, |i| 18 + (i % 60) as i32)),
        ("gender", column(n, |i| (i % 2) as i32)),
        ("top_category", column(n, |i| (i % 8) as i32)),
    ])?;
    let binned = serde_json::from_str(
        r#"[{ "op": "Bucketize", "boundaries": [18, 25, 35, 50, 65] }, { "op": "Categorify" }]"#,
    )?;
    let norm = serde_json::from_str(r#"[{ "op": "Normalize" }]"#)?;
    let definition = Definition::new(vec![
        categorify("user_id"),
        Chain::feature("age_norm", "age", norm),
        Chain::feature("age_binned", "age", binned),
        categorify("gender"),
        categorify("top_category"),
    ]);
    Ok(Workflow::fit(definition, &[batch])?)
}

fn item_workflow(n: usize, stride: usize) -> Result<Workflow, Box<dyn std::error::Error>> {
    let price: ArrayRef = Arc::new((0..n).map(|i| Some(i as f32)).collect::<Float32Array>());
    let batch = RecordBatch::try_from_iter([
        ("item_id", column(n, |i| (i * stride) as i32)),
        ("category_l1", column(n, |i| (i % 8) as i32)),
        ("category_l2", column(n, |i| (i % 48) as i32)),
        ("item_gender", column(n, |i| (i % 3) as i32)),
        ("price", price),
    ])?;
    let price = serde_json::from_str(r#"[{ "op": "LogOp" }, { "op": "Normalize" }]"#)?;
    let definition = Definition::new(vec![
        Chain::new(
            ["item_id"],
            serde_json::from_str(r#"[{ "op": "Categorify", "padding": -1 }]"#)?,
        ),
        categorify("category_l1"),
        categorify("category_l2"),
        categorify("item_gender"),
        Chain::feature("price_log_norm", "price", price),
    ]);
    Ok(Workflow::fit(definition, &[batch])?)
}

/// Median microseconds of all outputs of one request.
fn time(
    workflow: Workflow,
    vocabulary: usize,
    stride: usize,
    rows: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let names: Vec<String> = workflow.inputs().iter().map(|i| i.name.clone()).collect();
    let types: Vec<(&str, DType)> = workflow
        .inputs()
        .iter()
        .map(|input| (input.name.as_str(), input.dtype))
        .collect();
    let plan = Plan::prepare(&workflow, &types)?;
    let small: Vec<i32> = (0..rows).map(|row| (row % 8) as i32).collect();
    let prices: Vec<f32> = (0..rows).map(|row| row as f32).collect();
    let mut ids = vec![0i32; rows];
    let (mut ints, mut floats) = (vec![0i32; rows], vec![0f32; rows]);
    let mut scratch = Scratch::default();
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        for (row, id) in ids.iter_mut().enumerate() {
            // A multiplicative walk, so that no cache holds the next id.
            *id = ((round * rows + row).wrapping_mul(2_654_435_761) % vocabulary * stride) as i32;
        }
        let start = Instant::now();
        let inputs: Vec<Slice<'_>> = names
            .iter()
            .map(|name| match name.as_str() {
                "user_id" | "item_id" => Slice::Int32(&ids),
                "price" => Slice::Float32(&prices),
                _ => Slice::Int32(&small),
            })
            .collect();
        let bound = plan.bind(black_box(&inputs))?;
        for (index, output) in plan.outputs().iter().enumerate() {
            let buffer = match output.dtype {
                DType::Float32 => SliceMut::Float32(&mut floats),
                _ => SliceMut::Int32(&mut ints),
            };
            bound.write(index, buffer, &mut scratch)?;
            black_box((&ints, &floats));
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}
