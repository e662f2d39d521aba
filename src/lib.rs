//! The `saker` command line: prepare data, train, assemble a model repository and serve it on Triton.
//!
//! Arguments and printing are here, in a file of [`commands`] for each command. The work is in the crates:
//!
//! | crate | commands |
//! |---|---|
//! | [`saker_generate`] | `generate` |
//! | [`saker_dataset`] | `prepare` |
//! | [`saker_models`], [`saker_report`] | `train`, `finetune`, `evaluate`, `index` |
//! | [`saker_materialize`] | `materialize` |
//! | [`saker_assemble`] | `assemble` |
//! | [`saker_run`] | `serve`, `stop`, `status` |
//! | [`saker_simulate`] | `simulate` |
//! | [`saker_serving`] | `gateway`, `updater`, `publish`, `fetch`, `follow`, `promote`, `rollback`, `releases` |
//! | [`saker_workflow`] | `workflow` |

pub mod code;
pub mod commands;
