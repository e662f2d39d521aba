//! Reads the users of a request. Used by `request_defaults` and the fused step.

use std::num::NonZeroUsize;

use serde::Deserialize;
use triton_backend::{Error, Request, Tensor};

/// Parameters in config.pbtxt.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// Maximum number of users per request. Each user costs memory and time, so a short request must not ask for many.
    #[serde(default = "max_users")]
    max_users: NonZeroUsize,
}

fn max_users() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(255)
}

/// Returns the user ids of a request, whose tensor is given by name and position in config.pbtxt.
///
/// # Errors
///
/// Returns an error if the tensor is missing, does not have one dimension, or has more than `MAX_USERS` elements.
pub fn read<'r>(
    request: &'r Request<'_>,
    (name, position): (&str, usize),
    parameters: &Parameters,
) -> Result<Tensor<'r>, Error> {
    let users = request
        .input_at(position)?
        .ok_or_else(|| Error::invalid_argument(format!("the request has no input '{name}'")))?;
    if users.shape().len() != 1 {
        return Err(Error::invalid_argument(format!(
            "tensor '{name}' has shape {:?}; accepted: 1 dimension",
            users.shape()
        )));
    }
    let most = parameters.max_users;
    if users.len() > most.get() {
        return Err(Error::invalid_argument(format!(
            "tensor '{name}' has {} users; accepted: at most {most} in a request (parameter MAX_USERS)",
            users.len()
        )));
    }
    Ok(users)
}
