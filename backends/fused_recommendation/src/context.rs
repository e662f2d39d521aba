//! The context of a request: its values, the defaults for missing ones, and the features computed from them.

use std::time::{SystemTime, UNIX_EPOCH};

use saker_contract::Group;
use saker_steps::defaults::{self, Default as Fallback, Number};
use saker_steps::transform::{dtype, invalid};
use saker_workflow::{Plan, Slice, Workflow};
use triton_backend::{DataType, Element, Error, ModelContext, Request};

/// The inputs that describe the context, and the plan that transforms them.
pub(crate) struct Moment {
    columns: Vec<Column>,
    pub(crate) plan: Plan,
    /// For each input of the plan, its column.
    inputs: Vec<usize>,
}

/// An optional input.
struct Column {
    name: String,
    position: usize,
    data_type: DataType,
    default: Fallback,
}

impl Moment {
    /// Loads the workflow in the folder `context`. Its inputs are the inputs of config.pbtxt after the first.
    pub(crate) fn load(context: &ModelContext, defaults: Option<&str>) -> Result<Self, Error> {
        let mut defaults = defaults::parse("REQUEST_DEFAULTS", defaults)?;
        let given = context.config().inputs().iter().enumerate().skip(1);
        let columns: Vec<Column> = given
            .map(|(position, input)| Column {
                name: input.name.clone(),
                position,
                data_type: input.data_type,
                default: defaults.remove(&input.name).unwrap_or(Fallback::UNKNOWN),
            })
            .collect();
        let names = || {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            names.join(", ")
        };
        if let Some(name) = defaults.keys().next() {
            return Err(Error::invalid_argument(format!(
                "parameter 'REQUEST_DEFAULTS' names '{name}'; accepted: inputs of config.pbtxt after the first, which \
                 are {}",
                names()
            )));
        }
        let folder = context.version_dir().join(Group::Context.as_str());
        let workflow = Workflow::load(&folder).map_err(invalid)?;
        let read = workflow
            .definition()
            .input_names()
            .iter()
            .map(|name| {
                let mut columns = columns.iter().enumerate();
                let found = columns.find(|(_, column)| column.name == *name);
                found.ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "the workflow in {} reads '{name}'; config.pbtxt declares: {}",
                        folder.display(),
                        names()
                    ))
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let typed = read
            .iter()
            .map(|(_, column)| Ok((column.name.as_str(), dtype(column.data_type)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            plan: Plan::prepare(&workflow, &typed).map_err(invalid)?,
            inputs: read.into_iter().map(|(place, _)| place).collect(),
            columns,
        })
    }
}

/// The values of one column of a request.
enum Values {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
}

/// The context of a request, one vector per column.
#[derive(Default)]
pub(crate) struct Worker {
    columns: Vec<Values>,
}

impl Worker {
    /// Reads the values of the request and fills in the missing ones. Returns the number of rows.
    pub(crate) fn fill(
        &mut self,
        moment: &Moment,
        request: &Request<'_>,
        users: usize,
    ) -> Result<usize, Error> {
        let tensors = moment
            .columns
            .iter()
            .map(|column| (column.name.as_str(), column.position));
        let length = defaults::rows(request, Some(users), tensors)?;
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        if self.columns.is_empty() {
            let empty = |column: &Column| match column.data_type {
                DataType::Int64 => Values::Int64(Vec::new()),
                DataType::Fp32 => Values::Fp32(Vec::new()),
                DataType::Fp64 => Values::Fp64(Vec::new()),
                // The signature accepts no other type.
                _ => Values::Int32(Vec::new()),
            };
            self.columns = moment.columns.iter().map(empty).collect();
        }
        for (values, column) in self.columns.iter_mut().zip(&moment.columns) {
            match values {
                Values::Int32(values) => column.fill(values, length, request, now_s)?,
                Values::Int64(values) => column.fill(values, length, request, now_s)?,
                Values::Fp32(values) => column.fill(values, length, request, now_s)?,
                Values::Fp64(values) => column.fill(values, length, request, now_s)?,
            }
        }
        Ok(length)
    }

    /// The context in the form that the plan reads.
    ///
    /// # Errors
    /// Returns an error if [`fill`](Self::fill) was not called before.
    pub(crate) fn slices(&self, moment: &Moment) -> Result<Vec<Slice<'_>>, Error> {
        let slice = |&place: &usize| {
            Some(match self.columns.get(place)? {
                Values::Int32(values) => Slice::Int32(values),
                Values::Int64(values) => Slice::Int64(values),
                Values::Fp32(values) => Slice::Float32(values),
                Values::Fp64(values) => Slice::Float64(values),
            })
        };
        let slices: Option<Vec<_>> = moment.inputs.iter().map(slice).collect();
        slices
            .ok_or_else(|| Error::internal("the context has fewer columns than the workflow reads"))
    }
}

impl Column {
    fn fill<T: Number + Element>(
        &self,
        values: &mut Vec<T>,
        length: usize,
        request: &Request<'_>,
        now_s: u64,
    ) -> Result<(), Error> {
        let input = request.input_at(self.position)?;
        let given = match &input {
            Some(input) => Some(input.vector::<T>()?),
            None => None,
        };
        values.resize(length, T::from_f64(0.0));
        defaults::fill(values, given.as_deref(), self.default, now_s);
        Ok(())
    }
}
