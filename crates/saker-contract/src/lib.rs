//! The wire contract (docs/contract.md): every name that more than one program relies on.
//!
//! | module | content |
//! |---|---|
//! | [`step`] | the steps of both ensembles: model, backend, position, files |
//! | [`ensemble`] | the models that clients ask, and their outputs |
//! | [`tensor`] | names of the tensors between the steps |
//! | [`artefact`] | what a training run makes for the steps, and the file names in a version folder |
//! | [`ids`] | raw ids and codes, and the values among them that mean something else |
//! | [`degraded`] | the mask of missing user data |
//! | [`database`], [`keys`] | databases and keys of Valkey or Redis |
//! | [`release`] | files that describe a release, and parameters that belong to none |
//!
//! The crate depends on nothing and reads nothing. What a pipeline definition names, such as features, is not part of it.

#![warn(clippy::indexing_slicing)]

pub mod artefact;
pub mod database;
pub mod degraded;
pub mod ensemble;
pub mod ids;
pub mod keys;
pub mod release;
pub mod step;
pub mod tensor;

pub use artefact::{Artefact, Group};
pub use database::Database;
pub use ids::{Code, RawId};
pub use step::Step;
