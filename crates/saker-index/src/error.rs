use std::path::PathBuf;

/// Errors of an index. Every message names the wrong value or file, and the accepted values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// FAISS cannot make an index of this description.
    #[error("FAISS has no index '{factory}' of dimension {dimension}: {reason}")]
    Factory {
        /// The factory string, such as `IVF64,Flat`.
        factory: String,
        /// Dimension of the vectors.
        dimension: usize,
        /// The error of FAISS.
        reason: String,
    },
    /// Vectors, ids or result buffers whose lengths do not fit together.
    #[error("{what}: got {got} values, need {need}")]
    Length {
        /// Name of the buffer.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length it must have, in words.
        need: String,
    },
    /// Training failed, most often for want of vectors.
    #[error("cannot train index '{factory}' on {vectors} vectors: {reason}")]
    Train {
        /// The factory string.
        factory: String,
        /// Number of vectors.
        vectors: usize,
        /// The error of FAISS.
        reason: String,
    },
    /// The vectors were not accepted.
    #[error("cannot add {vectors} vectors to index '{factory}': {reason}")]
    Add {
        /// The factory string.
        factory: String,
        /// Number of vectors.
        vectors: usize,
        /// The error of FAISS.
        reason: String,
    },
    /// A vector to be indexed has a NaN or an infinity.
    #[error("vector {row} (id {id}) holds {value}; only finite numbers can be indexed")]
    NotFinite {
        /// Row of the vector.
        row: usize,
        /// Its id.
        id: i64,
        /// The value.
        value: f32,
    },
    /// FAISS marks a missing neighbour with -1, so no vector can have a negative id.
    #[error("vector {row} has id {id}; ids must be 0 or more")]
    NegativeId {
        /// Row of the vector.
        row: usize,
        /// Its id.
        id: i64,
    },
    /// The file is missing or unreadable.
    #[error("cannot read index file {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is there but FAISS does not understand it.
    #[error("{path} is not an index that FAISS can read, or is damaged: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of FAISS.
        reason: String,
    },
    /// The index could not be written.
    #[error("cannot write index file {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A search parameter that this index does not have, or a value that it cannot take.
    #[error(
        "search parameter '{parameter}': {reason}; write them like 'nprobe=8' (IVF) or 'efSearch=64' (HNSW), with commas between"
    )]
    Parameter {
        /// The parameter as given.
        parameter: String,
        /// The fault.
        reason: String,
    },
    /// The search itself failed.
    #[error("search failed: {0}")]
    Search(String),
}
