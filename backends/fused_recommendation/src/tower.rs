//! The query tower: it computes the queries from the users' features.

use ort::session::{Session, SessionInputValue};
use ort::value::{TensorElementType, TensorRef};
use saker_contract::artefact::QUERY_TOWER;
use triton_backend::{DataType, Error, ModelContext};

use crate::features::{Features, Sources};
use crate::sessions::{Sessions, failed, floats};

/// A query tower. Each instance has its own session.
pub(crate) struct Tower {
    sessions: Sessions,
    inputs: Vec<Input>,
    output: String,
    /// Number of values per query; -1 if the model does not declare it.
    pub(crate) dimension: i64,
}

/// A feature.
struct Input {
    name: String,
    column: usize,
    codes: bool,
    /// Whether the model takes `[users, 1]` rather than `[users]`.
    is_column: bool,
}

impl Tower {
    /// Reads the model of the version folder and adds its features to the columns of the request.
    pub(crate) fn load(
        context: &ModelContext,
        threads: usize,
        sources: &mut Sources<'_>,
    ) -> Result<Self, Error> {
        let sessions = Sessions::open(context, context.version_dir().join(QUERY_TOWER), threads)?;
        let session = sessions.session()?;
        let output = sessions.only_output(&session)?;
        let dimension = output.dtype().tensor_shape();
        let dimension = dimension
            .and_then(|shape| shape.last().copied())
            .unwrap_or(-1);
        let inputs = session.inputs().iter().map(|input| {
            let name = input.name();
            let codes = match input.dtype().tensor_type() {
                Some(TensorElementType::Int32) => true,
                Some(TensorElementType::Float32) => false,
                _ => {
                    return Err(sessions.invalid(&format!(
                        "reads '{name}' as {}; accepted: int32, float",
                        input.dtype()
                    )));
                }
            };
            let column = sources.column(
                name,
                if codes {
                    DataType::Int32
                } else {
                    DataType::Fp32
                },
                &sessions,
            )?;
            if !sources.is_of_user(column) {
                return Err(sessions.invalid(&format!(
                    "reads '{name}', which is not a feature of the user"
                )));
            }
            Ok(Input {
                name: name.to_owned(),
                column,
                codes,
                is_column: input
                    .dtype()
                    .tensor_shape()
                    .is_some_and(|shape| shape.len() == 2),
            })
        });
        let inputs = inputs.collect::<Result<_, Error>>()?;
        Ok(Self {
            output: output.name().to_owned(),
            sessions,
            inputs,
            dimension,
        })
    }

    /// Creates the session of an instance.
    pub(crate) fn session(&self) -> Result<Session, Error> {
        self.sessions.session()
    }

    /// Appends the queries of all users of a request, in their order.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails.
    pub(crate) fn run(
        &self,
        session: &mut Session,
        features: &Features,
        users: usize,
        queries: &mut Vec<f32>,
    ) -> Result<(), Error> {
        if users == 0 {
            return Ok(());
        }
        let (column, vector) = ([users, 1], [users]);
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let shape = if input.is_column {
                &column[..]
            } else {
                &vector
            };
            let value = if input.codes {
                TensorRef::from_array_view((shape, features.codes(input.column)?)).map(Into::into)
            } else {
                TensorRef::from_array_view((shape, features.numbers(input.column)?)).map(Into::into)
            };
            inputs.push((&input.name, value.map_err(failed)?));
        }
        let outputs = session.run(inputs).map_err(failed)?;
        queries.extend_from_slice(floats(&outputs, &self.output)?);
        Ok(())
    }
}
