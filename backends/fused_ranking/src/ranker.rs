//! The hoisted ranker: a user's and a moment's features once, and rows of the catalogue.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use saker_steps::onnx;
use serde::Deserialize;
use triton_backend::{DataType, Element, Error, ModelContext, Request};

const MODEL_FILE: &str = "model.onnx";
/// The inputs of a hoisted ranker: rows of the catalogue, INT32 `[N]`; codes, INT32 `[features]`; continuous features, FP32
/// `[1, features]`.
const ROWS_INPUT: &str = "candidate_rows";
const CODES_INPUT: &str = "user_codes";
const NUMBERS_INPUT: &str = "user_numbers";
/// Key of the features' names in the model's metadata.
const INPUTS_KEY: &str = "saker.inputs";

/// What the metadata say.
#[derive(Deserialize)]
struct Inputs {
    codes: Vec<(String, usize)>,
    numbers: Vec<String>,
}

/// A ranker that is loaded once for each instance.
pub(crate) struct Ranker {
    environment: Environment,
    path: PathBuf,
    threads: usize,
    /// The features of the user and the moment, in the model's order.
    codes: Vec<Feature>,
    numbers: Vec<Feature>,
    output: String,
}

/// An input of config.pbtxt.
struct Feature {
    name: String,
    position: usize,
    /// Codes must be below; `usize::MAX` for a number.
    cardinality: usize,
}

/// The features of all users of a request; one value stands for all.
pub(crate) struct Features<'r> {
    codes: Vec<Cow<'r, [i32]>>,
    numbers: Vec<Cow<'r, [f32]>>,
}

/// A ranker's session and what a run is given.
pub(crate) struct Run {
    session: Session,
    codes: Vec<i32>,
    numbers: Vec<f32>,
}

impl Ranker {
    /// Holds the model against config.pbtxt, whose inputs at the places that `is_feature` knows are its features.
    pub(crate) fn load(
        context: &ModelContext,
        threads: usize,
        is_feature: impl Fn(usize) -> bool,
    ) -> Result<Self, Error> {
        let mut ranker = Self {
            environment: onnx::environment()?,
            path: context.version_dir().join(MODEL_FILE),
            threads,
            codes: Vec::new(),
            numbers: Vec::new(),
            output: String::new(),
        };
        let session = ranker.session()?;
        if let Some(release) = context.release() {
            onnx::check_release(&session, &release.id)?;
        }
        let inputs = inputs(&session).ok_or_else(|| {
            invalid(
                &ranker.path,
                "is no ranker that `saker assemble` has hoisted",
            )
        })?;
        let [output] = session.outputs() else {
            return Err(invalid(
                &ranker.path,
                "has several outputs; accepted: one, the scores",
            ));
        };
        ranker.output = output.name().to_owned();
        let config = context.config();
        let feature = |name: String, cardinality: usize, data_type: DataType| {
            let position = config.input_index(&name).ok_or_else(|| {
                invalid(
                    &ranker.path,
                    &format!("needs the input '{name}', which config.pbtxt does not declare"),
                )
            })?;
            match config.inputs()[position].data_type {
                declared if declared == data_type => Ok(Feature {
                    name,
                    position,
                    cardinality,
                }),
                declared => Err(Error::invalid_argument(format!(
                    "input '{name}' is {declared} in config.pbtxt, but {data_type} in the model"
                ))),
            }
        };
        let codes = inputs.codes.into_iter();
        let codes = codes
            .map(|(name, cardinality)| feature(name, cardinality, DataType::Int32))
            .collect::<Result<Vec<_>, Error>>()?;
        let numbers = inputs.numbers.into_iter();
        let numbers = numbers
            .map(|name| feature(name, usize::MAX, DataType::Fp32))
            .collect::<Result<Vec<_>, Error>>()?;
        let read = |position: usize| {
            let mut features = codes.iter().chain(&numbers);
            features.any(|feature| feature.position == position)
        };
        for (position, input) in config.inputs().iter().enumerate() {
            if is_feature(position) && !read(position) {
                return Err(Error::invalid_argument(format!(
                    "input '{}' is not read by the model",
                    input.name
                )));
            }
        }
        (ranker.codes, ranker.numbers) = (codes, numbers);
        Ok(ranker)
    }

    /// A session of its own for an instance: sessions keep their buffers.
    pub(crate) fn run(&self) -> Result<Run, Error> {
        Ok(Run {
            session: self.session()?,
            codes: Vec::new(),
            numbers: Vec::new(),
        })
    }

    fn session(&self) -> Result<Session, Error> {
        if !self.path.is_file() {
            return Err(Error::not_found(format!(
                "{} is missing",
                self.path.display()
            )));
        }
        let build = || -> ort::Result<Session> {
            Session::builder(&self.environment)?
                .with_intra_threads(self.threads)?
                .with_inter_threads(1)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .commit_from_file(&self.path)
        };
        build().map_err(|error| invalid(&self.path, &format!("cannot be loaded: {error}")))
    }

    /// The features of a request of `users` users.
    pub(crate) fn features<'r>(
        &self,
        request: &'r Request<'_>,
        users: usize,
    ) -> Result<Features<'r>, Error> {
        let code = |feature: &Feature| {
            let codes = feature.read::<i32>(request, users)?;
            let fits =
                |code: i32| usize::try_from(code).is_ok_and(|code| code < feature.cardinality);
            match codes.iter().find(|code| !fits(**code)) {
                None => Ok(codes),
                Some(code) => Err(Error::invalid_argument(format!(
                    "tensor '{}' has the code {code}; accepted: 0 to {}",
                    feature.name,
                    feature.cardinality.saturating_sub(1)
                ))),
            }
        };
        Ok(Features {
            codes: self.codes.iter().map(code).collect::<Result<_, _>>()?,
            numbers: self
                .numbers
                .iter()
                .map(|feature| feature.read(request, users))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Appends the score of each row for the user at a place of the request.
    pub(crate) fn score(
        &self,
        run: &mut Run,
        features: &Features<'_>,
        user: usize,
        rows: &[i32],
        scores: &mut Vec<f32>,
    ) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let Run {
            session,
            codes,
            numbers,
        } = run;
        codes.clear();
        codes.extend(features.codes.iter().map(|of| of_user(of, user)));
        numbers.clear();
        numbers.extend(features.numbers.iter().map(|of| of_user(of, user)));
        let failed = |error: ort::Error| Error::invalid_argument(format!("ONNX Runtime: {error}"));
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(3);
        let value = TensorRef::from_array_view(([codes.len()], &codes[..])).map_err(failed)?;
        inputs.push((CODES_INPUT, value.into()));
        if !numbers.is_empty() {
            let value = TensorRef::from_array_view(([1, numbers.len()], &numbers[..]));
            inputs.push((NUMBERS_INPUT, value.map_err(failed)?.into()));
        }
        let candidates = TensorRef::from_array_view(([rows.len()], rows)).map_err(failed)?;
        inputs.push((ROWS_INPUT, candidates.into()));
        let outputs = session.run(inputs).map_err(failed)?;
        let (_, found) = outputs[self.output.as_str()]
            .try_extract_tensor::<f32>()
            .map_err(failed)?;
        if found.len() != rows.len() {
            return Err(Error::internal(format!(
                "the ranker gives {} scores for {} candidates",
                found.len(),
                rows.len()
            )));
        }
        scores.extend_from_slice(found);
        Ok(())
    }
}

impl Feature {
    fn read<'r, T: Element>(
        &self,
        request: &'r Request<'_>,
        users: usize,
    ) -> Result<Cow<'r, [T]>, Error> {
        let tensor = request.input_at(self.position)?.ok_or_else(|| {
            Error::invalid_argument(format!("the request has no input '{}'", self.name))
        })?;
        let values = tensor.as_slice::<T>()?;
        match values.len() {
            count if count == 1 || count == users => Ok(values),
            count => Err(Error::invalid_argument(format!(
                "tensor '{}' has {count} elements for {users} users; accepted: 1, or one for each user",
                self.name
            ))),
        }
    }
}

/// The value of the user at a place; one stands for all.
fn of_user<T: Copy>(values: &[T], user: usize) -> T {
    values[if values.len() == 1 { 0 } else { user }]
}

/// What a hoisted ranker's metadata say, if the model has the inputs for it.
fn inputs(session: &Session) -> Option<Inputs> {
    let said = session.metadata().ok()?.custom(INPUTS_KEY)?;
    let inputs: Inputs = serde_json::from_str(&said).ok()?;
    let names: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
    let has = |name| names.contains(&name);
    let fits = has(ROWS_INPUT)
        && has(CODES_INPUT)
        && has(NUMBERS_INPUT) != inputs.numbers.is_empty()
        && !inputs.codes.is_empty();
    fits.then_some(inputs)
}

fn invalid(path: &Path, what: &str) -> Error {
    Error::invalid_argument(format!("{} {what}", path.display()))
}
