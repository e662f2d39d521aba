//! Looks up the users and transforms their features.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use saker_contract::Group;
use saker_steps::lookup::{Feature, Meters, Online, Parameters};
use saker_steps::seen;
use saker_steps::transform::{dtype, invalid};
use saker_steps::users;
use saker_store::Link;
use saker_store::feast::FeatureView;
use saker_workflow::{Plan, Slice, Workflow};
use serde_json::json;
use triton_backend::{DataType, Error, ModelConfig, ModelContext, Request, TensorConfig};

/// The source of user features and the plan that transforms them.
pub(crate) struct User {
    id_name: String,
    id_type: DataType,
    bound: users::Parameters,
    link: Link,
    view: FeatureView,
    features: Arc<[Feature]>,
    meters: Meters,
    pub(crate) plan: Plan,
    /// The inputs of the plan, in order.
    inputs: Vec<Input>,
}

/// The source of an input of the workflow.
#[derive(Clone, Copy)]
enum Input {
    Id,
    Column(usize),
}

impl User {
    /// Loads the workflow in the folder `user`. Its inputs are the id, named like the entity, and the stored columns.
    pub(crate) fn load(
        context: &ModelContext,
        parameters: &Parameters,
        bound: users::Parameters,
        id: &TensorConfig,
        types: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let outputs: Vec<_> = types
            .iter()
            .map(|(name, kind)| json!({ "name": name, "data_type": format!("TYPE_{kind}"), "dims": ["-1"] }))
            .collect();
        let stored = ModelConfig::from_json(&json!({ "input": [], "output": outputs }).to_string())
            .map_err(|error| {
                Error::invalid_argument(format!("parameter 'USER_COLUMNS': {error}"))
            })?;
        let mut defaults = parameters.defaults()?;
        let mut vocabularies = parameters.vocabularies(context.version_dir())?;
        let features = stored
            .outputs()
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let feature = Feature::new(place, column, defaults.remove(&column.name))?;
                Ok(feature.with_vocabulary(vocabularies.remove(&column.name)))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if let Some(name) = defaults.keys().next() {
            return Err(Error::invalid_argument(format!(
                "parameter 'DEFAULTS' (or 'DEFAULT_USER_AGE', which means 'age') names '{name}', which \
                 USER_COLUMNS lacks"
            )));
        }
        let folder = context.version_dir().join(Group::User.as_str());
        let workflow = Workflow::load(&folder).map_err(invalid)?;
        let mut inputs = Vec::new();
        let mut columns = Vec::new();
        for name in workflow.definition().input_names() {
            if name == parameters.entity {
                inputs.push(Input::Id);
                columns.push((name, dtype(id.data_type)?));
                continue;
            }
            let mut places = features.iter().enumerate();
            let found = places.find(|(_, feature)| feature.name == name);
            let (place, feature) = found.ok_or_else(|| {
                Error::invalid_argument(format!(
                    "the workflow in {} reads '{name}'; parameter 'ENTITY' is '{}', and 'USER_COLUMNS' has: {}",
                    folder.display(),
                    parameters.entity,
                    types.keys().cloned().collect::<Vec<_>>().join(", ")
                ))
            })?;
            inputs.push(Input::Column(place));
            columns.push((name, dtype(feature.data_type)?));
        }
        let plan = Plan::prepare(&workflow, &columns).map_err(invalid)?;
        let names = features.iter().map(|feature| feature.name.clone());
        let view = parameters.view(names, id.data_type)?;
        // The same connections may also read the users' seen items.
        let link = Link::open(parameters.settings()?.with_bloom_probe())
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self {
            id_name: id.name.clone(),
            id_type: id.data_type,
            bound,
            link,
            meters: Meters::new(context, &view)?,
            view,
            features: features.into(),
            plan,
            inputs,
        })
    }

    /// Index of a stored column of integers.
    pub(crate) fn integers(&self, name: &str) -> Option<usize> {
        let fits = |feature: &Feature| {
            feature.name == name && [DataType::Int32, DataType::Int64].contains(&feature.data_type)
        };
        self.features.iter().position(fits)
    }

    pub(crate) fn worker(&self) -> Worker {
        let features = Arc::clone(&self.features);
        Worker {
            store: Online::new(&self.link, &self.view, features),
            raw: Vec::new(),
            narrow: Vec::new(),
        }
    }
}

/// The users of a batch.
pub(crate) struct Worker {
    store: Online,
    /// The ids as the requests gave them.
    pub(crate) raw: Vec<i64>,
    /// The ids as INT32, where an input of the plan needs them.
    narrow: Vec<i32>,
}

impl Worker {
    pub(crate) fn clear(&mut self) {
        self.store.ids.clear();
    }

    /// Reads the ids of a request; returns their indices.
    pub(crate) fn read(
        &mut self,
        user: &User,
        request: &Request<'_>,
    ) -> Result<Range<usize>, Error> {
        let tensor = users::read(request, (&user.id_name, 0), &user.bound)?;
        let start = self.store.ids.len();
        match user.id_type {
            DataType::Int64 => self.store.ids.extend_from_slice(&tensor.as_slice::<i64>()?),
            _ => {
                let ids = tensor.as_slice::<i32>()?;
                self.store.ids.extend(ids.iter().map(|&id| i64::from(id)));
            }
        }
        Ok(start..start + tensor.len())
    }

    /// Reads the users of all `requests` from the store, and their seen items if one connection can do both.
    pub(crate) fn look_up(
        &mut self,
        user: &User,
        requests: impl Iterator<Item = Range<usize>>,
        mut seen: (&mut seen::Worker, &seen::Filter),
    ) {
        self.raw.clone_from(&self.store.ids);
        self.store
            .look_up_with(&user.meters, requests, Some(&mut seen));
        self.narrow.clear();
        if user.id_type == DataType::Int32 {
            // Each id was read as i32, or is -1.
            self.narrow
                .extend(self.store.ids.iter().map(|&id| id as i32));
        }
    }

    /// For each user of the batch, whether a feature is unknown. This happens if the store did not answer, or if it holds an invalid value.
    pub(crate) fn unanswered(&self) -> &[bool] {
        self.store.unanswered()
    }

    /// A range of users, in the form that the plan reads.
    pub(crate) fn slices(&self, user: &User, rows: Range<usize>) -> Result<Vec<Slice<'_>>, Error> {
        let slice = |input: &Input| {
            Some(match *input {
                Input::Id if user.id_type == DataType::Int64 => {
                    Slice::Int64(self.store.ids.get(rows.clone())?)
                }
                Input::Id => Slice::Int32(self.narrow.get(rows.clone())?),
                Input::Column(place) => self.store.columns().slice(place, rows.clone())?,
            })
        };
        let slices: Option<Vec<_>> = user.inputs.iter().map(slice).collect();
        slices.ok_or_else(|| Error::internal("the batch has fewer users than were read"))
    }

    /// The value of a stored column of integers for the user of an index.
    pub(crate) fn integer(&self, place: usize, row: usize) -> Option<i64> {
        match self.store.columns().slice(place, row..row + 1)? {
            Slice::Int32(values) => values.first().map(|&value| i64::from(value)),
            Slice::Int64(values) => values.first().copied(),
            _ => None,
        }
    }
}
