//! `fused_query`: what a request leaves out, the user's features, and both transforms, in one step. README.md has the tensors, the
//! parameters and what happens at the edges.

mod context;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;

use saker_steps::lookup;
use saker_steps::transform::{self, triton_type};
use saker_workflow::{Plan, Scratch};
use serde::Deserialize;
use triton_backend::{Batch, DataType, Error, Instance, Model, ModelContext, Response, Signature};

use crate::context::Moment;
use crate::user::User;

const ID_TYPES: &[DataType] = &[DataType::Int32, DataType::Int64];
const COLUMN_TYPES: &[DataType] = &[
    DataType::Int32,
    DataType::Int64,
    DataType::Fp32,
    DataType::Fp64,
];
const OUTPUT_TYPES: &[DataType] = &[
    DataType::Int32,
    DataType::Int64,
    DataType::Fp32,
    DataType::Fp64,
    DataType::Bool,
];

/// Parameters in config.pbtxt, beside those of `feature_lookup`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// JSON object: a stored column and its type, such as `{"age": "INT32"}`.
    user_columns: String,
    /// JSON object: an output and the stored column that it gives as it is.
    #[serde(default)]
    stored_outputs: Option<String>,
    /// JSON object: what a request leaves out, as in `request_defaults`.
    #[serde(default)]
    request_defaults: Option<String>,
}

/// A loaded model.
pub struct FusedQuery {
    user: User,
    moment: Moment,
    /// Per output of config.pbtxt, where it comes from.
    outputs: Vec<Source>,
}

/// Where an output comes from.
#[derive(Clone, Copy)]
enum Source {
    /// An output of the user's workflow.
    User(usize),
    /// An output of the workflow of the moment.
    Moment(usize),
    /// A stored column.
    Stored(usize),
}

/// Buffers and the connection of one instance.
pub struct Worker {
    user: user::Worker,
    moment: context::Worker,
    scratch: Scratch,
    /// Index in the batch, first row, number of rows.
    requests: Vec<(usize, usize, usize)>,
}

impl Model for FusedQuery {
    type Parameters = (lookup::Parameters, Parameters);
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new()
            .other_inputs(COLUMN_TYPES)
            .other_outputs(OUTPUT_TYPES)
    }

    fn load(
        context: &Arc<ModelContext>,
        (lookup, parameters): Self::Parameters,
    ) -> Result<Self, Error> {
        let config = context.config();
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: a request carries its users in its tensors",
            ));
        }
        let Some(id) = config.inputs().first() else {
            return Err(Error::invalid_argument(
                "config.pbtxt declares no input; accepted: the users' ids first, then what is known of the moment",
            ));
        };
        if !ID_TYPES.contains(&id.data_type) {
            return Err(Error::invalid_argument(format!(
                "input '{}' holds the users' ids and is {}; accepted: INT32, INT64",
                id.name, id.data_type
            )));
        }
        if lookup.mode != lookup::Mode::Online {
            return Err(Error::invalid_argument(
                "parameter 'MODE' is 'cached'; accepted: online",
            ));
        }
        let columns = object("USER_COLUMNS", Some(&parameters.user_columns))?;
        let user = User::load(context, &lookup, id, &columns)?;
        let moment = Moment::load(context, parameters.request_defaults.as_deref())?;
        let stored = object("STORED_OUTPUTS", parameters.stored_outputs.as_deref())?;
        let outputs = config
            .outputs()
            .iter()
            .map(|output| {
                let (source, given) = match stored.get(&output.name) {
                    Some(column) => {
                        let (place, given) = user.column(column).ok_or_else(|| {
                            Error::invalid_argument(format!(
                                "parameter 'STORED_OUTPUTS' gives '{}' the column '{column}', which USER_COLUMNS lacks",
                                output.name
                            ))
                        })?;
                        (Source::Stored(place), given)
                    }
                    None => computed(&user, &moment, &output.name)?,
                };
                match given == output.data_type {
                    true => Ok(source),
                    false => Err(Error::invalid_argument(format!(
                        "output '{}' is declared as {}, but it is {given}",
                        output.name, output.data_type
                    ))),
                }
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            user,
            moment,
            outputs,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker {
            user: self.user.worker(),
            moment: context::Worker::default(),
            scratch: Scratch::default(),
            requests: Vec::new(),
        })
    }
}

/// The workflow's output of this name, and its type.
fn computed(user: &User, moment: &Moment, name: &str) -> Result<(Source, DataType), Error> {
    let of = |plan: &Plan, source: fn(usize) -> Source| {
        let place = plan.output_index(name)?;
        Some((source(place), triton_type(plan.outputs()[place].dtype)))
    };
    of(&user.plan, Source::User)
        .or_else(|| of(&moment.plan, Source::Moment))
        .ok_or_else(|| {
            let given = user.plan.outputs().iter().chain(moment.plan.outputs());
            let given: Vec<&str> = given.map(|output| output.name.as_str()).collect();
            Error::invalid_argument(format!(
                "output '{name}' is given by neither workflow; they give: {}",
                given.join(", ")
            ))
        })
}

/// A parameter that is a JSON object of texts.
fn object(key: &str, text: Option<&str>) -> Result<BTreeMap<String, String>, Error> {
    let Some(text) = text else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_str(text).map_err(|error| {
        Error::invalid_argument(format!(
            "parameter '{key}' is '{text}': {error}; accepted: a JSON object of names and texts"
        ))
    })
}

impl Instance<FusedQuery> for Worker {
    fn execute(&mut self, model: &FusedQuery, batch: &Batch<'_>) -> Result<(), Error> {
        self.requests.clear();
        self.user.clear();
        for (index, request) in batch.pending() {
            match self.user.read(&model.user, request) {
                Ok((start, count)) => self.requests.push((index, start, count)),
                Err(error) => batch.reject(index, error),
            }
        }
        batch.compute_starts();
        self.user.look_up(&model.user, self.requests.len());
        let (user, moment, scratch) = (&self.user, &mut self.moment, &mut self.scratch);
        for &(index, start, count) in &self.requests {
            batch.respond(index, |request, response| {
                let length = moment.fill(&model.moment, request)?;
                let rows = (start, count);
                answer(model, user, rows, moment, length, response, scratch)
            });
        }
        Ok(())
    }
}

fn answer(
    model: &FusedQuery,
    user: &user::Worker,
    (start, count): (usize, usize),
    moment: &context::Worker,
    length: usize,
    response: &Response<'_>,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let users = user.slices(&model.user, start, count)?;
    let users = model.user.plan.bind(&users).map_err(transform::invalid)?;
    let moments = moment.slices(&model.moment);
    let moments = model
        .moment
        .plan
        .bind(&moments)
        .map_err(transform::invalid)?;
    for (position, source) in model.outputs.iter().enumerate() {
        let (plan, bound, output, rows) = match *source {
            Source::User(output) => (&model.user.plan, &users, output, count),
            Source::Moment(output) => (&model.moment.plan, &moments, output, length),
            Source::Stored(column) => {
                user.copy(&model.user, column, (start, count), response, position)?;
                continue;
            }
        };
        let shape = [rows as i64];
        transform::write(plan, bound, output, response, position, &shape, scratch)?;
    }
    Ok(())
}

triton_backend::export!(FusedQuery);
