//! `faiss_retrieval`: the nearest items of each query vector.

use std::path::PathBuf;

use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, is_clients_fault, wrong_tensors_are_refused},
    config::Config,
    stage::{Stage, data},
};

const MODEL: &str = "faiss_retrieval";

pub(super) fn config(topk: usize) -> Config {
    Config::new("faiss_retrieval")
        .input("output_1", "FP32", &[-1, 64])
        .output("candidate_ids", "INT32", &[-1])
        .parameter("RETRIEVAL_TOPK", &topk.to_string())
}

/// The golden index: IVF with 16 lists of 700 vectors, inner product, ids = raw item ids.
pub(super) fn index() -> PathBuf {
    data("reference/index.faiss")
}

fn stage(topk: usize) -> Stage {
    Stage::with(MODEL, &config(topk), &[("index.faiss", &index())])
}

pub(super) fn queries(rows: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * 64)
        .map(|place| ((place as f32) * 0.37).sin())
        .collect();
    Tensor::f32("output_1", &values).shaped(&[rows as i64, 64])
}

#[test]
fn any_number_of_queries() {
    let stage = stage(300);
    for rows in SIZES {
        let outputs = stage.answer(MODEL, &[queries(rows)]);
        assert_eq!(outputs.shape("candidate_ids"), [300 * rows as i64]);
        let all = outputs.i32("candidate_ids");
        // A row of the batch is what the query gives alone.
        for row in [0, rows / 2, rows.saturating_sub(1)] {
            if row < rows {
                let mut query = queries(rows);
                query.data = query.data[row * 256..(row + 1) * 256].to_vec();
                query.shape = vec![1, 64];
                let alone = stage.answer(MODEL, &[query]).i32("candidate_ids");
                assert_eq!(all[row * 300..(row + 1) * 300], alone);
            }
        }
    }
}

#[test]
fn missing_neighbours_are_padding() {
    // 700 vectors in 16 lists, of which 8 are searched: never 2,000 neighbours.
    let outputs = stage(2000).answer(MODEL, &[queries(2)]);
    let ids = outputs.i32("candidate_ids");
    assert!(ids.len() <= 4000);
    for row in ids.chunks(ids.len() / 2) {
        let found = row.iter().position(|&id| id == -1).unwrap_or(row.len());
        assert!((300..=700).contains(&found), "{found} found");
        assert!(row[found..].iter().all(|&id| id == -1));
    }
}

#[test]
fn a_parameter_widens_the_search() {
    let wide = config(700).parameter("SEARCH_PARAMETERS", "nprobe=16");
    let stage = Stage::with(MODEL, &wide, &[("index.faiss", &index())]);
    let ids = stage.answer(MODEL, &[queries(1)]).i32("candidate_ids");
    assert_eq!(ids.iter().filter(|&&id| id >= 0).count(), 700);
}

#[test]
fn what_is_no_number_finds_nothing_or_is_refused() {
    let stage = stage(10);
    let good = stage.answer(MODEL, &[queries(2)]);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut query = queries(2);
        query.data[..4].copy_from_slice(&value.to_le_bytes());
        match stage.infer(MODEL, &[query]) {
            // The other row is not harmed.
            Ok(outputs) => assert_eq!(
                outputs.i32("candidate_ids")[10..],
                good.i32("candidate_ids")[10..]
            ),
            Err(error) => {
                is_clients_fault(&error);
                assert!(error.message.contains("output_1"), "{error}");
            }
        }
        assert_eq!(stage.answer(MODEL, &[queries(2)]), good);
    }
}

#[test]
fn wrong_requests() {
    let stage = stage(300);
    wrong_tensors_are_refused(&stage, MODEL, &[queries(2)], &[]);
    let error = stage
        .infer(
            MODEL,
            &[Tensor::f32("output_1", &[0.5; 63]).shaped(&[1, 63])],
        )
        .expect_err("a vector of the wrong width");
    is_clients_fault(&error);
    assert!(error.message.contains("output_1"), "{error}");
}

#[test]
fn wrong_configurations() {
    let index = index();
    let files: &[(&str, &std::path::Path)] = &[("index.faiss", &index)];
    bad_parameters_are_refused(
        MODEL,
        &config(300),
        files,
        "RETRIEVAL_TOPK",
        &[
            ("RETRIEVAL_TOPK", "many"),
            ("RETRIEVAL_TOPK", "-1"),
            ("RETRIEVAL_TOPK", "0"),
            ("THREADS", "two"),
            ("SEARCH_PARAMETERS", "nprobes=8"),
            ("SEARCH_PARAMETERS", "efSearch=8"),
        ],
    );
    let stage = Stage::new();
    let reason = stage.refusal("no_index", &config(300), &[]);
    assert!(reason.contains("index.faiss"), "{reason}");
    let broken = data("reference/items.parquet");
    let reason = stage.refusal("no_faiss", &config(300), &[("index.faiss", &broken)]);
    assert!(reason.contains("index.faiss"), "{reason}");
    let narrow = Config::new("faiss_retrieval")
        .input("output_1", "FP32", &[-1, 32])
        .output("candidate_ids", "INT32", &[-1])
        .parameter("RETRIEVAL_TOPK", "300");
    let reason = stage.refusal("narrow", &narrow, files);
    assert!(
        reason.contains("64") && reason.contains("32") && reason.contains("output_1"),
        "{reason}"
    );
}
