//! What a handler may know of the request that it answers.

use std::sync::Arc;
use std::time::Instant;

use saker_traces::Link;

/// The context of a request that handlers can read.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: Arc<str>,
    /// The trace to which the request belongs.
    pub(crate) trace: Link,
    pub(crate) start: Instant,
}
