//! bloom_filter
