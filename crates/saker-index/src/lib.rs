//! saker-index
