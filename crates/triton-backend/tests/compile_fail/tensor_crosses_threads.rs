//! Triton's request functions are for one thread: a tensor cannot be sent to another.
//! (The elements of `as_slice` can.)

use triton_backend::Tensor;

fn send<T: Send>(_: T) {}

fn elsewhere(tensor: Tensor<'_>) {
    send(tensor);
}

fn main() {}
