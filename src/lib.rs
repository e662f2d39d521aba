//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! | module | content |
//! |---|---|
//! | [`commands`] | the arguments and the control flow of each command |
//! | [`code`] | the hash over the sources, for fingerprints |
//! | [`models`] | the exported models |
//! | [`finetune`], [`accompaniment`], [`training_run`] | training on newer interactions; progress and checkpoints; the record of a training |
//! | [`report`], [`groupings`], [`oracle`] | the report of an evaluation; its breakdowns; the true preferences of a generated shop |
//! | [`verdict`] | decides whether new models may replace a release |
//! | [`assemble`] | the model repository: 14 steps and the ensemble |
//! | [`explain`] | the output of each step of Triton |
//!
//! The code shared with the serving programs is in [`saker_serving`].

pub mod accompaniment;
pub mod assemble;
pub mod code;
pub mod commands;
pub mod explain;
pub mod finetune;
pub mod groupings;
pub mod models;
pub mod oracle;
pub mod report;
pub mod retrieval;
pub mod training_run;
pub mod verdict;
