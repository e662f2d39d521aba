//! ONNX models of the version folder, with a session for each instance.

use std::path::PathBuf;

use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionOutputs};
use ort::value::Outlet;
use saker_steps::onnx;
use triton_backend::{Error, ModelContext};

/// A model of which sessions are made: one for each instance, since sessions keep their buffers.
pub(crate) struct Sessions {
    environment: Environment,
    path: PathBuf,
    threads: usize,
    release: Option<String>,
}

impl Sessions {
    /// Of the model at `path`, with so many threads for one run.
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
            threads,
            release: context.release().map(|release| release.id.clone()),
        })
    }

    /// A session of its own.
    pub(crate) fn session(&self) -> Result<Session, Error> {
        let build = || -> ort::Result<Session> {
            Session::builder(&self.environment)?
                .with_intra_threads(self.threads)?
                .with_inter_threads(1)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .commit_from_file(&self.path)
        };
        let session =
            build().map_err(|error| self.invalid(&format!("cannot be loaded: {error}")))?;
        if let Some(release) = &self.release {
            onnx::check_release(&session, release)?;
        }
        Ok(session)
    }

    /// The output.
    ///
    /// # Errors
    /// The model has several.
    pub(crate) fn only_output<'s>(&self, session: &'s Session) -> Result<&'s Outlet, Error> {
        match session.outputs() {
            [output] => Ok(output),
            outputs => Err(self.invalid(&format!("has {} outputs; accepted: one", outputs.len()))),
        }
    }

    /// Something is wrong with the model.
    pub(crate) fn invalid(&self, what: &str) -> Error {
        Error::invalid_argument(format!("{} {what}", self.path.display()))
    }
}

/// The elements of an output of a run.
///
/// # Errors
/// The model does not give it, or not as FP32.
pub(crate) fn floats<'o>(outputs: &'o SessionOutputs<'_>, name: &str) -> Result<&'o [f32], Error> {
    let output = outputs
        .get(name)
        .ok_or_else(|| Error::internal(format!("ONNX Runtime: a run gave no output '{name}'")))?;
    let (_, elements) = output.try_extract_tensor::<f32>().map_err(failed)?;
    Ok(elements)
}

/// What ONNX Runtime says of a run. No tensor of a run is the client's: its codes are the transforms' and its shapes ours.
pub(crate) fn failed(error: ort::Error) -> Error {
    Error::internal(format!("ONNX Runtime: {error}"))
}
