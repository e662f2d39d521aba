//! The hoisted ranker. It reads user and context features once per user, and rows of the catalogue's precomputed tables.

use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use saker_contract::artefact::HOISTED_MODEL;
use serde::Deserialize;
use triton_backend::{DataType, Error, ModelContext};

use crate::features::{Features, Sources};
use crate::sessions::{Sessions, failed, floats};

/// The inputs of a hoisted ranker: rows of the catalogue, INT32 `[N]`; codes, INT32 `[features]`; continuous features, FP32 `[1,
/// features]`.
const ROWS_INPUT: &str = "candidate_rows";
const CODES_INPUT: &str = "user_codes";
const NUMBERS_INPUT: &str = "user_numbers";
/// Metadata key with the names of the features.
const INPUTS_KEY: &str = "saker.inputs";

/// The inputs that the metadata describe.
#[derive(Deserialize)]
struct Inputs {
    codes: Vec<(String, usize)>,
    numbers: Vec<String>,
}

/// A ranker, loaded once per instance.
pub(crate) struct Ranker {
    sessions: Sessions,
    /// The user and context features, in the model's order.
    codes: Vec<Code>,
    /// Columns of the continuous features, in the model's order.
    numbers: Vec<usize>,
    output: String,
}

/// A categorical feature.
struct Code {
    name: String,
    column: usize,
    /// Exclusive upper bound of the codes.
    cardinality: usize,
}

/// A ranker's session and the buffers for the inputs of a run.
pub(crate) struct Run {
    session: Session,
    codes: Vec<i32>,
    numbers: Vec<f32>,
}

impl Ranker {
    /// Reads the model of the version folder and adds its features to the columns of the request.
    pub(crate) fn load(
        context: &ModelContext,
        threads: usize,
        sources: &mut Sources<'_>,
    ) -> Result<Self, Error> {
        let path = context.version_dir().join(HOISTED_MODEL);
        let sessions = Sessions::open(context, path, threads)?;
        let session = sessions.session()?;
        let inputs = inputs(&session)
            .ok_or_else(|| sessions.invalid("is not a ranker that `saker assemble` hoisted"))?;
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

    /// Creates the session and buffers of an instance.
    pub(crate) fn run(&self) -> Result<Run, Error> {
        Ok(Run {
            session: self.sessions.session()?,
            codes: Vec::new(),
            numbers: Vec::new(),
        })
    }

    /// Appends the score of each catalogue row for one user, given by its index in the request.
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
                // The transforms make the codes, so their release is wrong, not the request.
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
                "the ranker returned {} scores for {} candidates",
                found.len(),
                rows.len()
            )));
        }
        scores.extend_from_slice(found);
        Ok(())
    }
}

/// The inputs of a hoisted ranker, read from its metadata; `None` if the model lacks such inputs.
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
