//! The models that clients ask.

use crate::tensor;

/// The ensemble of 14 steps.
pub const ENSEMBLE: &str = "ensemble_model";
/// The ensemble of one step, which returns the same answers.
pub const FUSED: &str = "ensemble_fused";
/// A copy of the ensemble that a promotion loads for its own requests.
pub const CANARY: &str = "ensemble_canary";

/// The outputs of both ensembles, in order. See [`tensor`] for types and shapes.
pub const OUTPUTS: [&str; 4] = [
    tensor::ORDERED_IDS,
    tensor::ORDERED_SCORES,
    tensor::RELEASE,
    tensor::DEGRADED,
];
/// The outputs of releases that lack [`tensor::DEGRADED`].
pub const OLDER_OUTPUTS: [&str; 3] = [tensor::ORDERED_IDS, tensor::ORDERED_SCORES, tensor::RELEASE];
