//! Loads ONNX Runtime in a backend: its library, its environment, the settings of a session.

mod options;
mod runtime;

use ort::session::Session;
use saker_contract::release::ONNX_KEY;
use triton_backend::Error;

pub use options::Options;
pub use runtime::environment;

/// Checks the release that `saker assemble` wrote into a model's metadata, if it exists.
///
/// # Errors
/// Returns an error if the release differs from that of the model's folder.
pub fn check_release(session: &Session, expected: &str) -> Result<(), Error> {
    let found = session
        .metadata()
        .ok()
        .and_then(|metadata| metadata.custom(ONNX_KEY));
    match found {
        Some(found) if found != expected => Err(Error::invalid_argument(format!(
            "the ONNX model is of release {found}, but its folder holds release {expected}"
        ))),
        _ => Ok(()),
    }
}
