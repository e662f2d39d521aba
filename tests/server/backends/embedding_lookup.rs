//! `embedding_lookup`: rows of a table by encoded id.

use std::path::PathBuf;

use triton_testing::tensor::Tensor;

use crate::support::{
    checks::{SIZES, bad_parameters_are_refused, wrong_tensors_are_refused},
    config::Config,
    stage::{Stage, data},
};

const MODEL: &str = "multimodal_embedding_lookup";
/// The golden tables: 703 encoded items, 64 numbers each.
const ROWS: i32 = 703;
const WIDTH: usize = 64;

pub(super) fn config() -> Config {
    Config::new("embedding_lookup")
        .input("item_id", "INT32", &[-1])
        .output("item_image_embeddings", "FP32", &[-1, WIDTH as i64])
        .output("item_description_embeddings", "FP32", &[-1, WIDTH as i64])
}

pub(super) fn tables() -> [(&'static str, PathBuf); 2] {
    [
        (
            "item_image_embeddings",
            data("reference/lookup_embeddings_image.npy"),
        ),
        (
            "item_description_embeddings",
            data("reference/lookup_embeddings_text.npy"),
        ),
    ]
}

fn stage() -> Stage {
    let [image, text] = tables();
    Stage::with(
        MODEL,
        &config(),
        &[
            ("item_image_embeddings.npy", &image.1),
            ("item_description_embeddings.npy", &text.1),
        ],
    )
}

/// The numbers of a .npy file of f32.
fn numbers(path: &PathBuf) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("a table");
    let data = &bytes[bytes.len() - ROWS as usize * WIDTH * 4..];
    data.chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
        .collect()
}

#[test]
fn any_number_of_rows() {
    let stage = stage();
    for rows in SIZES {
        let ids: Vec<i32> = (0..rows as i32).map(|row| row * 37 % ROWS).collect();
        let outputs = stage.answer(MODEL, &[Tensor::i32("item_id", &ids)]);
        for (name, path) in &tables() {
            let table = numbers(path);
            let expected: Vec<f32> = ids
                .iter()
                .flat_map(|&id| &table[id as usize * WIDTH..(id as usize + 1) * WIDTH])
                .copied()
                .collect();
            assert_eq!(outputs.f32(name), expected);
            assert_eq!(outputs.shape(name), [rows as i64, WIDTH as i64]);
        }
    }
}

#[test]
fn no_id_reads_outside_the_table() {
    let stage = stage();
    let table = numbers(&tables()[0].1);
    let unknown = &table[2 * WIDTH..3 * WIDTH];
    let ids = [i32::MIN, -1, ROWS, i32::MAX];
    let outputs = stage.answer(MODEL, &[Tensor::i32("item_id", &ids)]);
    for row in outputs.f32("item_image_embeddings").chunks(WIDTH) {
        assert_eq!(row, unknown, "an unknown id gets the out-of-vocabulary row");
    }
}

#[test]
fn wrong_requests() {
    let inputs = [Tensor::i32("item_id", &[3, 4, 5])];
    wrong_tensors_are_refused(&stage(), MODEL, &inputs, &[]);
}

#[test]
fn wrong_configurations() {
    let [image, text] = tables();
    let files: &[(&str, &std::path::Path)] = &[
        ("item_image_embeddings.npy", &image.1),
        ("item_description_embeddings.npy", &text.1),
    ];
    bad_parameters_are_refused(MODEL, &config(), files, "", &[]);
    let stage = Stage::new();
    let reason = stage.refusal("no_table", &config(), &files[..1]);
    assert!(reason.contains("item_description_embeddings"), "{reason}");
    let wide = Config::new("embedding_lookup")
        .input("item_id", "INT32", &[-1])
        .output("item_image_embeddings", "FP32", &[-1, 128]);
    let reason = stage.refusal("wide", &wide, &files[..1]);
    assert!(
        reason.contains("item_image_embeddings") && reason.contains("64") && reason.contains("128"),
        "{reason}"
    );
}
