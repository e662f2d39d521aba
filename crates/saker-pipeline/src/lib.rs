//! saker-pipeline
