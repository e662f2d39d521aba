//! ONNX models of the version folder, with one session per instance.

use std::path::PathBuf;

use ort::environment::Environment;
use ort::session::{Session, SessionOutputs};
use ort::value::Outlet;
use saker_steps::onnx;
use triton_backend::{Error, ModelContext};

/// A model and the options for its sessions. Sessions own their buffers, so each instance has one.
pub(crate) struct Sessions {
    environment: Environment,
    path: PathBuf,
    options: onnx::Options,
    release: Option<String>,
}

impl Sessions {
    /// Opens the model at `path`; a run uses this many threads.
    pub(crate) fn open(
        context: &ModelContext,
        path: PathBuf,
        threads: usize,
    ) -> Result<Self, Error> {
        if !path.is_file() {
            return Err(Error::not_found(format!("{} is missing", path.display())));
        }
        Ok(Self {
            environment: onnx::environment()?,
            path,
            options: onnx::Options::with_threads(threads),
            release: context.release().map(|release| release.id.clone()),
        })
    }

    /// Creates a new session.
    pub(crate) fn session(&self) -> Result<Session, Error> {
        let session = self
            .options
            .builder(&self.environment)
            .and_then(|mut builder| builder.commit_from_file(&self.path))
            .map_err(|error| self.invalid(&format!("cannot be loaded: {error}")))?;
        if let Some(release) = &self.release {
            onnx::check_release(&session, release)?;
        }
        Ok(session)
    }

    /// The only output of the model.
    ///
    /// # Errors
    /// Returns an error if the model has several outputs.
    pub(crate) fn only_output<'s>(&self, session: &'s Session) -> Result<&'s Outlet, Error> {
        match session.outputs() {
            [output] => Ok(output),
            outputs => Err(self.invalid(&format!("has {} outputs; accepted: one", outputs.len()))),
        }
    }

    /// An error that names the model file.
    pub(crate) fn invalid(&self, what: &str) -> Error {
        Error::invalid_argument(format!("{} {what}", self.path.display()))
    }
}

/// The elements of an output of a run.
///
/// # Errors
/// Returns an error if the model did not return the output, or if it is not FP32.
pub(crate) fn floats<'o>(outputs: &'o SessionOutputs<'_>, name: &str) -> Result<&'o [f32], Error> {
    let output = outputs.get(name).ok_or_else(|| {
        Error::internal(format!(
            "ONNX Runtime: a run did not return the output '{name}'"
        ))
    })?;
    let (_, elements) = output.try_extract_tensor::<f32>().map_err(failed)?;
    Ok(elements)
}

/// Converts an error of ONNX Runtime at a run. It is always the server's error: the transforms made the codes, and this backend made the
/// shapes.
pub(crate) fn failed(error: ort::Error) -> Error {
    Error::internal(format!("ONNX Runtime: {error}"))
}
