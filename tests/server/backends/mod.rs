//! Each of the ten backends by itself: sizes, ends of types, wrong requests, wrong configurations.

mod batches;
mod bloom_filter;
mod embedding_lookup;
mod faiss_retrieval;
mod feature_lookup;
mod feature_transform;
mod id_decode;
mod onnxruntime;
mod request_defaults;
mod softmax_sampling;
mod unroll;
