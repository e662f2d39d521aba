//! Computes vectors of items from their content: texts by Sentence-BERT, pictures by an image encoder. Principal components reduce their
//! width.
//!
//! - [`SentenceEncoder`] runs a BERT in sentence-transformers' layout (`model.safetensors`, `tokenizer.json`, …) on Burn.
//! - [`ImageEncoder`] runs any ONNX image encoder, such as CLIP's, on ONNX Runtime, with the preprocessing of the
//!   `preprocessor_config.json` beside it.
//! - [`encode`] encodes a catalogue. It reuses the vectors of contents that a [`Cache`] holds.
//! - [`Pca`] reduces the width of vectors.
//!
//! This crate does not depend on pipeline definitions or on Triton.

mod bert;
mod cache;
mod encode;
mod error;
mod expose;
mod image_encoder;
mod pca;
mod preprocess;
mod sentence;

pub use cache::{Cache, Digest};
pub use encode::{Encoded, Encoder, encode};
pub use error::Error;
pub use image_encoder::{ImageEncoder, Pooling};
pub use pca::Pca;
pub use preprocess::Preprocessing;
pub use sentence::SentenceEncoder;

/// Scales a vector to unit length. A vector of zeros stays unchanged.
pub fn to_unit_length(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
}
