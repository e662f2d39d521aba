//! Runs ONNX models on the CPU. It replaces NVIDIA's backend of the same name on machines without NVIDIA's container. See the README beside
//! this crate.

#![warn(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::DynValue;
use saker_contract::artefact::MODEL;
use saker_steps::onnx::{self, Options};
use smallvec::SmallVec;
use triton_backend::{
    ANY_TYPE, Batch, Error, Instance, Model, ModelConfig, ModelContext, Request, Response,
    Signature, Tensor,
};

mod graph;
mod shapes;
mod value;

use shapes::Shapes;

/// One value per run of the graph. A request needs one run, unless parameter `rows_per_run` splits it.
type PerRun<T> = SmallVec<[T; 1]>;

/// The inputs of one run by name.
type RunInputs<'r> = Vec<(&'r str, SessionInputValue<'r>)>;

/// A loaded model.
pub struct OnnxRuntime {
    context: Arc<ModelContext>,
    file: File,
    shapes: Shapes,
    /// The session that was checked at load; the first instance uses it.
    checked: Mutex<Option<Session>>,
}

/// The model file, and the options for its sessions.
struct File {
    environment: Environment,
    options: Options,
    path: PathBuf,
}

/// An instance with its own session. ONNX Runtime's sessions own their buffers, so instances cannot share one.
pub struct Worker {
    session: Session,
    run_options: RunOptions<NoSelectedOutputs>,
}

impl Model for OnnxRuntime {
    /// All parameters of the config. ONNX Runtime accepts arbitrary keys of its own, so there is no fixed list.
    type Parameters = BTreeMap<String, String>;
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new()
            .other_inputs(ANY_TYPE)
            .other_outputs(ANY_TYPE)
    }

    fn complete(
        context: &ModelContext,
        default_max_batch_size: usize,
    ) -> Result<Option<serde_json::Value>, Error> {
        if graph::is_complete(context.config()) {
            return Ok(None);
        }
        let session = File::of(context)?.session()?;
        graph::complete(&session, context.config(), default_max_batch_size).map(Some)
    }

    fn load(context: &Arc<ModelContext>, _: Self::Parameters) -> Result<Self, Error> {
        let config = context.config();
        let file = File::of(context)?;
        let session = file.session()?;
        graph::check(&session, config)?;
        if file.options.rows_per_run.is_some() {
            shapes::check_rows_per_run(&session)?;
        }
        if let Some(release) = context.release() {
            onnx::check_release(&session, &release.id)?;
        }
        Ok(Self {
            context: Arc::clone(context),
            file,
            shapes: Shapes::of(&session, config),
            checked: Mutex::new(Some(session)),
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        let checked = self
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let session = match checked {
            Some(session) => session,
            None => self.file.session()?,
        };
        let failed = |error: ort::Error| Error::internal(error.to_string());
        let mut run_options = RunOptions::new().map_err(failed)?;
        if let Some(devices) = &self.file.options.shrink_arena {
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

impl File {
    fn of(context: &ModelContext) -> Result<Self, Error> {
        let config = context.config();
        let options = Options::from_config(context.name(), config)?;
        let file = config.json().get("default_model_filename");
        let file = file.and_then(serde_json::Value::as_str);
        let file = file.filter(|file| !file.is_empty()).unwrap_or(MODEL);
        let mut path = context.version_dir().join(file);
        if path.is_dir() {
            path.push(file); // a folder with that name holds the model and its external weights
        }
        Ok(Self {
            environment: onnx::environment()?,
            options,
            path,
        })
    }

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
        let mut tensors: SmallVec<[Tensor<'_>; 32]> = SmallVec::new();
        for (position, declared) in config.inputs().iter().enumerate() {
            tensors.push(request.input_at(position)?.ok_or_else(|| {
                Error::invalid_argument(format!("the request has no input '{}'", declared.name))
            })?);
        }
        let runs = runs(model.file.options.rows_per_run, &tensors);
        let inputs = model.run_inputs(&tensors, &runs)?;
        run_starts();
        let outputs = self.run(config, inputs);
        run_ends();
        let outputs = match (outputs, &model.shapes.without_rows) {
            (Ok(outputs), _) => outputs,
            // Some graphs fail without rows, for example at a reshape or a maximum of nothing. The answer then has no rows either.
            (Err(_), Some(shapes)) if tensors.iter().all(|tensor| rows(tensor) == Some(0)) => {
                return empty(config, response, shapes);
            }
            (Err(error), _) => return Err(model.shapes.explain(&tensors, &error)),
        };
        let declared = config.outputs().iter().zip(&model.shapes.scalar_outputs);
        for ((position, (declared, scalar)), values) in declared.enumerate().zip(&outputs) {
            let shape = scalar.then_some(&[1][..]);
            value::output(response, position, declared, shape, (values, &runs))?;
        }
        Ok(())
    }

    /// Runs the graph once per element of `inputs`. Returns, for each output of the config, its value in each run.
    fn run(
        &mut self,
        config: &ModelConfig,
        inputs: PerRun<RunInputs<'_>>,
    ) -> ort::Result<Vec<PerRun<DynValue>>> {
        let outputs = config.outputs();
        let mut found: Vec<PerRun<DynValue>> = outputs.iter().map(|_| SmallVec::new()).collect();
        for inputs in inputs {
            let mut values = self.session.run_with_options(inputs, &self.run_options)?;
            for (declared, found) in outputs.iter().zip(&mut found) {
                found.extend(values.remove(&declared.name));
            }
        }
        Ok(found)
    }
}

impl OnnxRuntime {
    fn run_inputs<'r>(
        &'r self,
        tensors: &'r [Tensor<'r>],
        runs: &[Range<usize>],
    ) -> Result<PerRun<RunInputs<'r>>, Error> {
        let inputs = runs.iter().map(|_| Vec::with_capacity(tensors.len()));
        let mut inputs: PerRun<RunInputs<'_>> = inputs.collect();
        let declared = self.context.config().inputs().iter();
        for ((tensor, declared), scalar) in
            tensors.iter().zip(declared).zip(&self.shapes.scalar_inputs)
        {
            let shape = if *scalar { &[] } else { tensor.shape() };
            let values = value::inputs(tensor, shape, runs)?;
            for (inputs, value) in inputs.iter_mut().zip(values) {
                inputs.push((&declared.name, value));
            }
        }
        Ok(inputs)
    }
}

fn rows(tensor: &Tensor<'_>) -> Option<usize> {
    tensor.shape().first().map(|rows| *rows as usize)
}

/// The rows of each run: all rows in one run, or at most `most` rows per run. Splitting limits the memory of large requests. Inputs with
/// different numbers of rows are not split, because only the graph knows which rows belong together.
fn runs(most: Option<NonZeroUsize>, tensors: &[Tensor<'_>]) -> PerRun<Range<usize>> {
    let all = tensors.first().and_then(rows).unwrap_or_default();
    let same = tensors.iter().all(|tensor| rows(tensor) == Some(all));
    match most {
        Some(most) if same && all > most.get() => (0..all)
            .step_by(most.get())
            .map(|start| start..all.min(start.saturating_add(most.get())))
            .collect(),
        _ => SmallVec::from_elem(0..all, 1),
    }
}

/// Writes an answer without rows.
fn empty(config: &ModelConfig, response: &Response<'_>, shapes: &[Vec<i64>]) -> Result<(), Error> {
    for (position, (output, shape)) in config.outputs().iter().zip(shapes).enumerate() {
        value::empty(response, position, &output.name, output.data_type, shape)?;
    }
    Ok(())
}

triton_backend::export!(OnnxRuntime);
