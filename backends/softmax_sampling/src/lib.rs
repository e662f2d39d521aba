//! Picks the items that are returned: the best by score, or a weighted sample of them. See the README beside this crate.

#![warn(clippy::indexing_slicing)]

use std::sync::Arc;

use saker_contract::{Code, tensor};
use saker_steps::select::{self, Choice};
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
    TensorConfig,
};

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];

/// Parameters in config.pbtxt. Those that control the choice are read separately.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// The input with the candidates.
    #[serde(default = "item_id")]
    item_input: String,
    /// The input whose length is the number of users. Default: `user_id`, if the config declares it.
    #[serde(default)]
    user_input: Option<String>,
}

fn item_id() -> String {
    tensor::ITEM_ID.to_owned()
}

/// A loaded model.
pub struct SoftmaxSampling {
    choice: Choice,
    item_input: usize,
    item_type: DataType,
    score_input: usize,
    user_input: Option<usize>,
    id_output: usize,
    score_output: usize,
}

/// An instance with its random generator and buffers.
pub struct Worker {
    choice: select::Worker,
}

impl Model for SoftmaxSampling {
    type Parameters = (select::Parameters, Parameters);
    type Instance = Worker;

    fn signature((_, parameters): &Self::Parameters) -> Signature {
        Signature::new()
            .optional_input(&parameters.item_input, IDS)
            .optional_input(
                parameters.user_input.as_deref().unwrap_or(tensor::USER_ID),
                IDS,
            )
            .other_inputs(&[DataType::Int32, DataType::Int64, DataType::Fp32])
            .other_outputs(&[DataType::Int32, DataType::Int64, DataType::Fp32])
    }

    fn load(
        context: &Arc<ModelContext>,
        (choice, parameters): Self::Parameters,
    ) -> Result<Self, Error> {
        let config = context.config();
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: several users come as rows of one flat tensor",
            ));
        }
        let (id_output, output) = only("integer output, for the ids", config.outputs(), false)?;
        let item_input = config.input_of_parameter("ITEM_INPUT", &parameters.item_input)?;
        let user_input = match &parameters.user_input {
            Some(name) => Some(config.input_of_parameter("USER_INPUT", name)?),
            None => config.input_index(tensor::USER_ID),
        };
        let unnamed = config
            .inputs()
            .iter()
            .enumerate()
            .find(|(position, input)| {
                let named = *position == item_input || Some(*position) == user_input;
                !named && IDS.contains(&input.data_type)
            });
        if let Some((_, input)) = unnamed {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares the input '{}' as {}; accepted: FP32, or a name that parameter ITEM_INPUT or \
                 USER_INPUT gives",
                input.name, input.data_type
            )));
        }
        let name = &parameters.item_input;
        let item_type = config.input(name)?.data_type;
        if output.data_type != item_type {
            return Err(Error::invalid_argument(format!(
                "output '{}' is {}, but input '{name}' is {item_type}; accepted: the same type",
                output.name, output.data_type
            )));
        }
        Ok(Self {
            choice: Choice::new(&choice)?,
            item_input,
            item_type,
            score_input: only("FP32 input, for the scores", config.inputs(), true)?.0,
            user_input,
            id_output,
            score_output: only("FP32 output, for the scores", config.outputs(), true)?.0,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker {
            choice: self.choice.worker(),
        })
    }
}

/// The only tensor that is FP32 (`is_score`) or that is not FP32, with its index. Returns an error if the config declares none or several.
fn only<'a>(
    what: &str,
    tensors: &'a [TensorConfig],
    is_score: bool,
) -> Result<(usize, &'a TensorConfig), Error> {
    let matching = tensors
        .iter()
        .enumerate()
        .filter(|(_, tensor)| (tensor.data_type == DataType::Fp32) == is_score);
    let found: Vec<_> = matching.collect();
    match found[..] {
        [one] => Ok(one),
        _ => Err(Error::invalid_argument(format!(
            "config.pbtxt must declare one {what}; it declares {}",
            found.len()
        ))),
    }
}

impl Instance<SoftmaxSampling> for Worker {
    fn execute(&mut self, model: &SoftmaxSampling, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, response| match model.item_type {
            DataType::Int64 => self.answer::<i64>(model, request, response),
            _ => self.answer::<i32>(model, request, response),
        });
        Ok(())
    }
}

impl Worker {
    fn answer<Id: Element + Into<i64>>(
        &mut self,
        model: &SoftmaxSampling,
        request: &Request<'_>,
        response: &Response<'_>,
    ) -> Result<(), Error> {
        let missing =
            || Error::invalid_argument("the items or their scores are missing from the request");
        let items = request.input_at(model.item_input)?.ok_or_else(missing)?;
        let scores = request.input_at(model.score_input)?.ok_or_else(missing)?;
        let ids = items.as_slice::<Id>()?;
        let values = scores.as_slice::<f32>()?;
        if ids.len() != values.len() {
            return Err(Error::invalid_argument(format!(
                "tensor '{}' has {} elements, '{}' has {}; accepted: as many scores as items",
                items.name(),
                ids.len(),
                scores.name(),
                values.len()
            )));
        }
        let users = match model.user_input {
            Some(input) => request.input_at(input)?.map_or(1, |users| users.len()),
            None => 1,
        };
        if ids.len() % users.max(1) != 0 || (users == 0 && !ids.is_empty()) {
            return Err(Error::invalid_argument(format!(
                "tensor '{}' has {} elements for {users} users; accepted: a multiple",
                items.name(),
                ids.len()
            )));
        }
        let row_length = (ids.len() / users.max(1)).max(1);
        // With one user the answer has the row's own length; with several users, rows are padded to the longest.
        let rows = ids
            .chunks_exact(row_length)
            .zip(values.chunks_exact(row_length))
            .map(|(ids, scores)| self.pick(model, ids, scores))
            .collect::<Result<Vec<_>, Error>>()?;
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [(users * longest) as i64];
        // Triton's buffers are zeroed: zero is the code and the score of padding.
        if let Some(output) = response.output_at::<Id>(model.id_output, &shape)? {
            write_rows(output, longest, &rows, |&(id, _)| id);
        }
        if let Some(output) = response.output_at::<f32>(model.score_output, &shape)? {
            write_rows(output, longest, &rows, |&(_, score)| score);
        }
        Ok(())
    }

    /// The chosen items of one user's row with their scores, best first.
    fn pick<Id: Copy + Into<i64>>(
        &mut self,
        model: &SoftmaxSampling,
        ids: &[Id],
        scores: &[f32],
    ) -> Result<Vec<(Id, f32)>, Error> {
        let is_item = |position: usize| {
            ids.get(position)
                .is_some_and(|id| (*id).into() != Code::PADDING)
        };
        let chosen = self.choice.choose(&model.choice, scores, is_item);
        let item = |position: usize| Some((*ids.get(position)?, *scores.get(position)?));
        chosen
            .map(|position| {
                item(position).ok_or_else(|| {
                    Error::internal(format!(
                        "chose candidate {position} of a row of {}",
                        ids.len()
                    ))
                })
            })
            .collect()
    }
}

/// Writes the rows, each padded to `longest` elements.
fn write_rows<P, T>(output: &mut [T], longest: usize, rows: &[Vec<P>], value: impl Fn(&P) -> T) {
    for (output, row) in output.chunks_exact_mut(longest.max(1)).zip(rows) {
        for (to, chosen) in output.iter_mut().zip(row) {
            *to = value(chosen);
        }
    }
}

triton_backend::export!(SoftmaxSampling);
