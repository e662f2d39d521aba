//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! | module | what it does |
//! |---|---|
//! | [`commands`] | the arguments of each command, and what it does with the modules below |
//! | [`stamp`] | skipping what is done |
//! | [`prepare`], [`table`], [`values`] | the source's tables, cleaned, split and encoded by fitted workflows; Parquet tables; what a value of a table is |
//! | [`features`], [`models`] | what was prepared, as the models learn from it; what they are exported to |
//! | [`finetune`], [`accompaniment`], [`training_run`] | what is newer than the models; checkpoints and progress while one learns; how training went |
//! | [`report`], [`groupings`], [`oracle`] | an evaluation for people; what its requests are told apart by; the best possible answer |
//! | [`verdict`] | whether new models are good enough to take a release's place |
//! | [`materialize`] | users, items, popularity and seen items into Valkey |
//! | [`assemble`] | the model repository: 14 steps and the ensemble |
//! | [`server`], [`supervisor`], [`watchdog`] | starting and stopping Valkey, Triton, updater and gateway; keeping them running; noticing that Triton hangs |
//! | [`runtime`], [`memory`] | finding the programs; what the store may use |
//! | [`simulate`] | virtual shoppers before a running gateway |
//! | [`explain`] | what Triton's steps answered |
//!
//! What it shares with the programs that serve is in [`saker_serving`].

pub mod accompaniment;
pub mod assemble;
pub mod commands;
pub mod explain;
pub mod features;
pub mod finetune;
pub mod groupings;
pub mod materialize;
pub mod memory;
pub mod models;
pub mod oracle;
pub mod prepare;
pub mod report;
pub mod retrieval;
pub mod runtime;
pub mod server;
pub mod simulate;
pub mod stamp;
pub mod supervisor;
pub mod table;
pub mod training_run;
pub mod values;
pub mod verdict;
pub mod watchdog;
