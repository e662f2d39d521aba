//! feature_transform
