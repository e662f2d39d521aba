//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! | module | what it does |
//! |---|---|
//! | [`commands`] | the arguments of each command, and what it does with the modules below |
//! | [`layout`] | where a pipeline's files lie |
//! | [`stamp`], [`progress`], [`table`] | skipping what is done, saying what is being done, Parquet tables |
//! | [`prepare`], [`values`] | the source's tables, cleaned, split and encoded by fitted workflows; what a value of a table is |
//! | [`features`], [`models`], [`files`] | what was prepared, as the models learn from it; what they are exported to; small files |
//! | [`finetune`], [`accompaniment`], [`training_run`] | what is newer than the models; checkpoints and progress while one learns; how training went |
//! | [`report`], [`groupings`], [`oracle`] | an evaluation for people; what its requests are told apart by; the best possible answer |
//! | [`entities`] | what the online store holds of users and items, compared with the definition |
//! | [`materialize`] | users, items, popularity and seen items into Valkey |
//! | [`assemble`] | the model repository: 14 steps and the ensemble |
//! | [`releases`] | several releases in one repository, and which of them serves |
//! | [`server`], [`supervisor`], [`watchdog`] | starting and stopping Valkey, Triton, updater and gateway; keeping them running; noticing that Triton hangs |
//! | [`control`], [`runtime`], [`memory`] | the key to Triton's control API; finding the programs; what the store may use |
//! | [`simulate`] | virtual shoppers before a running gateway |
//! | [`updater`] | what the updater needs to know of a pipeline |
//! | [`explain`], [`counters`], [`catalogue`] | what Triton's steps answered, which of them had no store, and names for people |

pub mod accompaniment;
pub mod assemble;
pub mod catalogue;
pub mod commands;
pub mod control;
pub mod counters;
pub mod entities;
pub mod explain;
pub mod features;
pub mod files;
pub mod finetune;
pub mod groupings;
pub mod layout;
pub mod materialize;
pub mod memory;
pub mod models;
pub mod oracle;
pub mod prepare;
pub mod progress;
pub mod releases;
pub mod report;
pub mod retrieval;
pub mod runtime;
pub mod server;
pub mod simulate;
pub mod stamp;
pub mod supervisor;
pub mod table;
pub mod training_run;
pub mod updater;
pub mod values;
pub mod watchdog;
