//! What serves beside Triton, and what the command line shares with it: nothing here trains, prepares data or searches an index.
//!
//! | module | what it does |
//! |---|---|
//! | [`programs`] | the gateway, the updater and the follower as programs: their arguments, and what they do |
//! | [`registry`] | releases in an object store: publishing, fetching, which one is wanted, what the servers report |
//! | [`follower`] | keeping one Triton on the release that is wanted |
//! | [`releases`] | several releases in one model repository, and which of them serves |
//! | [`target`], [`layout`], [`defaults`] | which pipeline a program works on; where its files lie; what a missing entity gets |
//! | [`catalogue`], [`views`], [`entities`] | users and items as people read them; feature views; what the online store holds of them |
//! | [`running`], [`control`], [`counters`] | what `saker serve` started; the key to Triton's control API; Triton's metrics |
//! | [`files`], [`progress`] | files written whole, what a long step is doing |

pub mod catalogue;
pub mod control;
pub mod counters;
pub mod defaults;
pub mod entities;
pub mod files;
pub mod follower;
pub mod layout;
pub mod programs;
pub mod progress;
pub mod registry;
pub mod releases;
pub mod running;
pub mod target;
pub mod views;
