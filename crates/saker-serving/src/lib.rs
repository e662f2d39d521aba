//! The programs that serve beside Triton, and the code that the command line shares with them. This crate does not train, prepare data or
//! search an index.
//!
//! | module | what it does |
//! |---|---|
//! | [`programs`] | the gateway, the updater and the follower as programs: their arguments and their work |
//! | [`registry`] | releases in an object store: publishing, fetching, the wanted release, the servers' reports |
//! | [`follower`] | keeps one Triton on the wanted release |
//! | [`releases`] | several releases in one model repository, one of which serves |
//! | [`target`], [`layout`], [`defaults`] | the pipeline of a program; the paths of its files; the features of a missing entity |
//! | [`prepared_tables`], [`views`], [`entities`] | users and items for display; feature views; the entities in the online store |
//! | [`running`], [`control`], [`counters`] | the processes of `saker serve`; the key to Triton's control API; Triton's metrics |
//! | [`installed`] | the programs and libraries that the scripts install |
//! | [`files`], [`progress`] | atomic writes of files; progress of long steps |

pub mod control;
pub mod counters;
pub mod defaults;
pub mod entities;
pub mod files;
pub mod follower;
pub mod installed;
pub mod layout;
pub mod prepared_tables;
pub mod programs;
pub mod progress;
pub mod registry;
pub mod releases;
pub mod running;
pub mod target;
pub mod views;
