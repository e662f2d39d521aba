//! Writes the exported models of training and fine-tuning.

use anyhow::Result;
use ndarray::ArrayView2;
use ndarray_npy::WriteNpyExt;
use saker_contract::Step;
use saker_serving::files;
use saker_serving::layout::Layout;
use saker_train::data::Dataset;
use saker_train::onnx;
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

/// Writes both towers and the items' vectors.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write_towers(layout: &Layout, towers: &Towers, data: &Dataset) -> Result<()> {
    write_query_tower(layout, towers)?;
    files::write(&layout.model("candidate_tower"), candidate_tower(towers))?;
    files::write(&layout.item_vectors(), item_vectors(towers, data)?)
}

/// Writes the query tower.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_query_tower(layout: &Layout, towers: &Towers) -> Result<()> {
    files::write(
        &layout.model(Step::QueryTower.model()),
        onnx::tower(&towers.query, Step::QueryTower.model()),
    )
}

/// Writes the ranker.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_ranker(layout: &Layout, ranker: &Ranker) -> Result<()> {
    files::write(&layout.model(Step::Ranking.model()), onnx::ranker(ranker))
}

/// The content of the candidate tower's file.
pub fn candidate_tower(towers: &Towers) -> Vec<u8> {
    onnx::tower(&towers.candidate, "candidate_tower")
}

/// The candidate tower's output for all items, the content of `item_vectors.npy`.
///
/// # Errors
/// Returns an error if the towers belong to other data.
pub fn item_vectors(towers: &Towers, data: &Dataset) -> Result<Vec<u8>> {
    let vectors = towers.item_vectors(data);
    let vectors = ArrayView2::from_shape((data.items.rows, towers.candidate.dim()), &vectors)?;
    let mut bytes = Vec::new();
    vectors.write_npy(&mut bytes)?;
    Ok(bytes)
}
