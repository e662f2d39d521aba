//! Compiled operators: a tree of kernels per output column, and its evaluation over slices.
//!
//! The same programs transform training data in bulk and requests when serving.

use std::fmt;
use std::sync::Arc;

use crate::column::{Column, DType, Slice, SliceMut};

/// A column as a tree: an input, or a kernel over columns.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Input(usize),
    Apply(Arc<Node>),
}

/// A kernel with the columns that it reads.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kernel: Kernel,
    pub(crate) arguments: Vec<Expression>,
    /// Whether the output is null where the first argument is. Only integers hand nulls on; floats hold NaN.
    pub(crate) keeps_nulls: bool,
}

/// What a kernel does: reads its arguments and writes every element of the output, one a row.
pub(crate) type Run<T> = Box<dyn Fn(&Arguments<'_>, &mut [T], &mut Buffers) + Send + Sync>;

/// A kernel by the element type of its output. [`Element::kernel`] makes one.
pub(crate) enum Kernel {
    Int32(Run<i32>),
    Int64(Run<i64>),
    Float32(Run<f32>),
    Float64(Run<f64>),
    Bool(Run<bool>),
}

impl Kernel {
    /// Element type of the output.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Int32(_) => DType::Int32,
            Self::Int64(_) => DType::Int64,
            Self::Float32(_) => DType::Float32,
            Self::Float64(_) => DType::Float64,
            Self::Bool(_) => DType::Bool,
        }
    }

    fn run(&self, arguments: &Arguments<'_>, output: &mut SliceMut<'_>, buffers: &mut Buffers) {
        match (self, output) {
            (Self::Int32(run), SliceMut::Int32(output)) => run(arguments, output, buffers),
            (Self::Int64(run), SliceMut::Int64(output)) => run(arguments, output, buffers),
            (Self::Float32(run), SliceMut::Float32(output)) => run(arguments, output, buffers),
            (Self::Float64(run), SliceMut::Float64(output)) => run(arguments, output, buffers),
            (Self::Bool(run), SliceMut::Bool(output)) => run(arguments, output, buffers),
            (kernel, output) => mismatch(kernel.dtype(), output.dtype()),
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.dtype())
    }
}

/// A type of elements that kernels write, and read.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Its name at run time.
    const DTYPE: DType;
    /// A column's values, if they are of this type.
    fn values<'a>(column: &Column<'a>) -> Option<&'a [Self]>;
    /// A kernel that writes values of this type.
    fn kernel(run: Run<Self>) -> Kernel;
}

macro_rules! element {
    ($($type:ty: $variant:ident,)+) => {
        $(impl Element for $type {
            const DTYPE: DType = DType::$variant;

            fn values<'a>(column: &Column<'a>) -> Option<&'a [Self]> {
                match column.values {
                    Slice::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn kernel(run: Run<Self>) -> Kernel {
                Kernel::$variant(run)
            }
        })+
    };
}

element! {
    i32: Int32,
    i64: Int64,
    f32: Float32,
    f64: Float64,
    bool: Bool,
}

/// Intermediate columns, kept between runs so that a run allocates nothing once they have grown.
#[derive(Debug, Default)]
pub struct Scratch {
    slots: Vec<Slot>,
    buffers: Buffers,
}

/// What kernels need beside their arguments and output, an element a row.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Combinations of keys.
    pub(crate) keys: Vec<u128>,
    pub(crate) hashes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Slot {
    int32: Vec<i32>,
    int64: Vec<i64>,
    float32: Vec<f32>,
    float64: Vec<f64>,
    boolean: Vec<bool>,
}

impl Slot {
    fn slice(&self, dtype: DType) -> Slice<'_> {
        match dtype {
            DType::Int32 => Slice::Int32(&self.int32),
            DType::Int64 => Slice::Int64(&self.int64),
            DType::Float32 => Slice::Float32(&self.float32),
            DType::Float64 => Slice::Float64(&self.float64),
            // No kernel gives strings.
            DType::Bool | DType::String => Slice::Bool(&self.boolean),
        }
    }

    fn slice_mut(&mut self, dtype: DType, rows: usize) -> SliceMut<'_> {
        match dtype {
            DType::Int32 => {
                self.int32.resize(rows, 0);
                SliceMut::Int32(&mut self.int32)
            }
            DType::Int64 => {
                self.int64.resize(rows, 0);
                SliceMut::Int64(&mut self.int64)
            }
            DType::Float32 => {
                self.float32.resize(rows, 0.0);
                SliceMut::Float32(&mut self.float32)
            }
            DType::Float64 => {
                self.float64.resize(rows, 0.0);
                SliceMut::Float64(&mut self.float64)
            }
            DType::Bool | DType::String => {
                self.boolean.resize(rows, false);
                SliceMut::Bool(&mut self.boolean)
            }
        }
    }
}

/// The columns a kernel reads.
pub(crate) struct Arguments<'a> {
    node: &'a Node,
    inputs: &'a [Column<'a>],
    slots: &'a [Slot],
    depth: usize,
}

impl<'a> Arguments<'a> {
    /// Number of columns.
    pub(crate) fn len(&self) -> usize {
        self.node.arguments.len()
    }

    /// A column.
    ///
    /// # Panics
    /// A kernel reads an argument that its operator did not give it.
    pub(crate) fn get(&self, position: usize) -> Column<'a> {
        match self.find(position) {
            Some(column) => column,
            None => unreachable!("a kernel without argument {position}"),
        }
    }

    /// A column's values.
    ///
    /// # Panics
    /// They are of another type: the operator compiled the kernel for other columns.
    pub(crate) fn values<T: Element>(&self, position: usize) -> &'a [T] {
        let column = self.get(position);
        match T::values(&column) {
            Some(values) => values,
            None => mismatch(T::DTYPE, column.values.dtype()),
        }
    }

    fn find(&self, position: usize) -> Option<Column<'a>> {
        let argument = self.node.arguments.get(position)?;
        match argument {
            Expression::Input(index) => self.inputs.get(*index).copied(),
            Expression::Apply(node) => Some(Column {
                values: (self.slots.get(self.depth + position)?).slice(node.kernel.dtype()),
                valid: mask(argument).and_then(|index| self.inputs.get(index)?.valid),
            }),
        }
    }

    /// All columns, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = Column<'a>> + '_ {
        (0..self.len()).map(|position| self.get(position))
    }
}

/// The input whose nulls a column keeps.
pub(crate) fn mask(expression: &Expression) -> Option<usize> {
    match expression {
        Expression::Input(index) => Some(*index),
        Expression::Apply(node) if node.keeps_nulls => node.arguments.first().and_then(mask),
        Expression::Apply(_) => None,
    }
}

#[cfg(feature = "tables")]
/// The inputs that an expression reads, each once.
pub(crate) fn inputs(expression: &Expression) -> Vec<usize> {
    match expression {
        Expression::Input(index) => vec![*index],
        Expression::Apply(node) => {
            let mut read: Vec<usize> = node.arguments.iter().flat_map(inputs).collect();
            read.sort_unstable();
            read.dedup();
            read
        }
    }
}

/// Evaluates `expression` into `output`, whose length is the number of rows.
pub(crate) fn evaluate(
    expression: &Expression,
    inputs: &[Column<'_>],
    output: &mut SliceMut<'_>,
    scratch: &mut Scratch,
) {
    match expression {
        Expression::Input(index) => {
            let Some(column) = inputs.get(*index) else {
                unreachable!("a program without input {index}");
            };
            copy(column.values, output);
        }
        Expression::Apply(node) => evaluate_node(node, inputs, output, scratch, 0),
    }
}

/// Slots from `depth` on are free for this node's arguments and theirs.
fn evaluate_node(
    node: &Node,
    inputs: &[Column<'_>],
    output: &mut SliceMut<'_>,
    scratch: &mut Scratch,
    depth: usize,
) {
    let rows = output.len();
    let below = depth + node.arguments.len();
    for (position, argument) in node.arguments.iter().enumerate() {
        if let Expression::Apply(child) = argument {
            if scratch.slots.len() < below {
                scratch.slots.resize_with(below, Slot::default);
            }
            let slot = scratch.slots.get_mut(depth + position);
            let mut slot = slot.map(std::mem::take).unwrap_or_default();
            let dtype = child.kernel.dtype();
            evaluate_node(
                child,
                inputs,
                &mut slot.slice_mut(dtype, rows),
                scratch,
                below,
            );
            if let Some(place) = scratch.slots.get_mut(depth + position) {
                *place = slot;
            }
        }
    }
    let Scratch { slots, buffers } = scratch;
    let arguments = Arguments {
        node,
        inputs,
        slots,
        depth,
    };
    node.kernel.run(&arguments, output, buffers);
}

/// A program met a type that it was not compiled for: a fault of this crate. The SDK turns the panic into an error of the request. To go
/// on would leave the previous request's values in the output.
#[cold]
#[track_caller]
pub(crate) fn mismatch(expected: DType, found: DType) -> ! {
    unreachable!("a kernel for {expected} got {found}")
}

fn copy(values: Slice<'_>, output: &mut SliceMut<'_>) {
    match (values, output) {
        (Slice::Int32(x), SliceMut::Int32(out)) => out.copy_from_slice(x),
        (Slice::Int64(x), SliceMut::Int64(out)) => out.copy_from_slice(x),
        (Slice::Float32(x), SliceMut::Float32(out)) => out.copy_from_slice(x),
        (Slice::Float64(x), SliceMut::Float64(out)) => out.copy_from_slice(x),
        (Slice::Bool(x), SliceMut::Bool(out)) => out.copy_from_slice(x),
        (values, output) => mismatch(values.dtype(), output.dtype()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Element, Expression, Node, Scratch, evaluate};
    use crate::column::{Column, Slice, SliceMut};

    /// The row's number + x, in int32.
    fn node(argument: Expression) -> Expression {
        Expression::Apply(Arc::new(Node {
            kernel: i32::kernel(Box::new(|arguments, output, _| {
                let values = arguments.values::<i32>(0);
                for (row, (out, x)) in output.iter_mut().zip(values).enumerate() {
                    *out = x + row as i32;
                }
            })),
            arguments: vec![argument],
            keeps_nulls: true,
        }))
    }

    fn run(values: Slice<'_>, output: &mut SliceMut<'_>) {
        let inputs = [Column {
            values,
            valid: None,
        }];
        let program = node(node(Expression::Input(0)));
        evaluate(&program, &inputs, output, &mut Scratch::default());
    }

    #[test]
    fn kernels_read_what_others_write() {
        let mut output = [0; 3];
        run(Slice::Int32(&[1, 2, 3]), &mut SliceMut::Int32(&mut output));
        assert_eq!(output, [1, 4, 7]);
    }

    #[test]
    #[should_panic(expected = "a kernel for int32 got float32")]
    fn values_of_another_type_are_a_fault() {
        run(Slice::Float32(&[1.0]), &mut SliceMut::Int32(&mut [0]));
    }

    #[test]
    #[should_panic(expected = "a kernel for int32 got int64")]
    fn an_output_of_another_type_is_a_fault() {
        run(Slice::Int32(&[1]), &mut SliceMut::Int64(&mut [0]));
    }
}
