//! What a backend says of a request: an error, or its statistics.

use triton_rs_sys as sys;

/// An error that a backend gave to the server: as an answer to a request, or of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of `TRITONSERVER_ERROR_*`, such as `TRITONSERVER_ERROR_INVALID_ARG`.
    pub code: sys::TRITONSERVER_Error_Code,
    /// The text that a client sees, with the model's name before it.
    pub message: String,
}

/// The statistics reported for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistic {
    /// Whether the backend reported the request as answered with success.
    pub success: bool,
    /// Start of execution, start of computation, end of computation, end of execution, in ns.
    pub times_ns: [u64; 4],
}
