//! `feature_lookup` reads the features of users or items from Feast's online store. README.md has the tensors, the parameters and the edge
//! cases.

#![warn(clippy::indexing_slicing)]

mod cached;
mod online;

use std::sync::Arc;

use saker_contract::{RawId, degraded, tensor};
use saker_steps::lookup::{Feature, Meters, Mode, Parameters};
use saker_store::feast::FeatureView;
use triton_backend::{
    Batch, DataType, Error, Instance, Model, ModelContext, Request, Response, Signature,
};

use crate::cached::Cache;
use crate::online::Online;

const FEATURE_TYPES: &[DataType] = &[
    DataType::Int32,
    DataType::Int64,
    DataType::Fp32,
    DataType::Fp64,
    DataType::Bool,
];
const ID_TYPES: &[DataType] = &[DataType::Int32, DataType::Int64];
/// Types of the ids, and of inputs that only order the steps of an ensemble.
const INPUT_TYPES: &[DataType] = FEATURE_TYPES;

/// One loaded `feature_lookup` model.
pub struct FeatureLookup {
    tensors: Tensors,
    store: Store,
    meters: Arc<Meters>,
}

/// The source of the features.
enum Store {
    Online(saker_store::Link, FeatureView),
    Cached(Cache),
}

/// The tensors that the config declares.
struct Tensors {
    id_name: String,
    id_type: DataType,
    /// Index of the output that repeats the id.
    echo: Option<usize>,
    /// Index of the output that marks users with unknown features.
    degraded: Option<usize>,
    features: Arc<[Feature]>,
}

impl Model for FeatureLookup {
    type Parameters = Parameters;
    type Instance = Lookup;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .other_inputs(INPUT_TYPES)
            .other_outputs(FEATURE_TYPES)
    }

    fn load(context: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        let tensors = Tensors::read(context, &parameters)?;
        let names = tensors.features.iter().map(|feature| feature.name.clone());
        let view = parameters.view(names, tensors.id_type)?;
        let settings = parameters.settings()?;
        let meters = Arc::new(Meters::new(context, &view)?);
        let store = match parameters.mode {
            Mode::Online => {
                let link = saker_store::Link::open(settings)
                    .map_err(|error| Error::internal(error.to_string()))?;
                Store::Online(link, view)
            }
            Mode::Cached => Store::Cached(Cache::load(
                context,
                settings,
                view,
                Arc::clone(&tensors.features),
                &parameters,
                Arc::clone(&meters),
            )?),
        };
        Ok(Self {
            tensors,
            store,
            meters,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Lookup, Error> {
        Ok(match &self.store {
            Store::Online(link, view) => Lookup::Online(Box::new(Online::new(
                link,
                view,
                Arc::clone(&self.tensors.features),
            ))),
            Store::Cached(_) => Lookup::Cached {
                ids: Vec::new(),
                rows: Vec::new(),
            },
        })
    }
}

impl Tensors {
    fn read(context: &ModelContext, parameters: &Parameters) -> Result<Self, Error> {
        let config = context.config();
        let [id, awaited @ ..] = config.inputs() else {
            return Err(Error::invalid_argument(
                "config.pbtxt declares no inputs; accepted: the entity's ids (INT32 or INT64), first",
            ));
        };
        if !ID_TYPES.contains(&id.data_type) {
            return Err(Error::invalid_argument(format!(
                "input '{}', the first, is {}; accepted for the entity's ids: INT32, INT64",
                id.name, id.data_type
            )));
        }
        if let Some(input) = awaited.iter().find(|input| !input.optional) {
            return Err(Error::invalid_argument(format!(
                "input '{}' is required, and nothing reads it; accepted: the entity's ids, first, and optional inputs \
                 that an ensemble waits for before it starts this step",
                input.name
            )));
        }
        let mut defaults = parameters.defaults()?;
        let mut vocabularies = parameters.vocabularies(context.version_dir())?;
        let (mut echo, mut degraded) = (None, None);
        let mut features = Vec::new();
        for (position, output) in config.outputs().iter().enumerate() {
            if output.name == parameters.entity {
                if output.data_type != id.data_type {
                    return Err(Error::invalid_argument(format!(
                        "output '{}' echoes the ids of input '{}' and is {}; accepted: {}",
                        output.name, id.name, output.data_type, id.data_type
                    )));
                }
                echo = Some(position);
            } else if output.name == tensor::DEGRADED && output.data_type == DataType::Int32 {
                degraded = Some(position);
            } else {
                let default = defaults.remove(&output.name);
                let vocabulary = vocabularies.remove(&output.name);
                let feature = Feature::new(position, output, default)?;
                features.push(feature.with_vocabulary(vocabulary));
            }
        }
        if let Some(name) = defaults.keys().next() {
            let known: Vec<&str> = features
                .iter()
                .map(|feature| feature.name.as_str())
                .collect();
            return Err(Error::invalid_argument(format!(
                "parameter 'DEFAULTS' (or 'DEFAULT_USER_AGE', which means 'age') names '{name}', which is not a \
                 feature output; accepted: {}",
                known.join(", ")
            )));
        }
        Ok(Self {
            id_name: id.name.clone(),
            id_type: id.data_type,
            echo,
            degraded,
            features: features.into(),
        })
    }

    /// Appends the ids of a request as i64. Returns their number.
    fn read_ids(&self, request: &Request<'_>, ids: &mut Vec<i64>) -> Result<usize, Error> {
        let tensor = request.input_at(0)?.ok_or_else(|| {
            Error::invalid_argument(format!(
                "the request has no input '{}', the ids to look up",
                self.id_name
            ))
        })?;
        match self.id_type {
            DataType::Int64 => ids.extend_from_slice(&tensor.as_slice::<i64>()?),
            _ => ids.extend(tensor.as_slice::<i32>()?.iter().map(|&id| i64::from(id))),
        }
        Ok(tensor.len())
    }

    /// Writes the echo: the id if the entity exists, otherwise -1.
    fn write_echo(
        &self,
        response: &Response<'_>,
        shape: &[i64],
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), Error> {
        let Some(echo) = self.echo else { return Ok(()) };
        match self.id_type {
            DataType::Int64 => {
                if let Some(out) = response.output_at::<i64>(echo, shape)? {
                    out.iter_mut().zip(ids).for_each(|(out, id)| *out = id);
                }
            }
            _ => {
                if let Some(out) = response.output_at::<i32>(echo, shape)? {
                    // Each id was read as i32, or is -1.
                    out.iter_mut()
                        .zip(ids)
                        .for_each(|(out, id)| *out = id as i32);
                }
            }
        }
        Ok(())
    }

    /// Writes which entities have unknown features.
    fn write_degraded(
        &self,
        response: &Response<'_>,
        shape: &[i64],
        unanswered: &[bool],
    ) -> Result<(), Error> {
        let Some(position) = self.degraded else {
            return Ok(());
        };
        if let Some(out) = response.output_at::<i32>(position, shape)? {
            let mask = |&unanswered: &bool| i32::from(unanswered) * degraded::USER_FEATURES;
            let masks = unanswered.iter().map(mask);
            out.iter_mut()
                .zip(masks)
                .for_each(|(out, mask)| *out = mask);
        }
        Ok(())
    }
}

/// One instance.
pub enum Lookup {
    /// Reads from the store on each request.
    Online(Box<Online>),
    /// Reads from the shared table; the buffers are reused.
    Cached {
        /// The ids of a request.
        ids: Vec<i64>,
        /// The row of each id.
        rows: Vec<Option<u32>>,
    },
}

impl Instance<FeatureLookup> for Lookup {
    fn execute(&mut self, model: &FeatureLookup, batch: &Batch<'_>) -> Result<(), Error> {
        match (self, &model.store) {
            (Self::Online(online), _) => online.execute(&model.tensors, &model.meters, batch),
            (Self::Cached { ids, rows }, Store::Cached(cache)) => {
                let table = cache.table();
                batch.respond_each(|request, response| {
                    ids.clear();
                    model.tensors.read_ids(request, ids)?;
                    rows.clear();
                    rows.extend(ids.iter().map(|&id| table.row(id)));
                    let found = rows.iter().flatten().count();
                    let padding = ids.iter().filter(|id| **id == RawId::NONE).count();
                    let absent = ids.len() - padding - found;
                    model.meters.looked_up(found as u64, absent as u64);
                    let input = request.input_at(0)?;
                    let shape = input.as_ref().map_or(&[][..], |tensor| tensor.shape());
                    let found = ids
                        .iter()
                        .zip(rows.iter())
                        .map(|(&id, row)| row.map_or(RawId::NONE, |_| id));
                    model.tensors.write_echo(response, shape, found)?;
                    // The copy in memory answers for every id, so no feature is unknown.
                    model.tensors.write_degraded(response, shape, &[])?;
                    table
                        .columns()
                        .gather(&model.tensors.features, rows, response, shape)
                });
                Ok(())
            }
            (Self::Cached { .. }, Store::Online(..)) => Err(Error::internal(
                "the instance and its model have different modes",
            )),
        }
    }
}

triton_backend::export!(FeatureLookup);
