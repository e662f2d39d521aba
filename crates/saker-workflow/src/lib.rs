//! saker-workflow
