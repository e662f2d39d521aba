//! feature_lookup
