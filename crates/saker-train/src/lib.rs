//! saker-train
