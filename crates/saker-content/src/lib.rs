//! Vectors of items from their content: sentences through Sentence-BERT, pictures through an image encoder, reduced by
//! principal components.
//!
//! - [`SentenceEncoder`] runs a BERT in sentence-transformers' layout (`model.safetensors`, `tokenizer.json`, …) on Burn.
//! - [`ImageEncoder`] runs any ONNX image encoder, CLIP's among them, on ONNX Runtime, with the preprocessing of the
//!   `preprocessor_config.json` beside it.
//! - [`encode`] takes a catalogue through an encoder; vectors of content that a [`Cache`] holds are not computed again.
//! - [`Pca`] reduces their width.
//!
//! Nothing here knows of a pipeline definition or of Triton.

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

/// Scales a vector to unit length; a vector of zeros stays one.
pub fn to_unit_length(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
}
