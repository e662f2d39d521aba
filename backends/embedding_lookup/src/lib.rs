//! Looks up rows of embedding tables by code. Each output has a table with its name. See the README beside this crate.

#![warn(clippy::indexing_slicing)]

use std::sync::Arc;

use triton_backend::{
    Batch, DataType, Element, Error, Instance, Model, ModelContext, Request, Response, Signature,
};

pub mod table;

use table::Table;

/// A loaded model.
pub struct EmbeddingLookup {
    code_type: DataType,
    /// The tables, in the order of the config's outputs.
    tables: Vec<Table>,
}

/// An instance. It keeps no state between batches.
pub struct Worker;

impl Model for EmbeddingLookup {
    type Parameters = ();
    type Instance = Worker;

    fn signature((): &()) -> Signature {
        Signature::new()
            .other_inputs(&[DataType::Int32, DataType::Int64])
            .other_outputs(&[DataType::Fp32])
    }

    fn load(context: &Arc<ModelContext>, (): ()) -> Result<Self, Error> {
        let config = context.config();
        let [input] = config.inputs() else {
            return Err(Error::invalid_argument(format!(
                "config.pbtxt must declare one input, the codes; it declares {}",
                config.inputs().len()
            )));
        };
        let tables = config.outputs().iter().map(|output| {
            if output.name.contains(['/', '\\']) {
                return Err(Error::invalid_argument(format!(
                    "output '{}' cannot name a file of its own; accepted: names without slashes",
                    output.name
                )));
            }
            let path = context.version_dir().join(format!("{}.npy", output.name));
            let table = Table::read(&path).map_err(|error| Error::not_found(error.to_string()))?;
            match output.dims.last() {
                Some(dim) if *dim > 0 && *dim != table.dimension() as i64 => {
                    Err(Error::invalid_argument(format!(
                        "output '{}' has rows of {dim} values in config.pbtxt, but of {} in {}",
                        output.name,
                        table.dimension(),
                        path.display()
                    )))
                }
                _ => Ok(table),
            }
        });
        Ok(Self {
            code_type: input.data_type,
            tables: tables.collect::<Result<_, _>>()?,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker)
    }
}

impl Instance<EmbeddingLookup> for Worker {
    fn execute(&mut self, model: &EmbeddingLookup, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, response| match model.code_type {
            DataType::Int64 => answer::<i64>(model, request, response),
            _ => answer::<i32>(model, request, response),
        });
        Ok(())
    }
}

fn answer<Code: Element + Into<i64>>(
    model: &EmbeddingLookup,
    request: &Request<'_>,
    response: &Response<'_>,
) -> Result<(), Error> {
    let input = request
        .input_at(0)?
        .ok_or_else(|| Error::invalid_argument("the codes are missing from the request"))?;
    let codes = input.as_slice::<Code>()?;
    for (output, table) in model.tables.iter().enumerate() {
        let mut shape = input.shape().to_vec();
        shape.push(table.dimension() as i64);
        if let Some(rows) = response.output_at::<f32>(output, &shape)? {
            table.gather(codes.iter().map(|code| (*code).into()), rows);
        }
    }
    Ok(())
}

triton_backend::export!(EmbeddingLookup);
