//! A prepared dataset: made from the source's tables, and read back as training, index and assembly read it.
//!
//! | module | what it does |
//! |---|---|
//! | [`prepare`] | makes tables and features by [`saker_prepare`], then the embedding tables; the fingerprint of what it reads |
//! | [`engine`] | prepares on this machine, or by a Ballista cluster |
//! | [`embeddings`] | the items' embedding tables: from texts, pictures, co-occurrence or a file |
//! | [`features`] | reads the encoded features, the known items and the embedding tables |

pub mod embeddings;
pub mod engine;
pub mod features;
pub mod prepare;
