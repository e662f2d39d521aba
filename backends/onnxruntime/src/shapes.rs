//! The declared shapes of the graph's inputs and outputs. They explain failed runs and shape empty answers.

use ort::session::Session;
use ort::value::{Outlet, ValueType};
use triton_backend::{Error, ModelConfig, Tensor, TensorConfig};

use crate::graph::is_declared_scalar;

/// One dimension of an input, as the graph declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dim {
    Any,
    Fixed(i64),
    /// Inputs that share a symbol have the same size in these dimensions.
    Symbol(String),
}

/// The graph's declarations of its tensors, in the order of config.pbtxt.
pub(crate) struct Shapes {
    inputs: Vec<Vec<Dim>>,
    /// For each input and output, whether it is a scalar that config.pbtxt declares as `[ 1 ]`.
    pub(crate) scalar_inputs: Vec<bool>,
    pub(crate) scalar_outputs: Vec<bool>,
    /// The outputs' shapes for a request without rows. `None` if the graph fixes the number of rows of an output.
    pub(crate) without_rows: Option<Vec<Vec<i64>>>,
}

impl Shapes {
    /// Reads the shapes of a graph that [`check`](crate::graph::check) has compared with the config.
    pub(crate) fn of(session: &Session, config: &ModelConfig) -> Self {
        let scalars = |tensors: &[TensorConfig], outlets: &[Outlet]| {
            let scalar = |tensor: &TensorConfig| {
                is_declared_scalar(config, tensor, shape(outlets, &tensor.name))
            };
            tensors.iter().map(scalar).collect::<Vec<bool>>()
        };
        let outputs = config.outputs().iter();
        Self {
            inputs: config
                .inputs()
                .iter()
                .map(|input| dims(session.inputs(), &input.name))
                .collect(),
            scalar_inputs: scalars(config.inputs(), session.inputs()),
            scalar_outputs: scalars(config.outputs(), session.outputs()),
            without_rows: outputs
                .map(|output| without_rows(shape(session.outputs(), &output.name), &output.dims))
                .collect(),
        }
    }

    /// The error of a failed run. It is the client's error if the request contradicts the graph, otherwise the server's. The runtime's own
    /// codes do not tell them apart: it reports a wrong index within the graph like a wrong input.
    pub(crate) fn explain(&self, tensors: &[Tensor<'_>], error: &ort::Error) -> Error {
        let shapes = tensors.iter().map(|tensor| (tensor.name(), tensor.shape()));
        let shapes: Vec<(&str, &[i64])> = shapes.collect();
        let found = self.contradiction(&shapes);
        found.map_or_else(
            || Error::internal(format!("ONNX Runtime: {error}")),
            Error::invalid_argument,
        )
    }

    /// Describes the first contradiction between the shapes of a request's inputs and the graph. The inputs are in the order of
    /// config.pbtxt.
    fn contradiction(&self, inputs: &[(&str, &[i64])]) -> Option<String> {
        let mut symbols: Vec<(&str, i64, &str)> = Vec::new();
        for ((name, shape), dims) in inputs.iter().zip(&self.inputs) {
            for (at, (size, dim)) in shape.iter().zip(dims).enumerate() {
                match dim {
                    Dim::Fixed(fixed) if size != fixed => {
                        return Some(format!(
                            "tensor '{name}' has shape {shape:?}; accepted: {fixed} in dimension {at}"
                        ));
                    }
                    Dim::Symbol(symbol) => {
                        let known = symbols.iter().find(|(known, ..)| known == symbol);
                        match known {
                            Some((_, expected, first)) if expected != size => {
                                return Some(format!(
                                    "tensor '{name}' has shape {shape:?}; accepted: {expected} in dimension {at}, as \
                                     tensor '{first}' has in its dimension '{symbol}'"
                                ));
                            }
                            Some(_) => {}
                            None => symbols.push((symbol, *size, name)),
                        }
                    }
                    Dim::Any | Dim::Fixed(_) => {}
                }
            }
        }
        None
    }
}

/// Checks that parameter `rows_per_run` may split the rows of the graph's tensors, as far as the shapes show it.
///
/// # Errors
///
/// Returns an error if the first dimension of a tensor is fixed. It also returns an error if two inputs name their first dimensions
/// differently, because their rows may not belong together.
pub(crate) fn check_rows_per_run(session: &Session) -> Result<(), Error> {
    let refused = |role: &str, name: &str, what: String| {
        Err(Error::invalid_argument(format!(
            "parameter 'rows_per_run' splits the rows of every tensor, but {role} '{name}' of the model has {what}; \
             accepted: 0, or a graph whose tensors all have a first dimension of any size, the same for every input"
        )))
    };
    let mut first_symbol: Option<String> = None;
    for (role, outlets) in [("input", session.inputs()), ("output", session.outputs())] {
        for outlet in outlets {
            let name = outlet.name();
            match dims(outlets, name).into_iter().next() {
                None | Some(Dim::Fixed(_)) => {
                    return refused(role, name, format!("the shape {:?}", shape(outlets, name)));
                }
                Some(Dim::Symbol(symbol)) if role == "input" => match &first_symbol {
                    Some(first) if *first != symbol => {
                        let what = format!(
                            "the first dimension '{symbol}', and another input has '{first}'"
                        );
                        return refused(role, name, what);
                    }
                    _ => first_symbol = Some(symbol),
                },
                // Exporters rarely give outputs the symbols of inputs, so each run compares the numbers of rows.
                Some(Dim::Symbol(_) | Dim::Any) => {}
            }
        }
    }
    Ok(())
}

/// The shape of a tensor of the graph; empty if it has none.
fn shape<'a>(outlets: &'a [Outlet], name: &str) -> &'a [i64] {
    let outlet = outlets.iter().find(|outlet| outlet.name() == name);
    let shape = outlet.and_then(|outlet| outlet.dtype().tensor_shape());
    shape.map_or(&[], |shape| shape)
}

fn dims(outlets: &[Outlet], name: &str) -> Vec<Dim> {
    let outlet = outlets.iter().find(|outlet| outlet.name() == name);
    let symbols = outlet.and_then(|outlet| match outlet.dtype() {
        ValueType::Tensor {
            dimension_symbols, ..
        } => Some(dimension_symbols),
        _ => None,
    });
    let symbol = |at: usize| symbols?.get(at).filter(|symbol| !symbol.is_empty());
    let sizes = shape(outlets, name).iter().enumerate();
    sizes
        .map(|(at, &size)| match symbol(at) {
            _ if size >= 0 => Dim::Fixed(size),
            Some(symbol) => Dim::Symbol(symbol.clone()),
            None => Dim::Any,
        })
        .collect()
}

/// The shape of an output that has no rows; `None` if the graph fixes its number of rows.
fn without_rows(shape: &[i64], declared: &[i64]) -> Option<Vec<i64>> {
    let (rows, rest) = shape.split_first()?;
    if *rows > 0 {
        return None;
    }
    let mut shape = vec![0];
    shape.extend_from_slice(rest);
    // config.pbtxt may fix dimensions that the graph leaves open
    for (dim, declared) in shape.iter_mut().rev().zip(declared.iter().rev()) {
        if *dim < 0 {
            *dim = (*declared).max(0);
        }
    }
    Some(shape.into_iter().map(|dim| dim.max(0)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shapes(inputs: Vec<Vec<Dim>>) -> Shapes {
        Shapes {
            inputs,
            scalar_inputs: Vec::new(),
            scalar_outputs: Vec::new(),
            without_rows: None,
        }
    }

    #[test]
    fn a_fixed_dimension_and_a_shared_symbol_are_the_clients_to_keep() {
        let rows = || Dim::Symbol("N".to_owned());
        let shapes = shapes(vec![vec![rows(), Dim::Fixed(2)], vec![rows(), Dim::Any]]);
        let of = |x: &[i64], y: &[i64]| shapes.contradiction(&[("x", x), ("y", y)]);
        assert_eq!(of(&[3, 2], &[3, 9]), None);
        let message = of(&[3, 4], &[3, 9]).unwrap();
        assert!(
            message.contains("'x' has shape [3, 4]; accepted: 2 in dimension 1"),
            "{message}"
        );
        let message = of(&[3, 2], &[5, 9]).unwrap();
        assert!(
            message.contains("'y' has shape [5, 9]; accepted: 3 in dimension 0"),
            "{message}"
        );
    }

    #[test]
    fn an_output_without_rows_has_its_other_dimensions() {
        assert_eq!(without_rows(&[-1, 64], &[-1, 64]), Some(vec![0, 64]));
        assert_eq!(without_rows(&[-1, -1], &[-1, 7]), Some(vec![0, 7]));
        assert_eq!(without_rows(&[-1, -1], &[-1, -1]), Some(vec![0, 0]));
        assert_eq!(without_rows(&[1, 64], &[1, 64]), None);
        assert_eq!(without_rows(&[], &[1]), None);
    }

    proptest! {
        #[test]
        fn shapes_that_the_graph_declares_are_never_the_clients_fault(
            sizes in prop::collection::vec((0i64..5, 0usize..3), 1..6),
        ) {
            let dims = sizes.iter().map(|(size, kind)| match kind {
                0 => Dim::Any,
                1 => Dim::Fixed(*size),
                _ => Dim::Symbol(format!("s{size}")),
            });
            let dims: Vec<Dim> = dims.collect();
            let shape: Vec<i64> = sizes.iter().map(|(size, _)| *size).collect();
            let shapes = shapes(vec![dims.clone(), dims]);
            prop_assert_eq!(shapes.contradiction(&[("a", &shape), ("b", &shape)]), None);
        }
    }
}
