//! The processes of one machine: Valkey, Triton, the updater and the gateway of a pipeline.
//!
//! | module | what it does |
//! |---|---|
//! | [`server`] | starts each process, waits until it answers, and stops it |
//! | [`supervisor`] | restarts a process that exits or hangs |
//! | [`watchdog`] | detects by inference requests that Triton hangs |
//! | [`memory`] | the memory limit of the store |

pub mod memory;
pub mod server;
pub mod supervisor;
pub mod watchdog;
