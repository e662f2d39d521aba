//! The text of a `config.pbtxt`, right or wrong as a test needs it.

use std::fmt::Write;

/// A model's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    backend: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    parameters: Vec<(String, String)>,
    max_batch_size: usize,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    data_type: String,
    dims: Vec<i64>,
    optional: bool,
}

impl Config {
    pub(crate) fn new(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: Vec::new(),
            max_batch_size: 0,
        }
    }

    /// An input that every request has; a dimension of -1 takes any length.
    pub(crate) fn input(mut self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.inputs.push(Tensor::new(name, data_type, dims, false));
        self
    }

    /// An input that a request may leave out.
    pub(crate) fn optional(mut self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.inputs.push(Tensor::new(name, data_type, dims, true));
        self
    }

    pub(crate) fn output(mut self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.outputs.push(Tensor::new(name, data_type, dims, false));
        self
    }

    /// Sets a parameter, or sets it anew.
    pub(crate) fn parameter(mut self, key: &str, value: &str) -> Self {
        self.parameters.retain(|(known, _)| known != key);
        self.parameters.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Lets Triton make batches of up to `size` requests, waiting for more of them longer than a test takes to send
    /// them. The first dimension of every tensor becomes the batch's.
    pub(crate) fn batched(mut self, size: usize) -> Self {
        self.max_batch_size = size;
        self
    }

    /// The file's text for a model of this name.
    pub(crate) fn text(&self, name: &str) -> String {
        let list = |tensors: &[Tensor]| -> String {
            let texts: Vec<String> = tensors
                .iter()
                .map(|tensor| tensor.text(self.max_batch_size > 0))
                .collect();
            texts.join(",\n  ")
        };
        let mut text = format!(
            "name: \"{name}\"\nbackend: \"{}\"\nmax_batch_size: {}\ninput [\n  {}\n]\noutput [\n  {}\n]\n\
             instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n",
            self.backend,
            self.max_batch_size,
            list(&self.inputs),
            list(&self.outputs),
        );
        if self.max_batch_size > 0 {
            let _ = writeln!(
                text,
                "dynamic_batching {{ preferred_batch_size: [ {} ] max_queue_delay_microseconds: 2000000 }}",
                self.max_batch_size
            );
        }
        for (key, value) in &self.parameters {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(
                text,
                "parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}"
            );
        }
        text
    }
}

impl Tensor {
    fn new(name: &str, data_type: &str, dims: &[i64], optional: bool) -> Self {
        Self {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            dims: dims.to_vec(),
            optional,
        }
    }

    fn text(&self, batched: bool) -> String {
        let Self {
            name,
            data_type,
            dims,
            optional,
        } = self;
        let shape = match &dims[..] {
            dims if !batched => format!("dims: {dims:?}"),
            // A column: Triton wants a dimension beside the batch's, the backend has none.
            [_] => "dims: [ 1 ] reshape: { shape: [ ] }".to_owned(),
            [_, rest @ ..] => format!("dims: {rest:?}"),
            [] => "dims: [ ]".to_owned(),
        };
        let more = if *optional { " optional: true" } else { "" };
        format!("{{ name: \"{name}\" data_type: TYPE_{data_type} {shape}{more} }}")
    }
}
