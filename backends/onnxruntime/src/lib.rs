//! Runs ONNX models on the CPU: a stand-in for NVIDIA's backend of the same name, on machines without its container.
//! See the README beside this crate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::DynValue;
use saker_steps::onnx::{self, Options};
use triton_backend::{
    ANY_TYPE, Batch, Error, Instance, Model, ModelContext, Request, Response, Signature,
};

mod graph;
mod value;

const MODEL_FILE: &str = "model.onnx";

/// A loaded model.
pub struct OnnxRuntime {
    context: Arc<ModelContext>,
    environment: Environment,
    options: Options,
    path: PathBuf,
    /// The session that loading checked, for the first instance.
    checked: Mutex<Option<Session>>,
    /// Per output of the config: its shape without rows, from the graph.
    empty_shapes: Vec<Vec<i64>>,
}

/// One session: ONNX Runtime's sessions keep their buffers, so instances share none.
pub struct Worker {
    session: Session,
    run_options: RunOptions<NoSelectedOutputs>,
}

impl Model for OnnxRuntime {
    /// Read from the config, since ONNX Runtime has keys of its own that have no end.
    type Parameters = BTreeMap<String, String>;
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new()
            .other_inputs(ANY_TYPE)
            .other_outputs(ANY_TYPE)
    }

    fn load(context: &Arc<ModelContext>, _: Self::Parameters) -> Result<Self, Error> {
        let config = context.config();
        let options = Options::from_config(context.name(), config)?;
        let file = config.json()["default_model_filename"].as_str();
        let file = file.filter(|file| !file.is_empty()).unwrap_or(MODEL_FILE);
        let mut path = context.version_dir().join(file);
        if path.is_dir() {
            path.push(file); // a folder of that name holds the model and its external weights
        }
        let mut model = Self {
            context: Arc::clone(context),
            environment: onnx::environment()?,
            options,
            path,
            checked: Mutex::new(None),
            empty_shapes: Vec::new(),
        };
        let session = model.session()?;
        graph::check(&session, config)?;
        if let Some(release) = context.release() {
            onnx::check_release(&session, &release.id)?;
        }
        model.empty_shapes = config
            .outputs()
            .iter()
            .map(|output| {
                let outlet = session.outputs().iter().find(|o| o.name() == output.name);
                let shape = outlet.and_then(|outlet| outlet.dtype().tensor_shape());
                let mut shape: Vec<i64> = shape.map(|shape| shape.to_vec()).unwrap_or_default();
                // the config may say what the graph leaves open
                for (dim, declared) in shape.iter_mut().rev().zip(output.dims.iter().rev()) {
                    if *dim < 0 {
                        *dim = *declared;
                    }
                }
                shape.iter().map(|dim| (*dim).max(0)).collect()
            })
            .collect();
        model.checked = Mutex::new(Some(session));
        Ok(model)
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        let checked = self
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let session = match checked {
            Some(session) => session,
            None => self.session()?,
        };
        let failed = |error: ort::Error| Error::internal(error.to_string());
        let mut run_options = RunOptions::new().map_err(failed)?;
        if let Some(devices) = &self.options.shrink_arena {
            run_options
                .set("memory.enable_memory_arena_shrinkage", devices)
                .map_err(failed)?;
        }
        Ok(Worker {
            session,
            run_options,
        })
    }
}

impl OnnxRuntime {
    fn session(&self) -> Result<Session, Error> {
        if !self.path.is_file() {
            return Err(Error::not_found(format!(
                "{} is missing",
                self.path.display()
            )));
        }
        self.options
            .builder(&self.environment)
            .and_then(|mut builder| builder.commit_from_file(&self.path))
            .map_err(|error| {
                Error::invalid_argument(format!("cannot load {}: {error}", self.path.display()))
            })
    }
}

impl Instance<OnnxRuntime> for Worker {
    fn execute(&mut self, model: &OnnxRuntime, batch: &Batch<'_>) -> Result<(), Error> {
        let mut first = true;
        batch.respond_each(|request, response| {
            let run_starts = || {
                if std::mem::take(&mut first) {
                    batch.compute_starts();
                }
            };
            self.answer(model, request, response, run_starts, || {
                batch.compute_ends();
            })
        });
        Ok(())
    }
}

impl Worker {
    fn answer(
        &mut self,
        model: &OnnxRuntime,
        request: &Request<'_>,
        response: &Response<'_>,
        run_starts: impl FnOnce(),
        run_ends: impl FnOnce(),
    ) -> Result<(), Error> {
        let config = model.context.config();
        if let Some(most) = model.options.rows_per_run {
            let rows = row_count(request)?;
            if rows > most.get() {
                return self.answer_in_runs(
                    model,
                    request,
                    response,
                    (rows, most.get()),
                    run_starts,
                    run_ends,
                );
            }
        }
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> =
            Vec::with_capacity(config.inputs().len());
        let mut without_rows = false;
        for (position, declared) in config.inputs().iter().enumerate() {
            let tensor = request.input_at(position)?.ok_or_else(|| {
                Error::invalid_argument(format!("the request has no input '{}'", declared.name))
            })?;
            without_rows |= tensor.shape().first() == Some(&0);
            if !without_rows {
                inputs.push((&declared.name, value::input(&tensor)?));
            }
        }
        if without_rows {
            return empty(model, response);
        }
        run_starts();
        let outputs = self
            .session
            .run_with_options(inputs, &self.run_options)
            .map_err(|error| Error::invalid_argument(format!("ONNX Runtime: {error}")))?;
        run_ends();
        for (position, declared) in config.outputs().iter().enumerate() {
            let name = &declared.name;
            let found = outputs.get(name).ok_or_else(|| missing(name))?;
            value::output(response, position, name, declared.data_type, found)?;
        }
        Ok(())
    }

    /// Runs the graph on a few rows at a time, so that a request of many rows takes no more memory than one of few.
    fn answer_in_runs(
        &mut self,
        model: &OnnxRuntime,
        request: &Request<'_>,
        response: &Response<'_>,
        (rows, most): (usize, usize),
        run_starts: impl FnOnce(),
        run_ends: impl FnOnce(),
    ) -> Result<(), Error> {
        let config = model.context.config();
        let mut tensors = Vec::with_capacity(config.inputs().len());
        for (position, declared) in config.inputs().iter().enumerate() {
            let tensor = request.input_at(position)?.ok_or_else(|| {
                Error::invalid_argument(format!("the request has no input '{}'", declared.name))
            })?;
            if tensor.shape().first() != Some(&(rows as i64)) {
                return Err(Error::invalid_argument(format!(
                    "tensor '{}' has shape {:?}; accepted: {rows} rows, as the first tensor",
                    declared.name,
                    tensor.shape()
                )));
            }
            tensors.push((declared.name.as_str(), tensor));
        }
        run_starts();
        let mut found: Vec<Vec<DynValue>> = config.outputs().iter().map(|_| Vec::new()).collect();
        for start in (0..rows).step_by(most) {
            let block = start..rows.min(start + most);
            let inputs = tensors
                .iter()
                .map(|(name, tensor)| Ok((*name, value::input_rows(tensor, block.clone())?)))
                .collect::<Result<Vec<_>, Error>>()?;
            let mut outputs = self
                .session
                .run_with_options(inputs, &self.run_options)
                .map_err(|error| Error::invalid_argument(format!("ONNX Runtime: {error}")))?;
            for (declared, found) in config.outputs().iter().zip(&mut found) {
                found.push(
                    outputs
                        .remove(&declared.name)
                        .ok_or_else(|| missing(&declared.name))?,
                );
            }
        }
        run_ends();
        for (position, (declared, values)) in config.outputs().iter().zip(&found).enumerate() {
            value::joined_output(
                response,
                position,
                &declared.name,
                declared.data_type,
                values,
            )?;
        }
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::internal(format!("the model did not give the output '{name}'"))
}

/// The first dimension of the first input.
fn row_count(request: &Request<'_>) -> Result<usize, Error> {
    let first = request.input_at(0)?;
    let rows = first.and_then(|tensor| tensor.shape().first().copied());
    Ok(rows.map_or(0, |rows| rows as usize))
}

/// The answer to a request whose tensors have no rows. Many graphs fail on it (a reshape of nothing, a maximum of
/// nothing), and what they would compute is known: nothing.
fn empty(model: &OnnxRuntime, response: &Response<'_>) -> Result<(), Error> {
    let outputs = model.context.config().outputs();
    for (position, (output, shape)) in outputs.iter().zip(&model.empty_shapes).enumerate() {
        let mut shape = shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = 0;
        }
        value::empty(response, position, &output.name, output.data_type, &shape)?;
    }
    Ok(())
}

triton_backend::export!(OnnxRuntime);
