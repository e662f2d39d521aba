//! The hoisted ranker: a user's and a moment's features once, and rows of the catalogue.

use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use serde::Deserialize;
use triton_backend::{DataType, Error, ModelContext};

use crate::features::{Features, Sources};
use crate::sessions::{Sessions, failed, floats};

const MODEL_FILE: &str = "ranker.onnx";
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
    sessions: Sessions,
    /// The features of the user and the moment, in the model's order.
    codes: Vec<Code>,
    /// Columns of continuous features, in the model's order.
    numbers: Vec<usize>,
    output: String,
}

/// A categorical feature.
struct Code {
    name: String,
    column: usize,
    /// Codes must be below.
    cardinality: usize,
}

/// A ranker's session and what a run is given.
pub(crate) struct Run {
    session: Session,
    codes: Vec<i32>,
    numbers: Vec<f32>,
}

impl Ranker {
    /// Reads the model of the version folder; its features become columns of the request's features.
    pub(crate) fn load(
        context: &ModelContext,
        threads: usize,
        sources: &mut Sources<'_>,
    ) -> Result<Self, Error> {
        let path = context.version_dir().join(MODEL_FILE);
        let sessions = Sessions::open(context, path, threads)?;
        let session = sessions.session()?;
        let inputs = inputs(&session)
            .ok_or_else(|| sessions.invalid("is no ranker that `saker assemble` has hoisted"))?;
        let output = sessions.only_output(&session)?.name().to_owned();
        let codes = inputs.codes.into_iter();
        let codes = codes.map(|(name, cardinality)| {
            let column = sources.column(&name, DataType::Int32, &sessions)?;
            Ok(Code {
                name,
                column,
                cardinality,
            })
        });
        let codes = codes.collect::<Result<Vec<_>, Error>>()?;
        let numbers = inputs.numbers.iter();
        let numbers = numbers.map(|name| sources.column(name, DataType::Fp32, &sessions));
        let numbers = numbers.collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            sessions,
            codes,
            numbers,
            output,
        })
    }

    /// A session of its own for an instance: sessions keep their buffers.
    pub(crate) fn run(&self) -> Result<Run, Error> {
        Ok(Run {
            session: self.sessions.session()?,
            codes: Vec::new(),
            numbers: Vec::new(),
        })
    }

    /// Appends the score of each row for the user at a place of the request.
    pub(crate) fn score(
        &self,
        run: &mut Run,
        features: &Features,
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
        for feature in &self.codes {
            let code = features.code(feature.column, user)?;
            if !usize::try_from(code).is_ok_and(|code| code < feature.cardinality) {
                // The transforms make the codes: it is their release that is wrong.
                return Err(Error::internal(format!(
                    "feature '{}' has the code {code}; accepted: 0 to {}",
                    feature.name,
                    feature.cardinality.saturating_sub(1)
                )));
            }
            codes.push(code);
        }
        numbers.clear();
        for &column in &self.numbers {
            numbers.push(features.number(column, user)?);
        }
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
        let found = floats(&outputs, &self.output)?;
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
