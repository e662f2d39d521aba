//! softmax_sampling
