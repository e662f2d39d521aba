//! The query tower: from a user's features to the query.

use ort::session::{Session, SessionInputValue};
use ort::value::{TensorElementType, TensorRef};
use triton_backend::{DataType, Error, ModelContext};

use crate::features::{Features, Sources};
use crate::sessions::{Sessions, failed, floats};

const MODEL_FILE: &str = "query_tower.onnx";

/// A query tower: a session of its own for each instance.
pub(crate) struct Tower {
    sessions: Sessions,
    inputs: Vec<Input>,
    output: String,
    /// Values of a query; -1 where the model does not say.
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
    /// Reads the model of the version folder; its features become columns of the request's features.
    pub(crate) fn load(
        context: &ModelContext,
        threads: usize,
        sources: &mut Sources<'_>,
    ) -> Result<Self, Error> {
        let sessions = Sessions::open(context, context.version_dir().join(MODEL_FILE), threads)?;
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
                return Err(
                    sessions.invalid(&format!("reads '{name}', which is no feature of the user"))
                );
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

    /// A session of its own for an instance.
    pub(crate) fn session(&self) -> Result<Session, Error> {
        self.sessions.session()
    }

    /// Appends the queries of all users of a request, one after the other.
    ///
    /// # Errors
    /// ONNX Runtime fails.
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
