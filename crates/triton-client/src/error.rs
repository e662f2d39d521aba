//! Errors of calls to Triton.

/// Why a request has no answer that can be used.
///
/// ```no_run
/// use triton_client::{Error, Tensor, Triton};
///
/// match Triton::new("127.0.0.1:8000").infer("ranker", &[Tensor::int32("user_id", &[42])]) {
///     Ok(outputs) => println!("{} outputs", outputs.len()),
///     Err(Error::Refused { code: 400, message }) => println!("the request is wrong: {message}"),
///     Err(error @ Error::Unreachable { .. }) => println!("try again: {error}"),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not answer, or the answer is incomplete.
    #[error("no Triton answers at {address} ({reason})")]
    Unreachable {
        /// `host:port`
        address: String,
        /// The error of the connection.
        reason: String,
    },
    /// Triton refused, in its words.
    #[error("Triton answered: {message}")]
    Refused {
        /// The HTTP status, or the gRPC code.
        code: u16,
        /// Triton's text.
        message: String,
    },
    /// An answer that does not follow the protocol.
    #[error("Triton's answer cannot be read: {0}")]
    Answer(String),
    /// A tensor of another type than expected, or whose bytes do not add up.
    #[error("tensor {0}")]
    Tensor(String),
    /// An ensemble's step that has no answer.
    #[error("step {step}: {source}")]
    Step {
        /// The model.
        step: String,
        /// Why.
        source: Box<Error>,
    },
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// The error of an answer that lacks what it should hold.
pub(crate) fn answer(why: impl Into<String>) -> Error {
    Error::Answer(why.into())
}
