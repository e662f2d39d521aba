//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! | module | what it does |
//! |---|---|
//! | [`layout`] | where a pipeline's files lie |
//! | [`stamp`] | skips a step whose inputs have not changed |
//! | [`assemble`] | the model repository: 14 steps and the ensemble |

pub mod assemble;
pub mod layout;
pub mod progress;
pub mod stamp;
pub mod table;
