//! `scale`: multiplies the FP32 tensor `x`, of any shape, by the parameter `FACTOR` into `y`.

#![warn(clippy::indexing_slicing)]

use std::sync::Arc;

use serde::Deserialize;
use triton_backend::{Batch, DataType, Error, Instance, Model, ModelContext, Signature};

/// The parameters of config.pbtxt.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Parameters {
    factor: f32,
}

/// The loaded model, shared by its instances.
#[derive(Debug)]
pub struct Scale {
    factor: f32,
}

impl Model for Scale {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::new()
            .input("x", &[DataType::Fp32])
            .output("y", &[DataType::Fp32])
    }

    fn load(_: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        Ok(Self {
            factor: parameters.factor,
        })
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker)
    }
}

/// One instance; it needs nothing of its own.
#[derive(Debug)]
pub struct Worker;

impl Instance<Scale> for Worker {
    fn execute(&mut self, model: &Scale, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, response| {
            let x = request.input("x")?;
            let elements = x.as_slice::<f32>()?;
            if let Some(y) = response.output::<f32>("y", x.shape())? {
                for (y, x) in y.iter_mut().zip(elements.iter()) {
                    *y = model.factor * x;
                }
            }
            Ok(())
        });
        Ok(())
    }
}

triton_backend::export!(Scale);
