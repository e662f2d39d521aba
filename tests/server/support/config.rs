//! The text of a `config.pbtxt`, right or wrong as a test needs it.

use std::fmt::Write;

/// A model's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    backend: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    parameters: Vec<(String, String)>,
}

impl Config {
    pub(crate) fn new(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: Vec::new(),
        }
    }

    /// An input that every request has; a dimension of -1 takes any length.
    pub(crate) fn input(mut self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.inputs.push(tensor(name, data_type, dims, ""));
        self
    }

    /// An input that a request may leave out.
    pub(crate) fn optional(mut self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.inputs
            .push(tensor(name, data_type, dims, " optional: true"));
        self
    }

    pub(crate) fn output(mut self, name: &str, data_type: &str, dims: &[i64]) -> Self {
        self.outputs.push(tensor(name, data_type, dims, ""));
        self
    }

    /// Sets a parameter, or sets it anew.
    pub(crate) fn parameter(mut self, key: &str, value: &str) -> Self {
        self.parameters.retain(|(known, _)| known != key);
        self.parameters.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The file's text for a model of this name.
    pub(crate) fn text(&self, name: &str) -> String {
        let mut text = format!(
            "name: \"{name}\"\nbackend: \"{}\"\nmax_batch_size: 0\ninput [\n  {}\n]\noutput [\n  {}\n]\n\
             instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n",
            self.backend,
            self.inputs.join(",\n  "),
            self.outputs.join(",\n  "),
        );
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

fn tensor(name: &str, data_type: &str, dims: &[i64], more: &str) -> String {
    format!("{{ name: \"{name}\" data_type: TYPE_{data_type} dims: {dims:?}{more} }}")
}
