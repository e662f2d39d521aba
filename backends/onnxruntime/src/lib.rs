//! onnxruntime
