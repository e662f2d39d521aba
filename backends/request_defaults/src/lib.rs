//! request_defaults
