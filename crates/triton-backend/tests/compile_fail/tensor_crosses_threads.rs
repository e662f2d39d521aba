//! Triton's request functions are for one thread: neither a tensor nor a batch can be sent on.

use triton_backend::{Batch, Tensor};

fn elsewhere(batch: &Batch<'_>, tensor: Tensor<'_>) {
    std::thread::scope(|scope| {
        scope.spawn(|| batch.len());
        scope.spawn(move || tensor.len());
    });
}

fn main() {}
