//! Decodes item codes to raw ids with the vocabulary of the model's version folder, and passes their scores through. See the README beside
//! this crate.

#![warn(clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use saker_contract::Code;
use saker_contract::artefact::CATEGORIES;
use saker_workflow::Vocabulary;
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
    Tensor,
};

pub mod decode;

use decode::Id;

/// Parameters in config.pbtxt.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// A file, or a folder of part.N.parquet, under `categories/`. Default: the only one that exists.
    #[serde(default)]
    vocabulary: Option<String>,
    /// Code of the vocabulary's first row.
    #[serde(default = "default_start")]
    start_index: u32,
}

fn default_start() -> u32 {
    Code::FIRST as u32
}

/// A loaded model.
pub struct IdDecode {
    /// Raw ids; the first one has the code `start`.
    table: Vec<i64>,
    start: u32,
    /// The tensor that holds the codes.
    ids: Pair,
    /// Tensors that are copied unchanged.
    passed: Vec<Pair>,
}

/// An input and the output of the same name, by their indices in config.pbtxt.
struct Pair {
    name: String,
    input: usize,
    output: usize,
    input_type: DataType,
    output_type: DataType,
}

/// An instance. It keeps no state between batches.
pub struct Worker;

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];
const VALUES: &[DataType] = &[DataType::Fp32, DataType::Fp64];

impl Model for IdDecode {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .other_inputs(IDS)
            .other_inputs(VALUES)
            .other_outputs(IDS)
            .other_outputs(VALUES)
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        let (ids, passed) = pairs(context)?;
        let path = find_vocabulary(
            &context.version_dir().join(CATEGORIES),
            parameters.vocabulary.as_deref(),
        )?;
        let vocabulary = Vocabulary::read(
            &path,
            &vocabulary_name(&path),
            parameters.start_index as usize,
        )
        .map_err(|error| Error::invalid_argument(error.to_string()))?;
        let table = vocabulary.ints().ok_or_else(|| {
            Error::invalid_argument(format!(
                "{}: the raw ids must be one column of integers without nulls",
                path.display()
            ))
        })?;
        if ids.output_type == DataType::Int32
            && let Some(id) = table.iter().find(|&&id| i32::try_from(id).is_err())
        {
            return Err(Error::invalid_argument(format!(
                "{}: raw id {id} does not fit output '{}' of type INT32; accepted: INT64",
                path.display(),
                ids.name
            )));
        }
        Ok(Self {
            table,
            start: parameters.start_index,
            ids,
            passed,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker)
    }
}

impl Instance<IdDecode> for Worker {
    fn execute(&mut self, model: &IdDecode, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, response| match model.ids.input_type {
            DataType::Int64 => answer::<i64>(model, request, response),
            _ => answer::<i32>(model, request, response), // the signature accepts no other type
        });
        Ok(())
    }
}

fn answer<T: Id + Element>(
    model: &IdDecode,
    request: &Request<'_>,
    response: &Response<'_>,
) -> Result<(), Error> {
    let codes_tensor = given(request, &model.ids)?;
    let codes = codes_tensor.as_slice::<T>()?;
    let shape = codes_tensor.shape();
    match model.ids.output_type {
        DataType::Int64 => {
            if let Some(ids) = response.output_at::<i64>(model.ids.output, shape)? {
                decode::decode(&codes, &model.table, model.start, ids);
            }
        }
        _ => {
            if let Some(ids) = response.output_at::<i32>(model.ids.output, shape)? {
                decode::decode(&codes, &model.table, model.start, ids);
            }
        }
    }
    for pair in &model.passed {
        let tensor = given(request, pair)?;
        if tensor.shape() != shape {
            return Err(Error::invalid_argument(format!(
                "tensor '{}' has shape {:?} but '{}' has {shape:?}; accepted: one shape for both",
                pair.name,
                tensor.shape(),
                model.ids.name
            )));
        }
        match pair.input_type {
            DataType::Fp64 => pass::<T, f64>(pair, &tensor, &codes, 0.0, response)?,
            _ => pass::<T, f32>(pair, &tensor, &codes, 0.0, response)?,
        }
    }
    Ok(())
}

fn pass<T: Id, V: Element>(
    pair: &Pair,
    tensor: &Tensor<'_>,
    codes: &[T],
    zero: V,
    response: &Response<'_>,
) -> Result<(), Error> {
    let values = tensor.as_slice::<V>()?;
    if let Some(out) = response.output_at::<V>(pair.output, tensor.shape())? {
        decode::pass(codes, &values, zero, out);
    }
    Ok(())
}

fn given<'r>(request: &'r Request<'_>, pair: &Pair) -> Result<Tensor<'r>, Error> {
    request
        .input_at(pair.input)?
        .ok_or_else(|| Error::invalid_argument(format!("tensor '{}' is missing", pair.name)))
}

/// The integer tensor and the other tensors, each with the output of its name.
fn pairs(context: &ModelContext) -> Result<(Pair, Vec<Pair>), Error> {
    let config = context.config();
    let mut ids = None;
    let mut passed = Vec::new();
    for (output, declared) in config.outputs().iter().enumerate() {
        let input = config.input_index(&declared.name).ok_or_else(|| {
            Error::invalid_argument(format!(
                "output '{}' needs an input of the same name",
                declared.name
            ))
        })?;
        let pair = Pair {
            name: declared.name.clone(),
            input,
            output,
            input_type: config.input(&declared.name)?.data_type,
            output_type: declared.data_type,
        };
        match (
            IDS.contains(&pair.input_type),
            IDS.contains(&pair.output_type),
        ) {
            (true, true) if ids.is_none() => ids = Some(pair),
            (true, true) => {
                return Err(Error::invalid_argument(format!(
                    "output '{}' is a second integer tensor; accepted: one, the ids",
                    pair.name
                )));
            }
            _ if pair.input_type == pair.output_type => passed.push(pair),
            _ => {
                return Err(Error::invalid_argument(format!(
                    "output '{}' is {}, but the input of its name is {}",
                    pair.name, pair.output_type, pair.input_type
                )));
            }
        }
    }
    if let Some(input) = config
        .inputs()
        .iter()
        .find(|input| config.output_index(&input.name).is_none())
    {
        return Err(Error::invalid_argument(format!(
            "input '{}' has no output of the same name",
            input.name
        )));
    }
    match ids {
        Some(ids) => Ok((ids, passed)),
        None => Err(Error::invalid_argument(
            "config.pbtxt needs one INT32 or INT64 input with an output of the same name: the ids",
        )),
    }
}

fn find_vocabulary(folder: &Path, file: Option<&str>) -> Result<PathBuf, Error> {
    let unreadable = |error| Error::invalid_argument(format!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found.push(path);
        }
    }
    found.sort();
    let named = |path: &PathBuf| file.is_none_or(|file| path.file_name() == Some(file.as_ref()));
    let mut matching = found.iter().filter(|path| named(path));
    if let (Some(path), None) = (matching.next(), matching.next()) {
        return Ok(path.clone());
    }
    let names: Vec<_> = found
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    Err(Error::invalid_argument(format!(
        "parameter 'VOCABULARY' is {}; accepted: one of the vocabularies in {}: {}",
        file.map_or("absent".to_owned(), |file| format!("'{file}'")),
        folder.display(),
        if names.is_empty() {
            "the folder has none".to_owned()
        } else {
            names.join(", ")
        }
    )))
}

/// The column name in `unique.<column>.parquet`.
fn vocabulary_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    let stem = stem.unwrap_or_default();
    stem.strip_prefix("unique.").unwrap_or(&stem).to_owned()
}

triton_backend::export!(IdDecode);
