//! A tensor cannot be carried out of the closure that answers its request.

use triton_backend::{Batch, Tensor};

fn collect(batch: &Batch<'_>) {
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    batch.respond_each(|request, _| {
        tensors.push(request.input("x")?);
        Ok(())
    });
}

fn main() {}
