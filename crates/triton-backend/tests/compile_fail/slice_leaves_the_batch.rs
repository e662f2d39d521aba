//! Borrowed elements cannot leave the function that has the batch.

use std::borrow::Cow;

use triton_backend::{Batch, Error};

fn elements(batch: &Batch<'_>) -> Result<Cow<'static, [f32]>, Error> {
    batch.requests()[0].input("x")?.as_slice::<f32>()
}

fn main() {}
