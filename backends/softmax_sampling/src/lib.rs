//! Picks the items that are returned: the best by score, or a weighted sample of them. See the README beside this crate.

use std::sync::Arc;

use saker_steps::select::{self, Choice};
use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
};

/// The code of padding, which stands for no item.
const PADDING: i64 = 0;

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];

/// Parameters in config.pbtxt, beside those of the choice.
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
    "item_id".to_owned()
}

const USER_INPUT: &str = "user_id";

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

/// What it chooses with, and a buffer that is used again.
pub struct Worker {
    choice: select::Worker,
    candidates: Vec<usize>,
}

impl Model for SoftmaxSampling {
    type Parameters = (select::Parameters, Parameters);
    type Instance = Worker;

    fn signature((_, parameters): &Self::Parameters) -> Signature {
        Signature::new()
            .optional_input(&parameters.item_input, IDS)
            .optional_input(parameters.user_input.as_deref().unwrap_or(USER_INPUT), IDS)
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
        let only = |what: &str, found: Vec<usize>| match found[..] {
            [one] => Ok(one),
            _ => Err(Error::invalid_argument(format!(
                "config.pbtxt must declare one {what}; it declares {}",
                found.len()
            ))),
        };
        let of_type = |tensors: &[triton_backend::TensorConfig], is_score: bool| {
            let matching = tensors
                .iter()
                .enumerate()
                .filter(|(_, tensor)| (tensor.data_type == DataType::Fp32) == is_score);
            matching.map(|(position, _)| position).collect()
        };
        let id_output = only(
            "integer output, for the ids",
            of_type(config.outputs(), false),
        )?;
        let position = |key: &str, name: &str| {
            config.input_index(name).ok_or_else(|| {
                Error::invalid_argument(format!(
                    "parameter {key} = '{name}': config.pbtxt has no input of that name"
                ))
            })
        };
        let item_input = position("ITEM_INPUT", &parameters.item_input)?;
        let user_input = match &parameters.user_input {
            Some(name) => Some(position("USER_INPUT", name)?),
            None => config.input_index(USER_INPUT),
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
        let item_type = config.input(&parameters.item_input)?.data_type;
        let output = &config.outputs()[id_output];
        if output.data_type != item_type {
            return Err(Error::invalid_argument(format!(
                "output '{}' is {}, but input '{}' is {item_type}; accepted: the same type",
                output.name, output.data_type, parameters.item_input
            )));
        }
        Ok(Self {
            choice: Choice::new(&choice)?,
            item_input,
            item_type,
            score_input: only("FP32 input, for the scores", of_type(config.inputs(), true))?,
            user_input,
            id_output,
            score_output: only(
                "FP32 output, for the scores",
                of_type(config.outputs(), true),
            )?,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker {
            choice: self.choice.worker(),
            candidates: Vec::new(),
        })
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
            || Error::invalid_argument("the request leaves out the items or their scores");
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
        let row_length = ids.len() / users.max(1);
        // With one user the answer is as long as it is; with several, the rows are padded to the longest.
        let rows: Vec<Vec<usize>> = (0..users)
            .map(|user| {
                let start = user * row_length;
                self.pick(
                    model,
                    &ids[start..start + row_length],
                    &values[start..start + row_length],
                )
            })
            .collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [(users * longest) as i64];
        // Triton's buffers start as zero: padding's code and score.
        if let Some(output) = response.output_at::<Id>(model.id_output, &shape)? {
            write_rows(output, &ids, &rows, row_length, longest);
        }
        if let Some(output) = response.output_at::<f32>(model.score_output, &shape)? {
            write_rows(output, &values, &rows, row_length, longest);
        }
        Ok(())
    }

    /// Positions in one user's row, best first.
    fn pick<Id: Copy + Into<i64>>(
        &mut self,
        model: &SoftmaxSampling,
        ids: &[Id],
        scores: &[f32],
    ) -> Vec<usize> {
        self.candidates.clear();
        self.candidates
            .extend((0..ids.len()).filter(|position| ids[*position].into() != PADDING));
        self.choice
            .choose(&model.choice, scores, &mut self.candidates);
        self.candidates.clone()
    }
}

fn write_rows<T: Copy>(
    output: &mut [T],
    input: &[T],
    rows: &[Vec<usize>],
    row_length: usize,
    longest: usize,
) {
    for (user, row) in rows.iter().enumerate() {
        for (to, from) in output[user * longest..].iter_mut().zip(row) {
            *to = input[user * row_length + from];
        }
    }
}

triton_backend::export!(SoftmaxSampling);
