//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! | module | what it does |
//! |---|---|
//! | [`layout`] | where a pipeline's files lie |
//! | [`assemble`] | the model repository: 14 steps and the ensemble |

pub mod assemble;
pub mod layout;
