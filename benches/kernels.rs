//! The kernels of a request, each as it runs when the retail shop is asked: what `time` and `instructions` measure.

#![allow(clippy::expect_used, reason = "a benchmark serves nobody")]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array};
use arrow::record_batch::RecordBatch;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use saker_index::{Index, Metric};
use saker_steps::select::{self, Candidate};
use saker_store::Pipeline;
use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView};
use saker_store::seen::bitmap::{Filter, Geometry, insert};
use saker_workflow::{
    Chain, DType, Definition, Operator, Plan, Scratch, Slice, SliceMut, Workflow,
};

/// Candidates of a request.
pub const CANDIDATES: usize = 300;
/// Items of the retail shop.
const ITEMS: usize = 2_465;
/// Length of the towers' vectors.
const DIM: usize = 64;

/// Something to run again and again.
pub type Kernel = Box<dyn FnMut()>;

/// A kernel's name, and what makes it ready to run.
pub type Named = (String, Box<dyn FnOnce() -> Kernel>);

/// All kernels. Those that are not asked for are not made.
pub fn kernels() -> Vec<Named> {
    let mut kernels: Vec<Named> = Vec::new();
    let mut add = |name: String, make: Box<dyn FnOnce() -> Kernel>| kernels.push((name, make));
    for users in [1_000, 100_000, 1_000_000] {
        let make = move || transform(user_workflow(users), 1);
        add(format!("transform 1 user of {users}"), Box::new(make));
    }
    let make = || transform(item_workflow(), CANDIDATES);
    add(format!("transform {CANDIDATES} items"), Box::new(make));
    add("commands of a user's lookup".to_owned(), Box::new(commands));
    for items in [ITEMS, 49_000] {
        let name = format!("search {CANDIDATES} of {items} x {DIM}, flat");
        add(name, Box::new(move || search(items)));
    }
    add(
        format!("seen, {CANDIDATES} items in a bitmap"),
        Box::new(seen),
    );
    add(format!("best 10 of {CANDIDATES}"), Box::new(best));
    add(format!("draw 10 of {CANDIDATES}"), Box::new(draw));
    kernels
}

fn random() -> StdRng {
    StdRng::seed_from_u64(1)
}

/// Operators as in a workflow definition.
///
/// # Panics
/// Panics if `json` is not a list of operators.
pub fn operators(json: &str) -> Vec<Operator> {
    serde_json::from_str(json).expect("operators")
}

/// A workflow fitted on one table.
///
/// # Panics
/// The table has not the columns of the chains.
pub fn fitted(chains: Vec<Chain>, columns: Vec<(&str, ArrayRef)>) -> Workflow {
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    Workflow::fit(Definition::new(chains), &[batch]).expect("a workflow")
}

fn int32s(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

fn user_workflow(users: i32) -> Workflow {
    let categorify = || operators(r#"[{ "op": "Categorify" }]"#);
    let bins = r#"[{ "op": "Bucketize", "boundaries": [18, 25, 35, 45, 55, 65] }, { "op": "Categorify" }]"#;
    fitted(
        vec![
            Chain::new(["user_id"], categorify()),
            Chain::feature("age_norm", "age", operators(r#"[{ "op": "Normalize" }]"#)),
            Chain::feature("age_binned", "age", operators(bins)),
            Chain::new(["gender"], categorify()),
            Chain::new(["top_category"], categorify()),
        ],
        vec![
            ("user_id", int32s(0..users)),
            ("age", int32s((0..users).map(|user| 18 + user % 60))),
            ("gender", int32s((0..users).map(|user| user % 3))),
            ("top_category", int32s((0..users).map(|user| user % 10))),
        ],
    )
}

fn item_workflow() -> Workflow {
    let categorify = || operators(r#"[{ "op": "Categorify", "padding": -1 }]"#);
    let items = 0..ITEMS as i32;
    let price = r#"[{ "op": "LogOp" }, { "op": "Normalize" }]"#;
    let prices = items.clone().map(|item| 5.0 + item as f32 / 10.0);
    fitted(
        vec![
            Chain::new(["item_id"], categorify()),
            Chain::new(["category_l1"], categorify()),
            Chain::new(["category_l2"], categorify()),
            Chain::new(["item_gender"], categorify()),
            Chain::feature("price_log_norm", "price", operators(price)),
        ],
        vec![
            (
                "item_id",
                int32s(items.clone().map(|item| 20_000 + 7 * item)),
            ),
            ("category_l1", int32s(items.clone().map(|item| item % 10))),
            ("category_l2", int32s(items.clone().map(|item| item % 37))),
            ("item_gender", int32s(items.map(|item| item % 3))),
            ("price", Arc::new(Float32Array::from_iter_values(prices))),
        ],
    )
}

/// A column of a request, of values like those that the workflow was fitted on.
enum Values {
    Int32(Vec<i32>),
    Float32(Vec<f32>),
}

/// Binds a request's columns and computes all outputs, as `feature_transform` does.
///
/// # Panics
/// The workflow cannot be served.
pub fn transform(workflow: Workflow, rows: usize) -> Kernel {
    let inputs: Vec<(String, DType)> = workflow
        .inputs()
        .iter()
        .map(|input| (input.name.clone(), input.dtype))
        .collect();
    let columns: Vec<(&str, DType)> = inputs
        .iter()
        .map(|(name, dtype)| (name.as_str(), *dtype))
        .collect();
    let plan = Plan::prepare(&workflow, &columns).expect("a plan");
    let mut random = random();
    let values: Vec<Values> = columns
        .iter()
        .map(|(_, dtype)| match dtype {
            DType::Float32 => {
                Values::Float32((0..rows).map(|_| random.random_range(5.0..200.0)).collect())
            }
            _ => Values::Int32((0..rows).map(|_| random.random_range(0..40)).collect()),
        })
        .collect();
    let (mut codes, mut numbers) = (vec![0_i32; rows], vec![0.0_f32; rows]);
    let mut scratch = Scratch::default();
    Box::new(move || {
        let slices: Vec<Slice<'_>> = values
            .iter()
            .map(|values| match values {
                Values::Int32(values) => Slice::Int32(values),
                Values::Float32(values) => Slice::Float32(values),
            })
            .collect();
        let bound = plan.bind(black_box(&slices)).expect("columns that fit");
        for (place, output) in plan.outputs().iter().enumerate() {
            let buffer = match output.dtype {
                DType::Float32 => SliceMut::Float32(&mut numbers),
                _ => SliceMut::Int32(&mut codes),
            };
            bound.write(place, buffer, &mut scratch).expect("an output");
        }
        black_box((&codes, &numbers));
    })
}

/// A user who has seen 50 items.
fn seen() -> Kernel {
    let geometry = Geometry::new(1000, 0.001).expect("a geometry");
    let items: Vec<i64> = (0..50).map(|item| item * 97).collect();
    let change = insert(None, geometry, &items).expect("a bitmap");
    let mut bytes = geometry.header().to_vec();
    for bit in change.bits {
        let byte = (bit / 8) as usize;
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        // Redis counts bits from the most significant one.
        bytes[byte] |= 128 >> (bit % 8);
    }
    let candidates: Vec<i64> = (0..CANDIDATES as i64).map(|item| item * 13).collect();
    Box::new(move || {
        let filter = Filter::read(black_box(&bytes)).expect("a bitmap");
        let known = candidates.iter().filter(|&&item| filter.contains(item));
        black_box(known.count());
    })
}

fn scores() -> Vec<f32> {
    let mut random = random();
    (0..CANDIDATES)
        .map(|_| random.random_range(0.0..1.0))
        .collect()
}

fn best() -> Kernel {
    let scores = scores();
    let mut candidates = Vec::new();
    Box::new(move || {
        candidates.clear();
        let scores = black_box(&scores).iter().zip(0..);
        candidates.extend(scores.map(|(score, at)| Candidate::new(f64::from(*score), at)));
        select::first(&mut candidates, 10);
        black_box(&candidates);
    })
}

fn draw() -> Kernel {
    let (scores, mut random) = (scores(), random());
    let mut candidates = Vec::new();
    Box::new(move || {
        let keys = black_box(&scores)
            .iter()
            .map(|score| select::key(*score, &mut random));
        candidates.clear();
        candidates.extend(keys.zip(0..).map(|(key, at)| Candidate::new(key, at)));
        select::first(&mut candidates, 10);
        black_box(&candidates);
    })
}

fn search(items: usize) -> Kernel {
    let mut random = random();
    let vectors: Vec<f32> = (0..items * DIM)
        .map(|_| random.random_range(-1.0..1.0))
        .collect();
    let ids: Vec<i64> = (0..items as i64).collect();
    let mut index =
        Index::build("Flat", DIM, Metric::InnerProduct, &vectors, &ids).expect("an index");
    index.set_threads(std::num::NonZeroUsize::MIN);
    let query = vectors[..DIM].to_vec();
    let (mut found, mut distances) = (vec![0_i64; CANDIDATES], vec![0.0_f32; CANDIDATES]);
    Box::new(move || {
        index
            .search(black_box(&query), CANDIDATES, &mut distances, &mut found)
            .expect("neighbours");
        black_box(&found);
    })
}

/// The commands that ask Feast's store for a user's three features.
fn commands() -> Kernel {
    let features = ["age", "gender", "top_category"];
    let view = FeatureView::new(
        "my_feast_repo",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        features,
    );
    let mut pipeline = Pipeline::new();
    Box::new(move || {
        pipeline.clear();
        view.read(black_box(&EntityId::Int32(4711)), &mut pipeline);
        black_box(&pipeline);
    })
}
