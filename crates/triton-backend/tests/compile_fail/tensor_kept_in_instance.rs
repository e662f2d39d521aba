//! An instance cannot keep a tensor for the next batch.

use std::sync::Arc;

use triton_backend::{Batch, Error, Instance, Model, ModelContext, Tensor};

struct Keeper;

struct Worker {
    kept: Option<Tensor<'static>>,
}

impl Model for Keeper {
    type Parameters = ();
    type Instance = Worker;

    fn load(_: &Arc<ModelContext>, _: ()) -> Result<Self, Error> {
        Ok(Keeper)
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker { kept: None })
    }
}

impl Instance<Keeper> for Worker {
    fn execute(&mut self, _: &Keeper, batch: &Batch<'_>) -> Result<(), Error> {
        self.kept = Some(batch.requests()[0].input("x")?);
        Ok(())
    }
}

fn main() {}
