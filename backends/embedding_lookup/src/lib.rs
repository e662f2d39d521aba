//! embedding_lookup
