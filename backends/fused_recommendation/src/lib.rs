//! `fused_recommendation` computes a user's recommendations in one step. It fills in request defaults and reads the user's features and
//! seen items in one round trip to the store. It then runs both transforms, the query tower, the retrieval and the ranker over precomputed
//! rows of the catalogue, and chooses the items. README.md has the tensors, the parameters and the edge cases.

#![warn(clippy::indexing_slicing)]

mod catalogue;
mod context;
mod features;
mod ranker;
mod sessions;
mod tower;
mod user;
mod worker;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use saker_contract::Database;
use saker_contract::artefact::HOISTED_IDS;
use saker_contract::tensor::DEGRADED;
use saker_steps::lookup;
use saker_steps::retrieval::{self, Retrieval};
use saker_steps::seen::{self, Filter};
use saker_steps::select::{self, Choice};
use saker_steps::users;
use saker_store::Settings;
use serde::Deserialize;
use triton_backend::{DataType, Error, Model, ModelContext, Signature};

use crate::catalogue::Catalogue;
use crate::context::Moment;
use crate::features::{Column, Sources};
use crate::ranker::Ranker;
use crate::tower::Tower;
use crate::user::User;
use crate::worker::Worker;

const IDS: &[DataType] = &[DataType::Int32, DataType::Int64];
const COLUMN_TYPES: &[DataType] = &[
    DataType::Int32,
    DataType::Int64,
    DataType::Fp32,
    DataType::Fp64,
];

/// Parameters in config.pbtxt, in addition to those of `feature_lookup`, `bloom_filter`, `faiss_retrieval` and `softmax_sampling`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    /// JSON object that maps a stored column to its type, such as `{"age": "INT32"}`.
    user_columns: String,
    /// JSON object with the defaults for values missing from the request, as in `request_defaults`.
    #[serde(default)]
    request_defaults: Option<String>,
    /// The stored column with the users' top categories. Popular items of that category fill up short answers.
    #[serde(default)]
    category_column: Option<String>,
    /// URL of the store of the seen items. Default: database 1 of the features' server; in a cluster, the cluster itself.
    #[serde(default)]
    seen_url: Option<String>,
    /// Like `MODE` of `bloom_filter`.
    #[serde(default)]
    seen_mode: Option<String>,
    /// Number of threads that ONNX Runtime uses for one request.
    #[serde(default = "one", rename = "intra_op_thread_count")]
    threads: NonZeroUsize,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// A loaded model.
pub struct FusedRecommendation {
    user: User,
    moment: Moment,
    /// The features that query tower and ranker read.
    columns: Vec<Column>,
    tower: Tower,
    retrieval: Retrieval,
    catalogue: Catalogue,
    ranker: Ranker,
    filter: Filter,
    choice: Choice,
    /// Index of the stored column with the top category.
    category: Option<usize>,
    item_type: DataType,
    /// Index of the output mask of missing user data.
    degraded: Option<usize>,
}

impl Model for FusedRecommendation {
    type Parameters = (
        lookup::Parameters,
        seen::Parameters,
        retrieval::Parameters,
        select::Parameters,
        users::Parameters,
        Parameters,
    );
    type Instance = Worker;

    fn signature(_: &Self::Parameters) -> Signature {
        Signature::new().other_inputs(COLUMN_TYPES).other_outputs(&[
            DataType::Fp32,
            DataType::Int32,
            DataType::Int64,
        ])
    }

    fn load(
        context: &Arc<ModelContext>,
        (lookup, seen, retrieval, choice, users, parameters): Self::Parameters,
    ) -> Result<Self, Error> {
        let config = context.config();
        let ([id, ..], [ids, scores, more @ ..]) = (config.inputs(), config.outputs()) else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt declares {} inputs and {} outputs; accepted: the user ids, then the inputs of the context; \
                 the ids of the items that are shown, and their scores",
                config.inputs().len(),
                config.outputs().len()
            )));
        };
        for output in more {
            let expected = [DataType::Int32];
            of_type("output", &output.name, output.data_type, &expected)?;
            if output.name != DEGRADED || more.len() > 1 {
                return Err(Error::invalid_argument(format!(
                    "config.pbtxt declares the output '{}'; accepted after the scores: '{}' alone",
                    output.name, DEGRADED
                )));
            }
        }
        of_type("input", &id.name, id.data_type, IDS)?;
        of_type("output", &ids.name, ids.data_type, IDS)?;
        of_type("output", &scores.name, scores.data_type, &[DataType::Fp32])?;
        if config.max_batch_size() != 0 {
            return Err(Error::invalid_argument(
                "max_batch_size must be 0: a request carries its users in its tensors",
            ));
        }
        if lookup.mode != lookup::Mode::Online {
            return Err(Error::invalid_argument(
                "parameter 'MODE' is 'cached'; accepted: online",
            ));
        }
        let columns = columns(&parameters.user_columns)?;
        let user = User::load(context, &lookup, users, id, &columns)?;
        let moment = Moment::load(context, parameters.request_defaults.as_deref())?;
        let category = parameters.category_column.as_deref().map(|column| {
            user.integers(column).ok_or_else(|| {
                Error::invalid_argument(format!(
                    "parameter 'CATEGORY_COLUMN' is '{column}'; accepted: a column of USER_COLUMNS of type INT32 or INT64"
                ))
            })
        });
        let category = category.transpose()?;

        let threads = parameters.threads.get();
        let mut sources = Sources::new(&user.plan, &moment.plan);
        let tower = Tower::load(context, threads, &mut sources)?;
        let ranker = Ranker::load(context, threads, &mut sources)?;
        let columns = sources.into_columns();

        let online = lookup.settings()?;
        let mode = seen::mode("SEEN_MODE", parameters.seen_mode.as_deref())?;
        let store = seen_store(&seen, parameters.seen_url.as_deref(), &online)?;
        let filter = Filter::load(context, &seen, store, mode, id.data_type)?.along(&online);
        Ok(Self {
            user,
            moment,
            columns,
            retrieval: Retrieval::load(context, ("the query tower", tower.dimension), &retrieval)?,
            tower,
            catalogue: Catalogue::read(&context.version_dir().join(HOISTED_IDS))?,
            ranker,
            filter,
            choice: Choice::new(&choice)?,
            category,
            item_type: ids.data_type,
            degraded: config.output_index(DEGRADED),
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Worker::new(self)
    }
}

fn of_type(what: &str, name: &str, found: DataType, accepted: &[DataType]) -> Result<(), Error> {
    if accepted.contains(&found) {
        return Ok(());
    }
    let names: Vec<String> = accepted.iter().map(ToString::to_string).collect();
    Err(Error::invalid_argument(format!(
        "{what} '{name}' is {found}; accepted: {}",
        names.join(", ")
    )))
}

/// The stored columns and their types.
fn columns(text: &str) -> Result<BTreeMap<String, String>, Error> {
    serde_json::from_str(text).map_err(|error| {
        Error::invalid_argument(format!(
            "parameter 'USER_COLUMNS' is '{text}': {error}; accepted: a JSON object of columns and types, such as \
             {{\"age\": \"INT32\"}}"
        ))
    })
}

/// The store of the seen items.
fn seen_store(
    seen: &seen::Parameters,
    url: Option<&str>,
    online: &Settings,
) -> Result<Settings, Error> {
    match url {
        Some(url) => seen.settings("SEEN_URL", url),
        None if online.is_cluster() => Ok(online.clone()),
        None => online
            .clone()
            .with_database(Database::Activity)
            .map_err(|error| Error::invalid_argument(format!("parameter 'REDIS_URL': {error}"))),
    }
}

triton_backend::export!(FusedRecommendation);
